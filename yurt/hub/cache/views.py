"""
One object, many views: what each caller was told of the cluster, kept so that it can be told again.

An object is stored once for all callers; a view holds the names of those that one list or watch of one caller contained, and
the resourceVersion up to which that is known.  Nobody reads an object that no view of its own holds.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterator

from twisted.internet.interfaces import IReactorTime

from yurt.hub.cache.answers import ABSENT, Absent, Found, FoundList, ViewInfo
from yurt.hub.cache.draft import Draft
from yurt.hub.cache.index import Group, InitialEvents, View
from yurt.hub.cache.quota import Quota
from yurt.hub.cache.reading import MAX_RECENT, MAX_RECENT_BODY, Reader
from yurt.hub.cache.records import GETS, Caller, StoredObject, ViewKey, member_of
from yurt.hub.cache.shelf import FORBIDDEN, GONE, Shelf
from yurt.hub.cache.store import Store
from yurt.hub.cache.upkeep import Upkeep
from yurt.kube.objects import PARTIAL, TABLE, ListParts, exhaust, is_newer, read_object, slices, split_list
from yurt.kube.watch import ADDED, BOOKMARK, DELETED, MODIFIED, WatchEvent

__all__ = [
    "ABSENT",
    "GETS",
    "Absent",
    "Caller",
    "Found",
    "FoundList",
    "InitialEvents",
    "ViewInfo",
    "ViewKey",
    "Views",
]

LIST_STEP = 500
"""Items of a list that are looked at in one turn of the reactor; a few milliseconds on a small box."""

FORMS = ("", TABLE, PARTIAL)

MAX_CONFIRMED = 4096
"""Objects for which it is remembered that the cloud gave them again, unchanged."""


class Views(Reader):
    """
    All views, over a store; ``wall`` tells the seconds of the wall clock.
    """

    def __init__(self, store: Store, clock: IReactorTime, wall: Callable[[], float], quota: Quota | None = None) -> None:
        super().__init__(Shelf(store, clock, wall, quota))
        self.upkeep = Upkeep(self._shelf, self._confirmed)
        self.refused = 0
        """Lists that alone are larger than their caller's quota, and were not kept."""
        self._wall = wall
        self._store_changes = lambda: store.changes
        self._seen: dict[tuple[Caller, str, str, str], bytes] = {}
        self._seen_at = -1

    @property
    def objects(self) -> int:
        """
        How many objects are stored.
        """
        return self._shelf.counts.objects

    @property
    def object_bytes(self) -> int:
        """
        The bytes of all objects together.
        """
        return self._shelf.counts.bytes

    # What the cloud says

    def store_list(self, key: ViewKey, parts: ListParts, *, requested_version: str, known_version: str | None = None) -> None:
        """
        Take in a whole list, pages already joined: it is the view from now on.

        An item older than what is stored does not replace it, unless the most recent state was asked for (no
        ``requested_version``): then the list is right, as after etcd was restored from a backup.  A list that is older than the
        view changes nothing if an old one was asked for, or if the view was not yet newer when the list was: ``known_version``
        is the view's version at that time, empty when there was no view; None stands for the present one.
        """
        exhaust(self.store_list_in_steps(key, parts, requested_version=requested_version, known_version=known_version))

    def store_list_in_steps(
        self, key: ViewKey, parts: ListParts, *, requested_version: str, known_version: str | None = None
    ) -> Generator[None, None, None]:
        """
        As :meth:`store_list`, with a pause after each LIST_STEP items.  Readers see nothing of it before its end, and in the
        pauses nobody may write to the views: what the cloud says meanwhile has to wait.
        """
        if sum(len(item) for _, item in parts.items) > self._shelf.quota.limit(key.caller):
            self.refused += 1
            self.mark_gap(key)
            return
        self._shelf.drafting += 1
        try:
            while True:
                view, upheavals = self._shelf.obtain(key), self._shelf.upheavals
                if _is_overtaken(view, parts.resource_version, requested_version, known_version):
                    return
                draft = yield from self._draft(view, parts, authoritative=not requested_version)
                if upheavals == self._shelf.upheavals and self._shelf.index.views.get(key) is view:
                    break
        finally:
            self._shelf.drafting -= 1
        view.frozen = False
        self._shelf.put_all(view, draft)
        view.record.members = len(draft.members | draft.held)
        for member in draft.held - draft.members:
            self._shelf.dismiss(view, member)
        record = view.record
        record.kind, record.api_version, record.columns = parts.kind, parts.api_version, parts.table_columns
        self._complete(view, parts.resource_version)
        self._adjust_gets(view, draft.members, parts.resource_version if requested_version else None)

    def _draft(self, view: View, parts: ListParts, *, authoritative: bool) -> Generator[None, None, Draft]:
        gvr, form = view.key.gvr, view.key.form
        draft = Draft()
        for some in slices(parts.items, LIST_STEP):
            if draft.members:
                yield
            items = {member_of(meta.namespace, meta.name): (meta.resource_version, item) for meta, item in some}
            before = self._shelf.get_many(gvr, form, items)
            for (member, (version, item)), stored in zip(items.items(), before, strict=True):
                if self._is_new(gvr, form, member, version, item, stored, authoritative=authoritative):
                    draft.put(member, StoredObject(self._wall(), False, version, item), stored)
            draft.members.update(items)
        for members in slices(self._shelf.members(view), LIST_STEP):
            if draft.held:
                yield
            draft.held.update(members)
        return draft

    def store_object(self, caller: Caller, gvr: str, form: str, body: bytes) -> None:
        """
        Take in what a GET has returned.  Raises ObjectError when that is no object.
        """
        columns = b""
        if form == TABLE:
            parts = split_list(body)
            if len(parts.items) != 1:
                return
            columns, (meta, item) = parts.table_columns, parts.items[0]
        else:
            head = read_object(body)
            if head.kind == "Status":
                return
            meta, item = head.meta, body
        view = self._shelf.obtain(ViewKey(caller, gvr, form, GETS))
        view.record.columns = columns or view.record.columns
        member = member_of(meta.namespace, meta.name)
        self._store(view, member, meta.resource_version, item, self._shelf.get(gvr, form, member))
        self._shelf.admit(view, member)
        self._touch(view)

    def confirm_object(self, caller: Caller, gvr: str, namespace: str, name: str, body: bytes) -> bool:
        """
        A GET has returned an object: true when it is what this caller's single reads hold already, so that nothing is to be
        done.  Much cheaper than :meth:`store_object`.
        """
        again = (caller, gvr, namespace, name)
        if self._seen_at == self._store_changes() and self._seen.get(again) == body:
            self._confirm((gvr, "", member_of(namespace, name)))
            return True
        group = self._shelf.index.group(caller, gvr, "")
        if group is None or group.gets is None:
            return False
        member = member_of(namespace, name)
        if not self._shelf.holds(group.gets, member):
            return False
        stored = self._shelf.get(gvr, "", member)
        if stored is None or stored.local or stored.body != body:
            return False
        self._confirm((gvr, "", member))
        self._remember(again, body)
        return True

    def _remember(self, again: tuple[Caller, str, str, str], body: bytes) -> None:
        """
        Spare the next look, until anything in the store changes.
        """
        changes = self._store_changes()
        if self._seen_at != changes or len(self._seen) >= MAX_RECENT:
            self._seen.clear()
            self._seen_at = changes
        if len(body) <= MAX_RECENT_BODY:
            self._seen[again] = body

    def forget_object(self, caller: Caller, gvr: str, form: str, namespace: str, name: str) -> None:
        """
        The cloud answered 404 to a GET: single reads of this caller find it no more, until a list or
        an event brings it again.
        """
        group = self._shelf.index.group(caller, gvr, form)
        if group is None:
            return
        member = member_of(namespace, name)
        if any(self._shelf.holds(view, member) for view in group.covering(namespace, name)):
            self._shelf.mark(self._shelf.obtain(ViewKey(caller, gvr, form, GETS)), member, GONE)
        elif group.gets is not None:
            self._shelf.dismiss(group.gets, member)

    def forbid_object(self, caller: Caller, gvr: str, namespace: str, name: str) -> None:
        """
        The cloud answered 403 to a GET: this caller reads the object no more, in no form, until a GET brings it again.
        """
        member = member_of(namespace, name)
        for form in FORMS:
            group = self._shelf.index.group(caller, gvr, form)
            if group is not None and any(self._shelf.holds(view, member) for view in _all_about(group, namespace, name)):
                self._shelf.mark(self._shelf.obtain(ViewKey(caller, gvr, form, GETS)), member, FORBIDDEN)

    def forbid_list(self, key: ViewKey) -> bool:
        """
        The cloud answered 403 to a list: the views that would give it, in any form, go.  Returns whether there were any.
        """
        doomed = []
        for form in FORMS:
            asked = key._replace(form=form)
            group = self._shelf.index.group(key.caller, key.gvr, form)
            doomed += [view for view in group.all() if view.key == asked or view in group.wider(asked)] if group else []
        for view in doomed:
            self._shelf.evict(view)
        return bool(doomed)

    def forget_resource(self, caller: Caller, gvr: str) -> bool:
        """
        The cloud has no such resource any more: all that this caller was told of it goes.  Returns whether there was anything.
        """
        doomed = [view for view in self._shelf.index.views.values() if view.key.caller == caller and view.key.gvr == gvr]
        for view in doomed:
            self._shelf.evict(view)
        return bool(doomed)

    def begin_watch(self, key: ViewKey, resource_version: str, *, thaw: bool = False) -> None:
        """
        A watch that goes on from ``resource_version`` begins: where it leaves out events after what the view knows, the view is
        no longer complete; where it leaves out none, a frozen view takes events again, if it is to ``thaw``.
        """
        view = self._shelf.index.views.get(key)
        if view is None:
            return
        if resource_version in ("", "0") or is_newer(resource_version, view.record.resource_version):
            self.mark_gap(key)
        elif thaw:
            view.frozen = False

    def begin_initial(self, key: ViewKey) -> InitialEvents:
        """
        A watch with sendInitialEvents begins: members that it has not named by the bookmark at their end will be dropped.

        Until then the view stays what it was.  Hand the returned value to :meth:`apply_event` with the events of that watch.
        """
        self._shelf.obtain(key).frozen = False
        return InitialEvents()

    def apply_event(self, key: ViewKey, event: WatchEvent, initial: InitialEvents | None = None) -> None:
        """
        Take in an event of a watch; one that the view knows already is ignored.
        """
        view = self._shelf.obtain(key)
        if view.frozen:
            return
        version = event.meta.resource_version
        if event.type == BOOKMARK:
            _describe(view, event)
            if initial is None:
                self._move(view, version)
            elif event.initial_events_end:
                self._end_initial(view, initial, version)
        elif event.type in (ADDED, MODIFIED, DELETED) and event.item:
            if initial is None and view.record.complete and not is_newer(version, view.record.resource_version):
                return
            _describe(view, event)
            self._apply_change(view, event, initial)
            if initial is None:
                self._move(view, version)

    def confirm(self, gvr: str, form: str, member: bytes) -> None:
        """
        The cloud still has an object.
        """
        self._confirm((gvr, form, member))

    def mark_gap(self, key: ViewKey) -> None:
        """
        Events of this view were missed: see :meth:`Shelf.mark_gap`.
        """
        view = self._shelf.index.views.get(key)
        if view is not None:
            self._shelf.mark_gap(view)

    def store_local(self, caller: Caller, gvr: str, body: bytes) -> None:
        """
        Take in the state of an object that was written here while the cloud was away.

        It stands until the cloud gives a newer version than the one that it was made from.
        """
        meta = read_object(body).meta
        view = self._shelf.obtain(ViewKey(caller, gvr, "", GETS))
        member = member_of(meta.namespace, meta.name)
        before = self._shelf.get(gvr, "", member)
        version = meta.resource_version if before is None else before.resource_version
        self._shelf.put(gvr, "", member, StoredObject(self._wall(), True, version, body), before)
        self._shelf.admit(view, member)
        self._touch(view)

    def take_back(self, gvr: str, body: bytes) -> None:
        """
        The cloud did not take what was written here to an object that it has as ``body``, unless it has told a newer version.
        """
        meta = read_object(body).meta
        member = member_of(meta.namespace, meta.name)
        stored = self._shelf.get(gvr, "", member)
        if stored is not None and stored.local and stored.resource_version == meta.resource_version:
            self._shelf.put(gvr, "", member, StoredObject(self._wall(), False, meta.resource_version, body), stored)

    # How views change

    def _store(self, view: View, member: bytes, version: str, body: bytes, before: StoredObject | None) -> None:
        """
        Store an object that the cloud gave, unless what is stored is newer, or is the same.
        """
        gvr, form = view.key.gvr, view.key.form
        if self._is_new(gvr, form, member, version, body, before):
            self._shelf.put(gvr, form, member, StoredObject(self._wall(), False, version, body), before)

    def _is_new(
        self,
        gvr: str,
        form: str,
        member: bytes,
        version: str,
        body: bytes,
        before: StoredObject | None,
        *,
        authoritative: bool = False,
    ) -> bool:
        """
        Whether an object that the cloud gave is to be stored in place of ``before``.  That it is the same is remembered.
        """
        if before is None:
            return True
        is_same = version == before.resource_version
        if (is_same and before.local) or not (is_same or authoritative or is_newer(version, before.resource_version)):
            return False
        if before.body == body and not before.local:
            self._confirm((gvr, form, member))
            return False
        return True

    def _confirm(self, key: tuple[str, str, bytes]) -> None:
        self._recent.clear()
        self._confirmed[key] = self._wall()
        self._confirmed.move_to_end(key)
        if len(self._confirmed) > MAX_CONFIRMED:
            self._confirmed.popitem(last=False)

    def _admit(self, view: View, member: bytes) -> None:
        """
        Let a view hold an object, which its caller may then read again.
        """
        self._shelf.admit(view, member)
        group = self._shelf.index.group(view.key.caller, view.key.gvr, view.key.form)
        if group is not None and group.gets is not None and self._shelf.state(group.gets, member) == GONE:
            self._shelf.dismiss(group.gets, member)

    def _touch(self, view: View) -> None:
        view.record.updated_at = self._wall()
        self._shelf.touch(view)

    def _move(self, view: View, version: str) -> None:
        if version and is_newer(version, view.record.resource_version or "0"):
            view.record.resource_version = version
        self._touch(view)

    def _complete(self, view: View, version: str) -> None:
        view.record.complete = True
        view.record.resource_version = version
        self._touch(view)

    def _apply_change(self, view: View, event: WatchEvent, initial: InitialEvents | None) -> None:
        meta = event.meta
        member = member_of(meta.namespace, meta.name)
        if event.type != DELETED:
            before = self._shelf.get(view.key.gvr, view.key.form, member)
            self._store(view, member, meta.resource_version, event.item, before)
            self._admit(view, member)
            if initial is not None:
                initial.seen.add(member)
            return
        self._shelf.dismiss(view, member)
        if initial is not None:
            initial.seen.discard(member)
        if view.unselective or view.name:
            self._forget_get(view, member, meta.resource_version)

    def _end_initial(self, view: View, initial: InitialEvents, version: str) -> None:
        """
        Drop the members that were not named, but for those that another watch brought after this state.
        """
        for member in [member for member in self._shelf.members(view) if member not in initial.seen]:
            stored = self._shelf.get(view.key.gvr, view.key.form, member)
            if stored is None or not is_newer(stored.resource_version, version):
                self._shelf.dismiss(view, member)
        self._complete(view, version)

    def _adjust_gets(self, view: View, listed: Container[bytes], version: str | None) -> None:
        """
        What a list holds may be read again.  What a whole list lacks has gone for single reads too, unless it is newer
        than the list (of that version).
        """
        group = self._shelf.index.group(view.key.caller, view.key.gvr, view.key.form)
        if group is None or group.gets is None:
            return
        for member, state in list(self._shelf.states(group.gets, view.key.namespace)):
            if state == GONE and member in listed:
                self._shelf.dismiss(group.gets, member)
            elif view.unselective and member not in listed:
                self._forget_get(view, member, version)

    def _forget_get(self, view: View, member: bytes, version: str | None) -> None:
        key = view.key
        group = self._shelf.index.group(key.caller, key.gvr, key.form)
        if group is None or group.gets is None:
            return
        stored = self._shelf.get(key.gvr, key.form, member)
        if version is None or stored is None or not is_newer(stored.resource_version, version):
            self._shelf.dismiss(group.gets, member)


def _all_about(group: Group, namespace: str, name: str) -> Iterator[View]:
    if group.gets is not None:
        yield group.gets
    yield from group.covering(namespace, name)


def _describe(view: View, event: WatchEvent) -> None:
    """
    Give a view that no list made the type of its list.
    """
    record = view.record
    if not record.kind and event.kind:
        record.kind = event.kind if event.form == TABLE else event.kind + "List"
        record.api_version = event.api_version
    if event.form == TABLE and not record.columns and event.object:
        record.columns = split_list(event.object).table_columns


def _is_overtaken(view: View, version: str, requested_version: str, known_version: str | None) -> bool:
    """
    Whether a list of that version changes nothing; see :meth:`Views.store_list`.
    """
    record = view.record
    if view.frozen or not record.complete or not is_newer(record.resource_version, version):
        return False
    known_version = record.resource_version if known_version is None else known_version
    return bool(requested_version) or not known_version or not is_newer(known_version, version)
