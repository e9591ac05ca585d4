"""
What keeps a cache small: measuring what is kept, and forgetting what is of no use any more.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping

from yurt.hub.cache.quota import rank
from yurt.hub.cache.records import Caller, StoredObject, ViewKey
from yurt.hub.cache.shelf import Shelf
from yurt.kube.objects import slices

MEASURE_STEP = 1000
"""Objects that are looked at in one turn of the reactor."""

Confirmed = Mapping[tuple[str, str, bytes], float]


class Upkeep:
    """
    Over the shelf of the views.  What changes anything is for :class:`yurt.hub.turns.Turns`, like all that writes to the views.
    """

    def __init__(self, shelf: Shelf, confirmed: Confirmed) -> None:
        self._shelf = shelf
        self._confirmed = confirmed

    def callers(self) -> set[Caller]:
        """
        All who have views.
        """
        return {key.caller for key in self._shelf.index.views}

    def held(self, caller: Caller, gvr: str) -> dict[bytes, StoredObject]:
        """
        The plain objects of a resource that any view of a caller holds, by member.
        """
        group = self._shelf.index.group(caller, gvr, "")
        members = list(dict.fromkeys(member for view in group.all() for member in self._shelf.members(view)) if group else ())
        found = self._shelf.get_many(gvr, "", members)
        return {member: stored for member, stored in zip(members, found, strict=True) if stored is not None}

    def aged(self, resources: Collection[str], before: float) -> list[tuple[float, str, str, bytes]]:
        """
        The objects of some resources that the cloud last confirmed before a time, oldest first: time, resource, form, member.
        """
        found = []
        for gvr, form in self._shelf.index.resources():
            if gvr not in resources:
                continue
            for member, stored in self._shelf.objects(gvr, form):
                confirmed_at = max(stored.stored_at, self._confirmed.get((gvr, form, member), 0.0))
                if confirmed_at < before:
                    found.append((confirmed_at, gvr, form, member))
        return sorted(found)

    def forget(self, gvr: str, form: str, member: bytes, caller: Caller | None = None) -> None:
        """
        The cloud has an object no longer: no view of a caller, or of any, holds it any more.
        """
        for group in self._shelf.index.groups(gvr, form):
            for view in list(group.all()):
                if caller in (None, view.key.caller):
                    self._shelf.dismiss(view, member)

    def drop(self, keys: Collection[ViewKey]) -> int:
        """
        Drop whole views; returns how many there were.
        """
        views = [self._shelf.index.views[key] for key in keys if key in self._shelf.index.views]
        for view in views:
            self._shelf.evict(view)
        return len(views)

    def drop_caller(self, caller: Caller) -> int:
        """
        Drop all that a caller has.
        """
        return self.drop([key for key in self._shelf.index.views if key.caller == caller])

    def measure(self) -> Generator[None, None, dict[ViewKey, int]]:
        """
        The bytes that each view holds; an object counts in each.  In steps, which also set right what is counted of all objects,
        as records that were dropped because they could not be read went uncounted.
        """
        shelf = self._shelf
        before, upheavals, sums = shelf.counted(), shelf.upheavals, [0, 0]
        usage: dict[ViewKey, int] = {}
        for gvr, form in shelf.index.resources():
            sizes: dict[bytes, int] = {}
            for some in slices(shelf.objects(gvr, form), MEASURE_STEP):
                sizes.update((member, len(stored.body)) for member, stored in some)
                yield
            for view in [view for group in shelf.index.groups(gvr, form) for view in group.all()]:
                usage[view.key] = sum(sizes.get(member, 0) for member in shelf.members(view))
            sums = [sums[0] + len(sizes), sums[1] + sum(sizes.values())]
            yield
        if shelf.is_settled and (before, upheavals) == (shelf.counted(), shelf.upheavals):
            shelf.recount(*sums)
        return usage

    def beyond(self, usage: Mapping[ViewKey, int]) -> list[ViewKey]:
        """
        The views that have to go so that every caller keeps within its quota, those that were updated longest ago first.
        """
        views = [view for view in sorted(self._shelf.index.views.values(), key=rank) if view.key in usage]
        held: dict[Caller, int] = {}
        for view in views:
            held[view.key.caller] = held.get(view.key.caller, 0) + usage[view.key]
        doomed = []
        for view in views:
            caller = view.key.caller
            if held[caller] > self._shelf.quota.limit(caller):
                held[caller] -= usage[view.key]
                doomed.append(view.key)
        return doomed
