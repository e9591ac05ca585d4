"""
A store of named tables that never makes its users wait for the disk.

Writes go to memory, where reads look first, and a writer thread puts them on the disk in groups: one LMDB transaction, synced, at
most one every COMMIT_INTERVAL.  While a group is being written a second one collects.  A disk that cannot be used is a
``problem`` to show, never an exception: the store goes on in memory and tries again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Protocol, cast

import lmdb
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.hub.cache.disk import DAMAGE, Disk, open_disk
from yurt.hub.cache.folder import DiskFailure, is_writable, reason_of, set_aside
from yurt.hub.cache.format import FORMAT_KEY, FORMAT_VERSION
from yurt.hub.cache.sealing import MAX_KEY, MAX_PREFIX, BadRecord, LockedRecord, Secrets, shorten, unseal
from yurt.hub.cache.vault import Vault
from yurt.hub.cache.writer import Writer, WriterThread

MAP_SIZE = 1 << 30 if sys.maxsize > 1 << 32 else 1 << 28
"""The greatest size of the file, in bytes; LMDB reserves as much address space, and no memory."""

COMMIT_INTERVAL = 2.0
"""
Seconds from one commit to the next.  LMDB syncs twice a commit, first the data, then the page that makes them valid; so
that is one sync a second at most.
"""

COMMIT_DELAY = 0.1
"""Seconds that the first write after a quiet time waits for others to join it."""

REOPEN_INTERVAL = 5.0
"""Seconds between attempts to get at a disk that cannot be used."""

WRITE_PATIENCE = 5.0
"""Seconds after which a write that has not ended is taken for one that hangs: kubelet gives up its status after 10."""

LOOK_INTERVAL = 5.0
"""Seconds between looks at whether the file is still in its place."""

MAX_PENDING_BYTES = 32 * 1024 * 1024
"""What may wait in memory for a disk that is slow (twice as much at most) or does not take it."""

ENTRY_BYTES = 100
"""What an entry that waits costs in memory beside its key and value."""

SCAN_CHUNK = 512
"""Records that a scan reads from the disk at a time."""


class Resident(Protocol):
    """
    A user of the store that keeps some of what is stored in memory, and must keep the two alike.
    """

    def before_commit(self) -> None:
        """
        Put now what belongs into the commit that is about to begin.
        """

    def pending_dropped(self) -> None:
        """
        What was waiting in expendable tables has been dropped: go back to what the store holds now.
        """

    def disk_appeared(self) -> None:
        """
        The store reads from a disk now; what was put meanwhile is in front of it.
        """

    def closing(self) -> None:
        """
        The store is about to be closed.
        """


class _Overlay:
    """
    Writes that are not on the disk: full key → value, None for a deletion.
    """

    __slots__ = ("entries", "size")

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes | None] = {}
        self.size = 0

    def put(self, key: bytes, value: bytes | None) -> None:
        if key in self.entries:
            self.size -= len(self.entries[key] or b"")
        else:
            self.size += len(key) + ENTRY_BYTES
        self.entries[key] = value
        self.size += len(value or b"")

    def put_all(self, entries: dict[bytes, bytes]) -> None:
        """
        Many at once, at a fraction of the time.
        """
        replaced = entries.keys() & self.entries.keys()
        self.size -= sum(len(key) + ENTRY_BYTES + len(self.entries[key] or b"") for key in replaced)
        self.size += sum(map(len, entries)) + sum(map(len, entries.values())) + ENTRY_BYTES * len(entries)
        self.entries.update(entries)


class Store:
    """
    The tables, over one LMDB file in the folder ``path``.

    ``problem`` says why the disk is not read or not written, None when all is well.  Counters: ``commits`` (written and synced),
    ``write_errors`` (commits that failed), ``corrupt_records`` (bad checksums, never returned), ``corrupt_files`` (set aside),
    ``dropped`` (entries given up because the disk did not take them), ``locked_records`` (encrypted with a key that is gone,
    dropped).  ``vault`` encrypts what :meth:`table` calls secret; without one nothing is encrypted.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        path: str,
        *,
        map_size: int = MAP_SIZE,
        writer: Writer | None = None,
        vault: Vault | None = None,
    ) -> None:
        self.problem: str | None = None
        self.changes = 0
        """Grows with every change of what reads find: what was read is still true while it stands still."""
        self.commits = self.write_errors = self.corrupt_records = self.corrupt_files = self.dropped = 0
        self.locked_records = 0
        self.vault = vault
        self._secrets = None if vault is None else Secrets(vault, ())
        self._reactor = reactor
        self._path = path
        self._map_size = map_size
        self._writer = writer or WriterThread(cast(IReactorFromThreads, reactor))
        self._disk: Disk | None = None
        self._pending = _Overlay()
        self._committing = _Overlay()
        self._is_committing = False
        self._flushes: list[Deferred[bool]] = []
        self._awaited: list[Deferred[bool]] = []
        """The flushes that the commit under way is for."""
        self._is_hanging = False
        self._next_doubt: IDelayedCall | None = None
        self._residents: list[Resident] = []
        self._expendable: tuple[bytes, ...] = ()
        self._last_commit = float("-inf")
        self._next_commit: IDelayedCall | None = None
        self._next_open: IDelayedCall | None = None
        self._relief: IDelayedCall | None = None
        self._next_key: IDelayedCall | None = None
        self._next_look: IDelayedCall | None = None
        self._is_open = False

    # Opening and closing

    def open(self) -> None:
        """
        Get at the disk, as far as that is possible; what fails is in ``problem`` and tried again.
        """
        self._is_open = True
        self._writer.start()
        self._try_key()
        self._try_disk()
        self._look_later()

    def close(self) -> Deferred[None]:
        """
        Commit what is pending and let go of the disk.
        """
        for resident in self._residents:
            resident.closing()
        return self.flush().addCallback(self._closed)

    def _closed(self, is_flushed: bool) -> None:
        for call in (
            self._next_commit, self._next_open, self._next_key, self._next_look, self._next_doubt, self._relief
        ):  # fmt: skip
            if call is not None and call.active():
                call.cancel()
        lost = len(self._pending.entries.keys() | self._committing.entries.keys())
        if self._is_open and lost and not is_flushed:
            self.log.error("{lost} changes never reached the disk at {path} and are lost", lost=lost, path=self._path)
        was_open, self._is_open = self._is_open, False
        if self._is_hanging:
            return  # The file and the thread are left to the end of the process: LMDB is at work there.
        self._leave_disk()
        if was_open:
            self._writer.stop()

    @property
    def is_readable(self) -> bool:
        """
        Whether reads reach a disk.
        """
        return self._disk is not None

    def _try_key(self) -> None:
        """
        The key first: the disk may hold what has still to be encrypted.
        """
        self._next_key = None
        if self.vault is not None:
            self.vault.open()
            if not self.vault.is_kept:
                self._next_key = self._reactor.callLater(REOPEN_INTERVAL, self._try_key)

    def _try_disk(self) -> None:
        self._next_open = None
        try:
            self._disk, was_corrupt = open_disk(self._path, self._map_size, self._secrets)
        except DiskFailure as error:
            self._set_problem(str(error))
        else:
            self.corrupt_files += was_corrupt
            self._disk_appeared(self._disk)
        if self._disk is None or self._disk.readonly:
            self._next_open = self._reactor.callLater(REOPEN_INTERVAL, self._try_again)

    def _try_again(self) -> None:
        """
        A file that can only be read stays in use until it can be written.
        """
        if self._disk is not None and not is_writable(self._path):
            self._next_open = self._reactor.callLater(REOPEN_INTERVAL, self._try_again)
            return
        self._reopen()

    def _reopen(self) -> None:
        was_readable, corrupt_files = self.is_readable, self.corrupt_files
        self._leave_disk()
        self._try_disk()
        if was_readable and not (self.is_readable and corrupt_files == self.corrupt_files):
            self._drop_pending()  # What waited were changes of what the disk held.

    def _start_afresh(self, finding: str) -> None:
        self._leave_disk()
        try:
            set_aside(self._path, finding)
            self.corrupt_files += 1
        except OSError as error:
            self.log.error("cannot set it aside: {reason}", reason=error.strerror)
        self._try_disk()
        self._drop_pending()

    def _leave_disk(self) -> None:
        if self._disk is not None:
            self._disk.close()
            self._disk = None
        self.changes += 1

    def _disk_appeared(self, disk: Disk) -> None:
        self.changes += 1
        if disk.readonly:
            self._set_problem(f"{self._path} cannot be written: make it writable for the hub's user, or remount its disk")
        else:
            self._set_problem(None)
            if self._get(FORMAT_KEY) is None:  # An older format stays what it is until the file has been written anew.
                self._put(FORMAT_KEY, b"%d" % FORMAT_VERSION)
            self._schedule_commit()
        for resident in self._residents:
            resident.disk_appeared()

    def _look_later(self) -> None:
        self._next_look = self._reactor.callLater(LOOK_INTERVAL, self._look)

    def _look(self) -> None:
        """
        Have the file put back if it was removed.  No commit goes on at the same time.
        """
        self._look_later()
        disk = self._disk
        if disk is None or disk.readonly or self._is_committing:
            return
        self._begin_writing()
        looked = self._writer.run(lambda: self._put_back(disk))
        done = looked.addCallbacks(self._looked, self._commit_failed, callbackArgs=(disk,))
        done.addErrback(self._commit_broke).addCallback(self._after_commit)

    def _put_back(self, disk: Disk) -> None:
        if self.vault is not None:
            self.vault.put_back()
        disk.put_back()

    def _looked(self, _none: None, disk: Disk) -> bool:
        if disk.was_put_back:
            self._reopen()
        return True

    def _set_problem(self, problem: str | None) -> None:
        if problem == self.problem:
            return
        self.problem = problem
        if problem is None:
            self.log.info("the cache in {path} is written again", path=self._path)
        else:
            self.log.error("the cache goes on in memory: {problem}", problem=problem)

    # Tables

    def table(self, name: str, *, expendable: bool = False, secret: bytes | None = None) -> Table:
        """
        The table of that name; an expendable one is the first to lose what waits for a disk that fails for long.  Values whose
        keys begin with ``secret`` are encrypted, all for an empty one.  Tables are named before the store is opened.
        """
        prefix = name.encode("ascii") + b"\0"
        if secret is not None and self._secrets is not None:
            self._secrets = Secrets(self._secrets.vault, (*self._secrets.prefixes, prefix + secret))
        if expendable:
            self._expendable += (prefix,)
        return Table(self, prefix)

    def join(self, resident: Resident) -> None:
        """
        Tell ``resident`` from now on what happens to the store.
        """
        self._residents.append(resident)
        if self._disk is not None:
            resident.disk_appeared()

    def _get(self, key: bytes) -> bytes | None:
        for entries in (self._pending.entries, self._committing.entries):
            if key in entries:
                return entries[key]
        if self._disk is None:
            return None
        disk_key = shorten(key)
        try:
            record = self._disk.get(disk_key)
            return None if record is None else unseal(disk_key, record, self._secrets)[1]
        except (BadRecord, lmdb.Error) as error:
            self._drop(key, error)
            return None

    def _drop(self, key: bytes, error: Exception) -> None:
        """
        Drop a record that cannot be read.  One that is encrypted stays where the key's file is only out of reach.
        """
        if not isinstance(error, LockedRecord):
            self.corrupt_records += 1
        elif self.vault is None or not self.vault.is_kept:
            return
        else:
            if not self.locked_records:
                message = "the key in {path} does not open what was encrypted in the cache: such records are dropped"
                self.log.error(message, path=str(self.vault.path))
            self.locked_records += 1
        self._put_anew(key, None)

    def _get_many(self, keys: list[bytes]) -> Iterator[bytes | None]:
        pending, committing, secrets = self._pending.entries, self._committing.entries, self._secrets
        found = self._read_many([key for key in keys if len(key) <= MAX_KEY and key not in pending and key not in committing])
        for key in keys:
            record = found.pop(key, None)
            try:
                yield self._get(key) if record is None else unseal(key, record, secrets)[1]
            except BadRecord:
                yield self._get(key)

    def _put(self, key: bytes, value: bytes | None) -> None:
        if self._get(key) != value:
            self._put_anew(key, value)

    def _put_anew(self, key: bytes, value: bytes | None) -> None:
        self._pending.put(key, value)
        self._changed()

    def _put_all(self, entries: dict[bytes, bytes]) -> None:
        if entries:
            self._pending.put_all(entries)
            self._changed()

    def _changed(self) -> None:
        self.changes += 1
        if self._next_commit is None:
            self._schedule_commit()
        if self._pending.size > MAX_PENDING_BYTES and self._relief is None and self._is_open:
            # Not within this call: a user of the store may be half way through a change.
            self._relief = self._reactor.callLater(0, self._relieve)

    def _is_pending(self, key: bytes) -> bool:
        return key in self._pending.entries or key in self._committing.entries

    def _scan(self, prefix: bytes) -> Iterator[list[tuple[bytes, bytes]]]:
        """
        Keys and values in order, in chunks.  Between two of them others may write: then a scan gives what it finds there.
        """
        local = {shorten(key): key for key in self._committing.entries if key.startswith(prefix)}
        local.update((shorten(key), key) for key in self._pending.entries if key.startswith(prefix))
        waiting = sorted(local, reverse=True)
        after: bytes | None = None
        while True:
            rows = self._read_after(prefix[:MAX_PREFIX], after)
            after = rows[-1][0] if len(rows) == SCAN_CHUNK else None
            found = dict(self._unsealed(rows, prefix))
            while waiting and (after is None or waiting[-1] <= after):
                disk_key = waiting.pop()
                found[disk_key] = (local[disk_key], self._get(local[disk_key]))
            in_order = [found[disk_key] for disk_key in sorted(found)] if local else found.values()
            yield [(key, value) for key, value in in_order if value is not None]
            if after is None:
                return

    def _read_many(self, disk_keys: list[bytes]) -> dict[bytes, bytes]:
        try:
            return {} if self._disk is None else dict(self._disk.get_many(disk_keys))
        except lmdb.Error:  # The keys will be read one by one, and the bad ones counted.
            return {}

    def _read_after(self, prefix: bytes, after: bytes | None) -> list[tuple[bytes, bytes]]:
        try:
            return [] if self._disk is None else self._disk.read_after(prefix, after, SCAN_CHUNK)
        except lmdb.Error:
            self.corrupt_records += 1
            return []

    def _unsealed(self, rows: list[tuple[bytes, bytes]], prefix: bytes) -> Iterator[tuple[bytes, tuple[bytes, bytes | None]]]:
        pending, committing, secrets = self._pending.entries, self._committing.entries, self._secrets
        for disk_key, record in rows:
            try:
                key, value = unseal(disk_key, record, secrets)
            except BadRecord as error:
                self._drop(disk_key, error)
                continue
            if key.startswith(prefix):
                yield disk_key, (key, self._get(key) if key in pending or key in committing else value)

    # Commits

    def flush(self) -> Deferred[bool]:
        """
        Commit now; true when all that was put before is on the disk.  Flushes that come together share one commit.
        """
        if self._disk is None or self._disk.readonly or self._is_hanging:
            return succeed(False)
        done: Deferred[bool] = Deferred()
        self._flushes.append(done)
        if not self._is_committing:
            self._commit()
        return done

    def _schedule_commit(self) -> None:
        if self._next_commit is None and not self._is_committing and self._disk is not None and not self._disk.readonly:
            due = self._last_commit + COMMIT_INTERVAL - self._reactor.seconds()
            self._next_commit = self._reactor.callLater(max(COMMIT_DELAY, due), self._commit)

    def _commit(self) -> None:
        disk = self._disk
        if disk is None or disk.readonly:
            self._refuse_flushes()
            return
        self._begin_writing()
        for resident in self._residents:
            resident.before_commit()
        self._awaited, self._flushes = self._flushes, []
        self._committing, self._pending = self._pending, _Overlay()
        self._last_commit = self._reactor.seconds()
        batch, secrets = self._committing.entries, self._secrets
        written = self._writer.run(lambda: disk.write(batch, secrets)) if batch else succeed(None)
        done = written.addCallbacks(self._committed, self._commit_failed, callbackArgs=(disk, bool(batch)))
        done.addErrback(self._commit_broke).addCallback(self._after_commit)

    def _refuse_flushes(self) -> None:
        """
        Nobody who waits for the disk waits any longer.
        """
        flushes = self._awaited + self._flushes
        self._awaited, self._flushes = [], []
        for flush in flushes:
            flush.callback(False)

    def _begin_writing(self) -> None:
        """
        Nothing else is written until :meth:`_after_commit`.
        """
        self._is_committing = True
        self._next_doubt = self._reactor.callLater(WRITE_PATIENCE, self._hangs)
        if self._next_commit is not None and self._next_commit.active():
            self._next_commit.cancel()
        self._next_commit = None

    def _hangs(self) -> None:
        """
        The write under way may never end.
        """
        self._is_hanging = True
        self._set_problem(f"the disk of {self._path} hangs: it has not answered for {WRITE_PATIENCE:g} s")
        self._refuse_flushes()

    def _committed(self, _none: None, disk: Disk, is_synced: bool) -> bool:
        self._committing = _Overlay()
        if is_synced:
            self.commits += 1
            self._set_problem(None)
            disk.renew()
        return True

    def _commit_failed(self, failure: Failure) -> bool:
        """
        Put the batch back in front; the next tick tries again.
        """
        self.write_errors += 1
        for key, value in self._pending.entries.items():
            self._committing.put(key, value)
        self._pending, self._committing = self._committing, _Overlay()
        error = failure.value
        if isinstance(error, DiskFailure):
            self._set_problem(str(error))
            return False
        if not isinstance(error, (lmdb.Error, OSError)):
            self.log.failure("bug in writing the cache", failure)
        self._set_problem(f"cannot write the cache in {self._path}: {reason_of(error)}")
        if isinstance(error, lmdb.PanicError):  # LMDB wants its file opened anew.
            self._reopen()
        elif isinstance(error, DAMAGE):
            self._start_afresh(str(error))
        return False

    def _commit_broke(self, failure: Failure) -> bool:
        self.log.failure("bug in the store", failure)
        return False

    def _after_commit(self, is_written: bool) -> None:
        self._is_committing = False
        if self._next_doubt is not None and self._next_doubt.active():
            self._next_doubt.cancel()
        if self._is_hanging:
            self._is_hanging = False
            if is_written:
                self._set_problem(None)
        done, self._awaited = self._awaited, []
        if self._flushes:
            self._commit()
        elif self._pending.entries and self._is_open:
            self._schedule_commit()
            self._relieve()
        for flush in done:
            flush.callback(is_written)

    def _relieve(self) -> None:
        """
        Keep what waits within its bound: commit at once, or drop it when the disk does not take it.
        """
        self._relief = None
        if self._pending.size <= MAX_PENDING_BYTES:
            return
        if self.problem is not None or self._pending.size + self._committing.size > 2 * MAX_PENDING_BYTES:
            self._drop_pending()
        elif not self._is_committing:
            self._commit()

    def _drop_pending(self) -> None:
        kept = _Overlay()
        for key, value in self._pending.entries.items():
            if not key.startswith(self._expendable):
                kept.put(key, value)
        self.dropped += len(self._pending.entries) - len(kept.entries)
        self._pending = kept
        self.changes += 1
        self.log.error("{path} takes no writes: what waited for it is dropped, the cache stays as it is there", path=self._path)
        for resident in self._residents:
            resident.pending_dropped()


