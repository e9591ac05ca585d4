"""
The format of the data file, and how one of an older format becomes one of this.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path

import lmdb
from twisted.logger import Logger

from yurt.files import sync_folder
from yurt.hub.cache.folder import CORRUPT_FILE, DATA_FILE, NEW_FILE, DiskFailure, reason_of
from yurt.hub.cache.sealing import BadRecord, Secrets, seal, unseal

FORMAT_VERSION = 2
"""Raised when a hub of the version before could not make sense of the file.  1: secrets are not encrypted."""

FORMAT_KEY = b"format"

REWRITE_STEP = 1000
"""Records that are written anew in one transaction."""

MIN_MAP_SIZE = 1 << 25
"""The least that the file must be able to grow to, in bytes."""

log = Logger()


def encrypt_old(path: str, map_size: int, secrets: Secrets) -> None:
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


def check_version(environment: lmdb.Environment, path: str) -> None:
    """
    Raises DiskFailure for a file of a later format than this hub's.
    """
    version = _format_of(environment)
    if version > FORMAT_VERSION:
        raise DiskFailure(
            f"the cache in {path} has format {version}, this hub knows {FORMAT_VERSION}: "
            "run the newer hub, or remove the folder to start afresh"
        )
