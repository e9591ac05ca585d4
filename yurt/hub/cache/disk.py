"""
The file of the store: an LMDB data file that is checked before use, locked while open, and readable by its owner only.

LMDB maps its file into memory, so a truncated or damaged one kills the process that touches it.  Therefore lmdb's own verifier
reads the whole structure with plain reads first (some 20 ms for 50 MB).  Damage that leaves the structure whole is found
by the checksum that each record carries.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from zlib import crc32

import lmdb
from lmdb.verify import VerifyError, verify
from twisted.logger import Logger

from yurt.files import sync_folder
from yurt.hub.cache.place import FileGone, Place
from yurt.hub.cache.vault import LostKey, Vault

FORMAT_VERSION = 2
"""Raised when a hub of the version before could not make sense of the file.  1: secrets are not encrypted."""

FORMAT_KEY = b"format"

DATA_FILE = "data.mdb"
LOCK_FILE = "hub.lock"
CORRUPT_FILE = "data.mdb.corrupt"
NEW_FILE = "data.mdb.new"
"""The file while it is written anew because of an older format."""

REWRITE_STEP = 1000
"""Records that are written anew in one transaction."""

MIN_MAP_SIZE = 1 << 25
"""The least that the file must be able to grow to, in bytes."""

MAX_KEY = 511
"""The longest key LMDB takes, in bytes; longer ones are stored under a shortened key with a digest."""

DIGEST_SIZE = 16

MAX_PREFIX = MAX_KEY - DIGEST_SIZE
"""As much of a key as the file keeps in order."""

log = Logger()

_CHECKSUM = struct.Struct("<I")
_TAIL_LENGTH = struct.Struct("<H")
_HEAD = struct.Struct("<IH")
"""Both, as they begin a record."""
_CHECKED_FROM, _HEAD_SIZE, _read_head = _CHECKSUM.size, _HEAD.size, _HEAD.unpack_from
_LOCKED = 0x8000
"""Added to the length of the key's tail in a record whose value is encrypted."""

DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PageFullError, lmdb.CursorFullError, lmdb.InvalidError)
"""
What LMDB raises in writing to a file that is damaged in a way that its verifier does not see.
"""


class DiskFailure(Exception):
    """
    The disk cannot be used; the message says which file, why, and what to do.
    """


class BadRecord(Exception):
    """
    The checksum of a record does not fit it.
    """


class LockedRecord(BadRecord):
    """
    A record is encrypted with a key that is gone.
    """


@dataclass(frozen=True, slots=True)
class Secrets:
    """
    Which records are encrypted: those whose keys begin with one of ``prefixes``.
    """

    vault: Vault
    prefixes: tuple[bytes, ...]


def shorten(key: bytes) -> bytes:
    """
    The key under which the file holds ``key``: itself, or its beginning and a digest when it is too long for LMDB.
    """
    if len(key) <= MAX_KEY:
        return key
    return key[:MAX_PREFIX] + blake2b(key, digest_size=DIGEST_SIZE).digest()


def seal(key: bytes, disk_key: bytes, value: bytes, secrets: Secrets | None = None) -> bytes:
    """
    The record for a value: a checksum over the key and all that follows, the whole key if it was shortened, the value, which
    is encrypted if its key says so.
    """
    tail = b"" if key == disk_key else key
    length = len(tail)
    if secrets is not None and key.startswith(secrets.prefixes):
        value = secrets.vault.lock(key, value)
        length |= _LOCKED
    body = _TAIL_LENGTH.pack(length) + tail + value
    return _CHECKSUM.pack(crc32(body, crc32(disk_key))) + body


def unseal(disk_key: bytes, record: bytes, secrets: Secrets | None = None) -> tuple[bytes, bytes]:
    """
    Key and value of a record.  Raises BadRecord.
    """
    if len(record) < _HEAD_SIZE:
        raise BadRecord(disk_key)
    checksum, length = _read_head(record)
    if crc32(record[_CHECKED_FROM:], crc32(disk_key)) != checksum:
        raise BadRecord(disk_key)
    if not length:
        return disk_key, record[_HEAD_SIZE:]
    until = _HEAD_SIZE + (length & ~_LOCKED)
    key, value = record[_HEAD_SIZE:until] or disk_key, record[until:]
    return key, _unlocked(key, value, secrets) if length & _LOCKED else value


def _unlocked(key: bytes, value: bytes, secrets: Secrets | None) -> bytes:
    if secrets is None:
        raise LockedRecord(key)
    try:
        return secrets.vault.unlock(key, value)
    except LostKey:
        raise LockedRecord(key) from None


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
        _own_folder(self._path)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(os.path.join(self._path, LOCK_FILE)), os.fstat(self._lock)):
                return
        lock = _take_lock(self._path)
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
        os.close(self._lock)


def open_disk(path: str, map_size: int, secrets: Secrets | None = None) -> tuple[Disk, bool]:
    """
    Open the data file in folder ``path``, making both if need be; also tells whether a corrupt file was set aside.  A file of an
    older format is written anew first.

    A file that cannot be written is opened for reading.  Raises DiskFailure.
    """
    try:
        _own_folder(path)
        lock = _take_lock(path)
    except OSError as error:
        raise DiskFailure(f"cannot use the cache folder {path}: {error.strerror}") from error
    try:
        set_aside = _set_corrupt_aside(path)
        readonly = not is_writable(path)
        if secrets is not None and secrets.vault.is_kept and not readonly:
            _encrypt_old(path, map_size, secrets)
        environment = _open_environment(path, map_size, readonly)
        try:
            _check_version(environment, path)
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