class Table:
    """
    Keys and values of one kind.  All are bytes; keys may be of any length.
    """

    def __init__(self, store: Store, prefix: bytes) -> None:
        self._store = store
        self._prefix = prefix

    def get(self, key: bytes) -> bytes | None:
        """
        The value as last put, on the disk or not yet.
        """
        return self._store._get(self._prefix + key)

    def get_many(self, keys: Iterable[bytes]) -> Iterator[bytes | None]:
        """
        The values of several keys, in their order.
        """
        return self._store._get_many([self._prefix + key for key in keys])

    def put(self, key: bytes, value: bytes) -> None:
        """
        Set a value; one that is there already is not written again.
        """
        self._store._put(self._prefix + key, value)

    def replace(self, key: bytes, value: bytes) -> None:
        """
        Set a value that is known to be another than the one that is there.
        """
        self._store._put_anew(self._prefix + key, value)

    def replace_all(self, values: dict[bytes, bytes]) -> None:
        """
        Set many values, all known to be others than those that are there.
        """
        self._store._put_all({self._prefix + key: value for key, value in values.items()})

    def delete(self, key: bytes) -> None:
        """
        Remove a value, if there is one.
        """
        self._store._put(self._prefix + key, None)

    def flush(self) -> Deferred[bool]:
        """
        As of the store: all that was put before is to be on the disk now.
        """
        return self._store.flush()

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """
        Keys that begin with ``prefix`` and their values, in order of the keys (of their first MAX_PREFIX bytes).
        """
        length = len(self._prefix)
        for rows in self._store._scan(self._prefix + prefix):
            for key, value in rows:
                yield key[length:], value

    def is_pending(self, key: bytes) -> bool:
        """
        Whether a change of this key is not known to be on the disk.
        """
        return self._store._is_pending(self._prefix + key)
