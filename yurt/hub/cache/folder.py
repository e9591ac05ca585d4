"""
The folder of the store: its files, who may use them, and one user at a time.

LMDB maps its file into memory, so a truncated or damaged one kills the process that touches it.  Therefore lmdb's own verifier
reads the whole structure with plain reads first (some 20 ms for 50 MB), and of a damaged file what can be read is copied.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys

import lmdb
from lmdb.verify import VerifyError, verify
from twisted.logger import Logger

from yurt.hub.cache import crash
from yurt.hub.cache.salvage import salvage

DATA_FILE = "data.mdb"
LOCK_FILE = "hub.lock"
CORRUPT_FILE = "data.mdb.corrupt"
NEW_FILE = "data.mdb.new"
"""The file while it is written anew: because of an older format, or because it was removed."""

READ_BYTES = 1 << 20

log = Logger()


class DiskFailure(Exception):
    """
    The disk cannot be used; the message says which file, why, and what to do.
    """


def reason_of(error: BaseException | None) -> str:
    """
    Why the disk failed, in a few words.
    """
    if isinstance(error, lmdb.MapFullError):
        return "the cache has reached its greatest size"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__


def own_folder(path: str) -> None:
    """
    Make the folder and see that it and its data file are this user's alone.  Raises DiskFailure or OSError.
    """
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


def take_lock(path: str) -> int:
    """
    The descriptor of a lock that lasts until it is closed.  Raises DiskFailure when another process has it, or OSError.
    """
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


def set_corrupt_aside(path: str) -> bool:
    """
    Put what can be read of a data file whose structure is damaged in its place; whether it was.  Raises OSError.
    """
    data, has_died = os.path.join(path, DATA_FILE), crash.died_of_it(path)
    if not os.path.exists(data) or not os.path.getsize(data):
        return False
    if sys.maxsize < 1 << 32:
        return False  # The verifier reads files of 64-bit hosts only.
    try:
        findings = verify(data, subdir=False)
    except VerifyError as error:
        findings = [str(error)]
    except OSError as error:  # a bad sector
        findings = [reason_of(error)]
    if has_died and not findings:
        findings = find_unreadable(data)
    if findings:
        set_aside(path, findings[0])
    return bool(findings)


def find_unreadable(data: str) -> list[str]:
    """
    What the disk does not give of a data file, looked for after a process has died of it: the verifier reads no more of large
    records than where they begin.  Raises OSError when it cannot be opened.
    """
    at = 0
    file = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while piece := os.pread(file, READ_BYTES, at):
            at += len(piece)
    except OSError as error:
        return [f"{reason_of(error)} after {at} bytes"]
    finally:
        os.close(file)
    return []


def set_aside(path: str, finding: str) -> None:
    """
    Rename a damaged file, which must not be open, and put what can be read of it in its place.  Raises OSError.
    """
    data, corrupt = os.path.join(path, DATA_FILE), os.path.join(path, CORRUPT_FILE)
    log.error("{file} is corrupt ({finding}); it is set aside as {corrupt}", file=data, finding=finding, corrupt=CORRUPT_FILE)
    os.replace(data, corrupt)
    if not salvage(corrupt, os.path.join(path, NEW_FILE), data):
        log.error("nothing of {file} could be read: the cache starts afresh", file=corrupt)


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
