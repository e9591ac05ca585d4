"""
Views and objects as they lie in the store: what a view holds, and objects only as long as some view holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from msgspec import MsgspecError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from yurt.hub.cache.draft import Draft
from yurt.hub.cache.index import Index, View
from yurt.hub.cache.quota import Quota, rank
from yurt.hub.cache.records import (
    SECRETS,
    VIEW_ID_SIZE,
    Counts,
    StoredObject,
    ViewKey,
    ViewRecord,
    decode_body,
    decode_counts,
    decode_object,
    decode_view,
    encode_object,
    encode_record,
    object_prefix,
    view_id,
)
from yurt.hub.cache.store import MAP_SIZE, Store

MAX_VIEWS = 4096
"""Views kept; beyond, the one that was updated longest ago goes, the node's own last.  A node with 250 pods has some 1,000."""

MAX_OBJECT_BYTES = MAP_SIZE // 2
"""Bytes of objects beyond which views go in the same order whatever the quota: the file must not become full."""

SWEEP_INTERVAL = 1.0
"""Seconds between two steps of removing what evicted views held."""

HASTE_INTERVAL = 0.1
"""The same while more is stored than may be: much may come in a second."""

SWEEP_MEMBERS = 500
"""Members that one step removes."""

HELD = b""
GONE = b"-"
"""The value of a member in the view of single reads: the cloud has said that the object does not exist."""
FORBIDDEN = b"x"
"""The same: the cloud has said that the caller may not get it, whatever its lists hold."""

_COUNTS_KEY = b"counts"


