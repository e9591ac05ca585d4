"""
How a record lies in the file: with a checksum, so that damage is found that leaves LMDB's structure whole, and encrypted if it
is a secret.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import blake2b
from zlib import crc32

from yurt.hub.cache.vault import LostKey, Vault

MAX_KEY = 511
"""The longest key LMDB takes, in bytes; longer ones are stored under a shortened key with a digest."""

DIGEST_SIZE = 16

MAX_PREFIX = MAX_KEY - DIGEST_SIZE
"""As much of a key as the file keeps in order."""

_CHECKSUM = struct.Struct("<I")
_TAIL_LENGTH = struct.Struct("<H")
_HEAD = struct.Struct("<IH")
"""Both, as they begin a record."""
_CHECKED_FROM, _HEAD_SIZE, _read_head = _CHECKSUM.size, _HEAD.size, _HEAD.unpack_from
_LOCKED = 0x8000
"""Added to the length of the key's tail in a record whose value is encrypted."""


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
