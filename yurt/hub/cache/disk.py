"""
The file of the store: an LMDB data file that is checked before use, locked while open, and readable by its owner only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

import lmdb
from twisted.logger import Logger

from yurt.files import sync_folder
from yurt.hub.cache.crash import close_note, open_note
from yurt.hub.cache.folder import (
    DATA_FILE,
    LOCK_FILE,
    NEW_FILE,
    DiskFailure,
    is_writable,
    own_folder,
    reason_of,
    set_corrupt_aside,
    take_lock,
)
from yurt.hub.cache.format import MIN_MAP_SIZE, check_version, encrypt_old
from yurt.hub.cache.place import FileGone, Place
from yurt.hub.cache.sealing import Secrets, seal, shorten

DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PageFullError, lmdb.CursorFullError, lmdb.InvalidError)
"""
What LMDB raises in writing to a file that is damaged in a way that its verifier does not see.
"""

log = Logger()


class Disk:
    """
    An open data file.  Reads belong to one thread (the reactor's), :meth:`write` to another one.

    LMDB runs without its reader table (``lock=False``): only this process has the file, and in it reads use the snapshot of
    the last commit, whose pages LMDB does not use again before the commit after the next.  So :meth:`renew` is to be called
    between two writes.
    """

    def __init__(self, environment: lmdb.Environment, path: str, lock: int, readonly: bool) -> None:
        self._environment = environment
        self._path = path
        self._lock = lock
        self.readonly = readonly
        self.was_put_back = False
        """Whether the file that stands at the path now is another one, with the same content: this one is to be left."""
        self._snapshot: lmdb.Transaction[bytes] = environment.begin()
        self._place = Place(Path(path, DATA_FILE))
        self._note = open_note(path)

    def get(self, disk_key: bytes) -> bytes | None:
        """
        The record under a key.
        """
        return self._snapshot.get(disk_key)

    def read_after(self, prefix: bytes, after: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        """
        The next ``limit`` keys with a prefix, and their records, from the first one or from the one after ``after``.
        """
        with self._snapshot.cursor() as cursor:
            at = cursor.set_range(prefix if after is None else after)
            if at and after is not None and cursor.key() == after:
                at = cursor.next()
            rows = list(islice(cursor.iternext(), limit)) if at else []
        return rows if not rows or rows[-1][0].startswith(prefix) else [row for row in rows if row[0].startswith(prefix)]

    def get_many(self, disk_keys: list[bytes]) -> list[tuple[bytes, bytes]]:
        """
        Those of the keys that there are, and their records.
        """
        with self._snapshot.cursor() as cursor:
            return cursor.getmulti(disk_keys)

    def write(self, batch: Mapping[bytes, bytes | None], secrets: Secrets | None = None) -> None:
        """
        Put values and delete keys (value None) in one transaction that is on the disk when this returns.

        Raises lmdb.Error or OSError; then nothing is changed.
        """
        self._place.check()
        with self._environment.begin(write=True) as transaction:
            for key, value in batch.items():
                disk_key = shorten(key)
                if value is None:
                    transaction.delete(disk_key)
                else:
                    transaction.put(disk_key, seal(key, disk_key, value, secrets))

    def put_back(self) -> None:
        """
        Where the file was removed or replaced, write its content to a new one in its place.  For the thread that writes, like
        :meth:`write`.  Raises DiskFailure, OSError or lmdb.Error.
        """
        try:
            self._place.check()
            return
        except FileGone:
            self._own_lock()
        data, new = os.path.join(self._path, DATA_FILE), os.path.join(self._path, NEW_FILE)
        with suppress(FileNotFoundError):
            os.unlink(new)
        target = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self._environment.copyfd(target)
            os.fsync(target)
        finally:
            os.close(target)
        os.replace(new, data)
        sync_folder(Path(self._path))
        self.was_put_back = True
        log.warn("{file} was removed or replaced while it was in use: it was written anew", file=data)

    def _own_lock(self) -> None:
        """
        Make sure that the lock in the folder is this one: another process may have taken a new one.
        """
        own_folder(self._path)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(os.path.join(self._path, LOCK_FILE)), os.fstat(self._lock)):
                return
        lock = take_lock(self._path)
        os.close(self._lock)
        self._lock = lock

    def renew(self) -> None:
        """
        Let reads see what has been written.  Raises lmdb.Error when the file can no longer be used.
        """
        self._snapshot.abort()
        self._snapshot = self._environment.begin()

    def close(self) -> None:
        """
        Let go of the file.
        """
        self._snapshot.abort()
        self._environment.close()
        self._place.close()
        close_note(self._note)
        os.close(self._lock)


def open_disk(path: str, map_size: int, secrets: Secrets | None = None) -> tuple[Disk, bool]:
    """
    Open the data file in folder ``path``, making both if need be; also tells whether a corrupt file was set aside.  A file of an
    older format is written anew first.

    A file that cannot be written is opened for reading.  Raises DiskFailure.
    """
    try:
        own_folder(path)
        lock = take_lock(path)
    except OSError as error:
        raise DiskFailure(f"cannot use the cache folder {path}: {error.strerror}") from error
    try:
        set_aside = set_corrupt_aside(path)
        readonly = not is_writable(path)
        if secrets is not None and secrets.vault.is_kept and not readonly:
            encrypt_old(path, map_size, secrets)
        environment = _open_environment(path, map_size, readonly)
        try:
            check_version(environment, path)
            return Disk(environment, path, lock, readonly), set_aside
        except BaseException:
            environment.close()
            raise
    except (OSError, lmdb.Error) as error:
        os.close(lock)
        raise DiskFailure(f"cannot open {os.path.join(path, DATA_FILE)}: {reason_of(error)}") from error
    except BaseException:
        os.close(lock)
        raise


def _open_environment(path: str, map_size: int, readonly: bool) -> lmdb.Environment:
    """
    Map the file, with less room to grow where the process may not have as much address space.  Raises lmdb.Error.
    """
    size = map_size
    while True:
        try:
            # Readahead would only fill memory with pages that nobody asked for.
            environment = lmdb.open(
                path, map_size=size, mode=0o600, lock=False, readahead=False, readonly=readonly, create=not readonly
            )
        except lmdb.MemoryError:
            if size // 2 < MIN_MAP_SIZE:
                raise
            size //= 2
            continue
        if size < map_size:
            message = "address space is limited (ulimit -v): {path} can grow to {size} MiB only"
            log.warn(message, path=os.path.join(path, DATA_FILE), size=size >> 20)
        return environment
