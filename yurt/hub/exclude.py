"""
Resources that are kept out of the cache.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from yurt.options import comma_list

TOKENS = "serviceaccounts/token"
"""What a TokenRequest creates; its answers are kept for the time without the cloud."""

MAX_REMEMBERED = 256
"""Resources for which the decision is remembered."""

_ENTRY = re.compile(rf"{TOKENS}|[a-z0-9-]+(?:\.[a-z0-9-]+)*")


def resources(text: str) -> tuple[str, ...]:
    """
    Resources of a comma list, as RBAC writes them: ``secrets``, ``ipamblocks.crd.projectcalico.org``,
    ``serviceaccounts/token``.  Raises ValueError.
    """
    entries = tuple(entry.lower() for entry in comma_list(text))
    for entry in entries:
        if not _ENTRY.fullmatch(entry):
            raise ValueError(f"{entry} is no resource; write such as secrets, leases.coordination.k8s.io, {TOKENS}")
    return entries


class Excluded:
    """
    Tells what is not kept.  An entry without a group stands for the resource of that name in every group.
    """

    def __init__(self, entries: Sequence[str] = ()) -> None:
        self._entries = frozenset(entries)
        self.covers = lru_cache(MAX_REMEMBERED)(self._covers)

    def _covers(self, group: str, resource: str) -> bool:
        """
        Whether a resource, with its subresource if that is meant, is kept out.
        """
        return resource in self._entries or f"{resource}.{group}" in self._entries

    def covers_gvr(self, gvr: str) -> bool:
        """
        The same for a resource as views are known by: ``group/version/resource``.
        """
        group, _, resource = gvr.split("/")
        return self.covers(group, resource)
