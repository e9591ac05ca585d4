"""
A store of named tables that never makes its users wait for the disk.

Writes go to memory, where reads look first, and a writer thread puts them on the disk in groups: one LMDB transaction, synced, at
most one every COMMIT_INTERVAL.  While a group is being written a second one collects.  A disk that cannot be used is a
``problem`` to show, never an exception: the store goes on in memory and tries again.
"""

from __future__ import annotations

import sys
from typing import Protocol, cast

import lmdb
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.hub.cache.disk import DAMAGE, Disk, open_disk
from yurt.hub.cache.folder import DiskFailure, is_writable, reason_of, set_aside
from yurt.hub.cache.format import FORMAT_KEY, FORMAT_VERSION
from yurt.hub.cache.layers import Layers
from yurt.hub.cache.sealing import Secrets
from yurt.hub.cache.table import Table
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


class Store:
    """
    The tables, over one LMDB file in the folder ``path``.

    ``problem`` says why the disk is not read or not written, None when all is well.  Counters: ``commits`` (written and synced),
    ``write_errors`` (commits that failed), ``corrupt_files`` (set aside), ``dropped`` (entries given up because the disk did not
    take them).  ``vault`` encrypts what :meth:`table` calls secret; without one nothing is encrypted.
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
        self.commits = self.write_errors = self.corrupt_files = self.dropped = 0
        self.vault = vault
        self.layers = Layers(None if vault is None else Secrets(vault, ()), self._changed)
        self._reactor = reactor
        self._path = path
        self._map_size = map_size
        self._writer = writer or WriterThread(cast(IReactorFromThreads, reactor))
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
        lost = self.layers.unwritten
        if self._is_open and lost and not is_flushed:
            self.log.error("{lost} changes never reached the disk at {path} and are lost", lost=lost, path=self._path)
        was_open, self._is_open = self._is_open, False
        if self._is_hanging:
            return  # The file and the thread are left to the end of the process: LMDB is at work there.
        self._leave_disk()
        if was_open:
            self._writer.stop()

    @property
    def corrupt_records(self) -> int:
        """
        Records with a bad checksum, never returned.
        """
        return self.layers.corrupt_records

    @property
    def damage(self) -> int:
        """
        Grows whenever something turns out to be lost that was stored.
        """
        return self.corrupt_files + self.layers.corrupt_records + self.layers.locked_records

    @property
    def locked_records(self) -> int:
        """
        Records that were encrypted with a key that is gone, dropped.
        """
        return self.layers.locked_records

    @property
    def is_readable(self) -> bool:
        """
        Whether reads reach a disk.
        """
        return self.layers.disk is not None

    @property
    def _written_disk(self) -> Disk | None:
        """
        The disk, if it can be written.
        """
        disk = self.layers.disk
        return None if disk is None or disk.readonly else disk

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
            self.layers.disk, was_corrupt = open_disk(self._path, self._map_size, self.layers.secrets)
        except DiskFailure as error:
            self._set_problem(str(error))
        else:
            self.corrupt_files += was_corrupt
            self._disk_appeared(self.layers.disk)
        if self._written_disk is None:
            self._next_open = self._reactor.callLater(REOPEN_INTERVAL, self._try_again)

    def _try_again(self) -> None:
        """
        A file that can only be read stays in use until it can be written.
        """
        if self.layers.disk is not None and not is_writable(self._path):
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
        if self.layers.disk is not None:
            self.layers.disk.close()
            self.layers.disk = None
        self.changes += 1

    def _disk_appeared(self, disk: Disk) -> None:
        self.changes += 1
        if disk.readonly:
            self._set_problem(f"{self._path} cannot be written: make it writable for the hub's user, or remount its disk")
        else:
            self._set_problem(None)
            if self.layers.get(FORMAT_KEY) is None:  # An older format stays what it is until the file has been written anew.
                self.layers.put(FORMAT_KEY, b"%d" % FORMAT_VERSION)
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
        disk = self._written_disk
        if disk is None or self._is_committing:
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
        secrets = self.layers.secrets
        if secret is not None and secrets is not None:
            self.layers.secrets = Secrets(secrets.vault, (*secrets.prefixes, prefix + secret))
        if expendable:
            self._expendable += (prefix,)
        return Table(self.layers, prefix, self.flush)

    def join(self, resident: Resident) -> None:
        """
        Tell ``resident`` from now on what happens to the store.
        """
        self._residents.append(resident)
        if self.layers.disk is not None:
            resident.disk_appeared()

    def _changed(self) -> None:
        self.changes += 1
        if self._next_commit is None:
            self._schedule_commit()
        if self.layers.pending.size > MAX_PENDING_BYTES and self._relief is None and self._is_open:
            # Not within this call: a user of the store may be half way through a change.
            self._relief = self._reactor.callLater(0, self._relieve)

    # Commits

    def flush(self) -> Deferred[bool]:
        """
        Commit now; true when all that was put before is on the disk.  Flushes that come together share one commit.
        """
        if self._written_disk is None or self._is_hanging:
            return succeed(False)
        done: Deferred[bool] = Deferred()
        self._flushes.append(done)
        if not self._is_committing:
            self._commit()
        return done

    def _schedule_commit(self) -> None:
        if self._next_commit is None and not self._is_committing and self._written_disk is not None:
            due = self._last_commit + COMMIT_INTERVAL - self._reactor.seconds()
            self._next_commit = self._reactor.callLater(max(COMMIT_DELAY, due), self._commit)

    def _commit(self) -> None:
        disk = self._written_disk
        if disk is None:
            self._refuse_flushes()
            return
        self._begin_writing()
        for resident in self._residents:
            resident.before_commit()
        self._awaited, self._flushes = self._flushes, []
        self._last_commit = self._reactor.seconds()
        batch, secrets = self.layers.begin_commit(), self.layers.secrets
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
        self.layers.end_commit()
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
        self.layers.take_back()
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
        elif self.layers.pending.entries and self._is_open:
            self._schedule_commit()
            self._relieve()
        for flush in done:
            flush.callback(is_written)

    def _relieve(self) -> None:
        """
        Keep what waits within its bound: commit at once, or drop it when the disk does not take it.
        """
        self._relief = None
        if self.layers.pending.size <= MAX_PENDING_BYTES:
            return
        if self.problem is not None or self.layers.pending.size + self.layers.committing.size > 2 * MAX_PENDING_BYTES:
            self._drop_pending()
        elif not self._is_committing:
            self._commit()

    def _drop_pending(self) -> None:
        self.dropped += self.layers.drop_pending(self._expendable)
        self.changes += 1
        self.log.error("{path} takes no writes: what waited for it is dropped, the cache stays as it is there", path=self._path)
        for resident in self._residents:
            resident.pending_dropped()