def reason_of(error: BaseException | None) -> str:
    """
    Why the disk failed, in a few words.
    """
    if isinstance(error, lmdb.MapFullError):
        return "the cache has reached its greatest size"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__


def _own_folder(path: str) -> None:
    os.makedirs(path, mode=0o700, exist_ok=True)
    for name, mode in ((path, 0o700), (os.path.join(path, DATA_FILE), 0o600)):
        try:
            seen = os.stat(name)
        except FileNotFoundError:
            continue
        if seen.st_uid != os.geteuid():
            if os.geteuid() != 0:
                raise DiskFailure(f"{name} belongs to user {seen.st_uid}: chown it to {os.geteuid()}, the hub's user")
            os.chown(name, 0, 0)
        if stat.S_IMODE(seen.st_mode) != mode:
            os.chmod(name, mode)


def _take_lock(path: str) -> int:
    name = os.path.join(path, LOCK_FILE)
    try:
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:  # A read-only disk: the lock of a file opened for reading does as well.
        try:
            lock = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise error from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise DiskFailure(f"another process uses the cache in {path}: stop it, or give this hub a folder of its own") from error
    return lock


def _set_corrupt_aside(path: str) -> bool:
    data = os.path.join(path, DATA_FILE)
    if not os.path.exists(data) or not os.path.getsize(data):
        return False
    if sys.maxsize < 1 << 32:
        return False  # The verifier reads files of 64-bit hosts only.
    try:
        findings = verify(data, subdir=False)
    except VerifyError as error:
        findings = [str(error)]
    if findings:
        set_aside(path, findings[0])
    return bool(findings)


def set_aside(path: str, finding: str) -> None:
    """
    Rename a damaged file, which must not be open.  Raises OSError.
    """
    data = os.path.join(path, DATA_FILE)
    log.error("{file} is corrupt ({finding}); it is set aside and the cache starts afresh", file=data, finding=finding)
    os.replace(data, os.path.join(path, CORRUPT_FILE))


def is_writable(path: str) -> bool:
    """
    Whether the data file in folder ``path`` can be written.  Raises OSError when it can be neither read nor made.
    """
    data = os.path.join(path, DATA_FILE)
    try:
        os.close(os.open(data, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError:
        if not os.path.exists(data):
            raise
        return False
    return True


def _encrypt_old(path: str, map_size: int, secrets: Secrets) -> None:
    """
    Write a file of format 1 anew, with its secrets encrypted.  Not in place: pages that are free, and ends of pages in use, would
    go on to show what stood there.  A crash leaves the old file; where there is no room it stays in use.  Raises lmdb.Error when
    the old file cannot be read.
    """
    data, new = os.path.join(path, DATA_FILE), os.path.join(path, NEW_FILE)
    if not os.path.getsize(data):
        return
    with closing(lmdb.open(path, map_size=MIN_MAP_SIZE, lock=False, readahead=False, readonly=True)) as old:
        if _format_of(old) not in (0, 1):
            return
        with suppress(FileNotFoundError):
            os.unlink(new)
        try:
            _copy_sealed(old, new, map_size, secrets)
        except (OSError, lmdb.Error) as error:
            log.error("{file} still holds secrets that are not encrypted: {reason}", file=data, reason=reason_of(error))
            with suppress(FileNotFoundError):
                os.unlink(new)
            return
    os.replace(new, data)
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(path, CORRUPT_FILE))
    sync_folder(Path(path))
    log.info("{file} was written anew: its secrets are encrypted now", file=data)


def _copy_sealed(old: lmdb.Environment, path: str, map_size: int, secrets: Secrets) -> None:
    environment = lmdb.open(path, map_size=map_size, mode=0o600, subdir=False, lock=False, sync=False)
    with closing(environment) as new, old.begin() as source, source.cursor() as cursor:
        rows = iter(cursor)
        while some := list(islice(rows, REWRITE_STEP)):
            with new.begin(write=True) as target:
                for disk_key, record in some:
                    sealed = _sealed_again(disk_key, record, secrets)
                    if sealed is not None:
                        target.put(disk_key, sealed)
        with new.begin(write=True) as target:
            target.put(FORMAT_KEY, seal(FORMAT_KEY, FORMAT_KEY, b"%d" % FORMAT_VERSION))
        new.sync(True)


def _sealed_again(disk_key: bytes, record: bytes, secrets: Secrets) -> bytes | None:
    """
    A record as it should be; None for a damaged one that was to be a secret.
    """
    if not disk_key.startswith(secrets.prefixes):
        return record
    try:
        key, value = unseal(disk_key, record, secrets)
    except BadRecord:
        return None
    return seal(key, disk_key, value, secrets)


def _format_of(environment: lmdb.Environment) -> int:
    """
    The format of the file; 0 when it does not say, and is to be told with the next commit.
    """
    with environment.begin() as transaction:
        record = transaction.get(FORMAT_KEY)
    try:
        return 0 if record is None else int(unseal(FORMAT_KEY, record)[1])
    except (BadRecord, ValueError):
        return 0


def _check_version(environment: lmdb.Environment, path: str) -> None:
    version = _format_of(environment)
    if version > FORMAT_VERSION:
        raise DiskFailure(
            f"the cache in {path} has format {version}, this hub knows {FORMAT_VERSION}: "
            "run the newer hub, or remove the folder to start afresh"
        )