class Shelf:
    """
    The tables ``views`` (records by view id), ``members`` (view id and name) and ``objects``, and the index of views in memory.
    """

    log = Logger()

    def __init__(self, store: Store, clock: IReactorTime, wall: Callable[[], float], quota: Quota | None = None) -> None:
        self.quota = quota or Quota()
        self.index = Index()
        self.counts = Counts()
        self.wall = wall
        self._clock = clock
        self._store = store
        self._records = store.table("views", expendable=True)
        self._members = store.table("members", expendable=True)
        self._objects = store.table("objects", expendable=True, secret=f"{SECRETS}\0".encode())
        self._changes = 0
        self.upheavals = 0
        """How often everything that is stored may have changed at once."""
        self.drafting = 0
        """Lists whose draft would be wrong if what evicted views held were removed now."""
        self._evicted: list[View] = []
        self._sweep: IDelayedCall | None = None
        store.join(self)

    @property
    def revision(self) -> int:
        """
        Grows with every change of what is stored and of what views say: what was read is still true while it stands still.
        """
        return self._changes + self._store.changes

    # Objects

    def get(self, gvr: str, form: str, member: bytes) -> StoredObject | None:
        """
        A stored object.
        """
        record = self._objects.get(object_prefix(gvr, form) + member)
        return None if record is None else decode_object(record)

    def get_many(self, gvr: str, form: str, members: Iterable[bytes]) -> Iterator[StoredObject | None]:
        """
        Stored objects, in the order of the members, None for those that there are not.
        """
        prefix = object_prefix(gvr, form)
        records = self._objects.get_many(prefix + member for member in members)
        return (None if record is None else decode_object(record) for record in records)

    def bodies(self, gvr: str, form: str, members: Iterable[bytes]) -> list[bytes] | None:
        """
        Stored objects, in the order of the members; None when one is missing.
        """
        prefix = object_prefix(gvr, form)
        bodies: list[bytes] = []
        for record in self._objects.get_many(prefix + member for member in members):
            if record is None:
                return None
            bodies.append(decode_body(record))
        return bodies

    def put(self, gvr: str, form: str, member: bytes, stored: StoredObject, before: StoredObject | None) -> None:
        """
        Store an object in place of ``before``.
        """
        self._objects.replace(object_prefix(gvr, form) + member, encode_object(stored))
        self.counts.objects += before is None
        self.counts.bytes += len(stored.body) - (0 if before is None else len(before.body))

    def put_all(self, view: View, draft: Draft) -> None:
        """
        Store the objects of a draft, and let the view hold all that the draft names.
        """
        prefix = object_prefix(view.key.gvr, view.key.form)
        self._objects.replace_all({prefix + member: record for member, record in draft.objects.items()})
        self._members.replace_all({view.id + member: HELD for member in draft.members - draft.held})
        self.counts.objects += len(draft.fresh)
        self.counts.bytes += sum(draft.growth.values())

    def _release(self, gvr: str, form: str, member: bytes) -> None:
        """
        Remove an object that no view holds.
        """
        namespace, _, name = member.decode().partition("/")
        for group in self.index.groups(gvr, form):
            if group.gets is not None and self.holds(group.gets, member):
                return
            if any(self.holds(view, member) for view in group.covering(namespace, name)):
                return
        stored = self.get(gvr, form, member)
        if stored is not None:
            self._objects.delete(object_prefix(gvr, form) + member)
            self.counts.objects -= 1
            self.counts.bytes -= len(stored.body)

    def objects(self, gvr: str, form: str) -> Iterator[tuple[bytes, StoredObject]]:
        """
        All stored objects of a resource in one form, by their members' names.
        """
        prefix = object_prefix(gvr, form)
        for key, record in self._objects.scan(prefix):
            yield key[len(prefix) :], decode_object(record)

    @property
    def is_settled(self) -> bool:
        """
        Whether every object that is stored is held by a view of the index.
        """
        return not self._evicted

    def counted(self) -> tuple[int, int]:
        """
        How many objects are stored, and their bytes, as far as was counted.
        """
        return self.counts.objects, self.counts.bytes

    def recount(self, objects: int, size: int) -> None:
        """
        So many they are in truth.
        """
        if self.counted() != (objects, size):
            self.counts = Counts(objects, size)
            self._records.put(_COUNTS_KEY, encode_record(self.counts))

    # Members

    def state(self, view: View, member: bytes) -> bytes | None:
        """
        HELD, GONE, or None when the view knows nothing of the member.
        """
        return self._members.get(view.id + member)

    def holds(self, view: View, member: bytes) -> bool:
        """
        Whether a view holds an object.
        """
        return self._members.get(view.id + member) == HELD

    def members(self, view: View, namespace: str = "") -> Iterator[bytes]:
        """
        What a view holds, in order; of one namespace only when one is given.
        """
        prefix = f"{namespace}/".encode() if namespace else b""
        for key, state in self._members.scan(view.id + prefix):
            if state == HELD:
                yield key[VIEW_ID_SIZE:]

    def states(self, view: View, namespace: str = "") -> Iterator[tuple[bytes, bytes]]:
        """
        What a view knows of, and whether it is HELD or GONE.
        """
        prefix = f"{namespace}/".encode() if namespace else b""
        for key, state in self._members.scan(view.id + prefix):
            yield key[VIEW_ID_SIZE:], state

    def is_whole(self, view: View) -> bool:
        """
        Whether a view holds as many as its record says.  Where the disk was damaged, what it lacks may have been lost: that is
        counted anew whenever more damage has shown.
        """
        damage = self._store.damage
        if view.counted_at != damage and sum(1 for _ in self.members(view)) == view.record.members:
            view.counted_at = damage
        return view.counted_at == damage

    def admit(self, view: View, member: bytes) -> None:
        """
        Let a view hold an object.
        """
        if not self.holds(view, member):
            self._members.replace(view.id + member, HELD)
            view.record.members += 1
            self.touch(view)

    def dismiss(self, view: View, member: bytes) -> None:
        """
        Let a view hold an object no longer; the object goes with its last holder.
        """
        state = self.state(view, member)
        if state is not None:
            self._members.delete(view.id + member)
        if state == HELD:
            view.record.members -= 1
            self.touch(view)
            self._release(view.key.gvr, view.key.form, member)

    def mark(self, view: View, member: bytes, state: bytes) -> None:
        """
        Let a view of single reads remember that an object is GONE or FORBIDDEN.
        """
        self.dismiss(view, member)
        self._members.put(view.id + member, state)

    # Views

    def obtain(self, key: ViewKey) -> View:
        """
        The view of that key, made if there is none.
        """
        view = self.index.views.get(key)
        if view is not None:
            return view
        if len(self.index.views) >= MAX_VIEWS:
            self._evict_one()
        view = View(key)
        for evicted in [evicted for evicted in self._evicted if evicted.id == view.id]:
            self._remove_members(evicted, None)
        view.record.updated_at = self.wall()
        view.whole = not self._store.is_readable
        self.index.add(view)
        self.touch(view)
        return view

    def touch(self, view: View) -> None:
        """
        The record of a view has changed.
        """
        view.dirty = True
        self._changes += 1

    def mark_gap(self, view: View) -> None:
        """
        A view has missed something: it no longer tells what does not exist, nor what a list holds.  A frozen one has missed some
        anyway, and stays the old state that it is.
        """
        if view.record.complete and not view.frozen:
            view.record.complete = False
            self.touch(view)

    def _evict_one(self) -> None:
        self.evict(min(self.index.views.values(), key=rank))

    def evict(self, view: View) -> None:
        """
        Forget a view now, and bit by bit what it held.
        """
        self.index.remove(view)
        view.record.evicted = True
        self.touch(view)
        self._records.put(view.id, encode_record(view.record))
        self._evicted.append(view)
        self._schedule_sweep()

    @property
    def _is_beyond(self) -> bool:
        """
        Whether more is stored than may be.
        """
        return self.counts.bytes > min(MAX_OBJECT_BYTES, self.quota.total) and bool(self.index.views)

    def _schedule_sweep(self) -> None:
        if self._evicted and self._sweep is None:
            self._sweep = self._clock.callLater(HASTE_INTERVAL if self._is_beyond else SWEEP_INTERVAL, self._sweep_step)

    def _sweep_step(self) -> None:
        """
        Remove some members, of as many views as have them; further views go until what is stored is within the quota.
        """
        self._sweep = None
        left, next_ones = 0 if self.drafting else SWEEP_MEMBERS, None
        while left > 0:
            if not self._evicted and self._is_beyond:
                next_ones = next_ones or iter(sorted(self.index.views.values(), key=rank))
                self.evict(next(next_ones))
            if not self._evicted:
                break
            left -= 1 + self._remove_members(self._evicted[0], left)
        self._schedule_sweep()

    def _remove_members(self, view: View, limit: int | None) -> int:
        """
        Remove what an evicted view held, up to so many; how many that were.
        """
        doomed = [key[VIEW_ID_SIZE:] for key, _ in islice(self._members.scan(view.id), limit)]
        for member in doomed:
            self.dismiss(view, member)
        if len(doomed) != limit:
            self._records.delete(view.id)
            self._evicted.remove(view)
        return len(doomed)

    # Resident of the store

    def before_commit(self) -> None:
        """
        Put the records of the views that have changed; when too much is stored, begin to remove a view.
        """
        if self._is_beyond and not self._evicted:
            self._evict_one()
        dirty = [view for view in self.index.views.values() if view.dirty]
        for view in dirty:
            self._records.put(view.id, encode_record(view.record))
            view.dirty = False
        if dirty:
            self._records.put(_COUNTS_KEY, encode_record(self.counts))

    def pending_dropped(self) -> None:
        """
        Go back to the views of the disk; those that had changed since take no events until they are told all that they missed.
        """
        self.upheavals += 1
        self._changes += 1
        self._evicted = []
        for view in list(self.index.views.values()):
            record = self._read(view.id)
            if record is None:
                self.index.remove(view)
            elif record != view.record:
                view.record, view.frozen, view.dirty = record, True, False
        self._take_in_stored()

    def disk_appeared(self) -> None:
        """
        Take in the views of the disk.  One that is in memory already replaces that of the disk, members and all.
        """
        self.upheavals += 1
        self._changes += 1
        whole = [view for view in self.index.views.values() if view.whole]
        left = [(view, member) for view in whole for member in self._replace_stored(view)]
        self._take_in_stored()
        for view, member in left:
            self._release(view.key.gvr, view.key.form, member)
        if whole:
            sizes = [len(decode_body(record)) for _, record in self._objects.scan()]
            self.counts = Counts(len(sizes), sum(sizes))

    def _take_in_stored(self) -> None:
        """
        Take in the views of the store that are not in memory, and the counts.
        """
        known = {view.id for view in (*self.index.views.values(), *self._evicted)}
        for key, record in list(self._records.scan()):
            if key not in known and key != _COUNTS_KEY:
                self._take_in(key, record)
        encoded = self._records.get(_COUNTS_KEY)
        self.counts = Counts() if encoded is None else decode_counts(encoded)
        self._schedule_sweep()

    def _replace_stored(self, view: View) -> list[bytes]:
        """
        Remove the members that the view has on the disk only; returns them.
        """
        view.whole = False
        left = [key for key, _ in self._members.scan(view.id) if not self._members.is_pending(key)]
        for key in left:
            self._members.delete(key)
        return [key[VIEW_ID_SIZE:] for key in left]

    def closing(self) -> None:
        """
        Leave what evicted views hold to the next start.
        """
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _take_in(self, key: bytes, encoded: bytes) -> None:
        record = self._decode(encoded)
        if record is None or view_id(record.key()) != key:
            return
        view = View(record.key(), record)
        if record.evicted:
            self._evicted.append(view)
        else:
            self.index.add(view)

    def _read(self, key: bytes) -> ViewRecord | None:
        encoded = self._records.get(key)
        return None if encoded is None else self._decode(encoded)

    def _decode(self, encoded: bytes) -> ViewRecord | None:
        try:
            return decode_view(encoded)
        except MsgspecError:
            self.log.error("a view in the cache cannot be read and is left out")
            return None
