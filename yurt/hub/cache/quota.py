"""
How much may be kept, of everything and of each component, and what goes first when it is more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from yurt.hub.agents import component_name
from yurt.hub.cache.index import View
from yurt.hub.cache.records import SECRETS, Caller
from yurt.hub.identity import NODE
from yurt.options import comma_list, size

MIN_QUOTA = 1 << 20
MAX_QUOTA = 512 << 20
"""Bytes of objects that a quota may allow: half of the greatest file, for its pages are never quite full."""

KUBELET = Caller(NODE, "kubelet")
"""The one component that is not counted among the others: the node lives on what it reads."""

LAST_TO_GO = frozenset({"/v1/pods", SECRETS, "/v1/configmaps"})
"""Of kubelet's views those that go last: what its pods are, and what they are started with."""

EVERY = "*"
_ALL = ""


@dataclass(frozen=True, slots=True)
class Quota:
    """
    Bytes of objects: in all, of each component by name, and of each other one.
    """

    total: int = MAX_QUOTA
    components: Mapping[str, int] = field(default_factory=dict)
    others: int = 128 << 20

    @classmethod
    def of(cls, entries: tuple[tuple[str, int], ...]) -> Quota:
        """
        What the entries of :func:`quota_entries` say together; of one that comes twice the last one counts.
        """
        named = dict(entries)
        total, others = named.pop(_ALL, cls().total), named.pop(EVERY, cls().others)
        return cls(total, named, others)

    def limit(self, caller: Caller) -> int:
        """
        What a caller's views may hold.
        """
        named = self.components.get(caller.component)
        if named is not None:
            return min(named, self.total)
        return self.total if caller == KUBELET else min(self.others, self.total)


def quota_entries(text: str) -> tuple[tuple[str, int], ...]:
    """
    Pairs of a comma list: a size alone is for the whole cache, ``component=size`` for one component, ``*=size`` for each other.
    """
    entries = []
    for part in comma_list(text):
        name, separator, amount = part.rpartition("=")
        if separator and name.strip() != EVERY:
            name = component_name(name)
        else:
            name = name.strip()
        limit = size(amount.strip())
        if not MIN_QUOTA <= limit <= MAX_QUOTA:
            raise ValueError(f"{amount.strip()} is not from 1Mi to 512Mi")
        entries.append((name, limit))
    return tuple(entries)


def rank(view: View) -> tuple[bool, bool, float]:
    """
    The place of a view in the order in which they go: nobody pushes out what the node lives on.
    """
    key = view.key
    return key.caller == KUBELET and key.gvr in LAST_TO_GO, key.caller.identity == NODE, view.record.updated_at
