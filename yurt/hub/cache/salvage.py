"""
What can still be read of a damaged data file, record by record, into a new one.

The tree of the last commit is walked from its root by plain reads, never through a map of memory: a page that the disk does not
give, that lies beyond the end of a file that was cut, or that is no page of a tree is left out, with what hangs from it.  Each
record brings its own checksum (:mod:`yurt.hub.cache.sealing`), so that nothing wrong is taken for right.

The layout is that of LMDB 0.9 on hosts of 64 bits (``struct MDB_page``, ``MDB_node`` and ``MDB_meta`` of its mdb.c), which is
what the verifier reads as well.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import lmdb
from twisted.logger import Logger

from yurt.files import sync_folder
from yurt.hub.cache.sealing import BadRecord, LockedRecord, unseal

MAGIC = 0xBEEFC0DE
VERSION = 1
PAGE_SIZES = (4096, 8192, 16384, 32768)
"""Where the second meta page may lie when the first cannot be read."""

MAX_DEPTH = 32
"""Pages on the way from the root to a leaf; LMDB's own bound."""

MIN_ROOM = 1 << 24
"""The least that the new file may grow to while it is written, in bytes; else twice as much as the damaged one has."""

STEP = 1000
"""Records that are written in one transaction."""

_HEAD = struct.Struct("=QHHHH")
"""Of a page: its number, padding, flags, and where its free room begins and ends."""
_META = struct.Struct("=II16xI50xH24xQQ8xQ")
"""Of a meta page, after the head: magic, version, page size; depth, records and root of the tree; number of the commit."""
_NODE = struct.Struct("=HHHH")
_NUMBER = struct.Struct("=Q")
_BRANCH, _LEAF, _OVERFLOW = 0x01, 0x02, 0x04
_BIG = 0x01
"""The value of a node lies on pages of its own."""

log = Logger()


def is_as_written(disk_key: bytes, record: bytes) -> bool:
    """
    Whether the checksum of a record fits it.
    """
    try:
        unseal(disk_key, record)
    except LockedRecord:
        return True
    except BadRecord:
        return False
    return True


class Tree(NamedTuple):
    """
    What a meta page tells of a commit: the size of pages, the commit's number, the root, and how many records there are.
    """

    page_size: int
    commit: int
    root: int
    entries: int


class DamagedFile:
    """
    A file of which some pages may be unreadable, or wrong.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._seen: set[int] = set()

    def read(self, at: int, size: int) -> bytes:
        """
        Bytes of the file; fewer, or none, where they cannot be had.
        """
        try:
            return os.pread(self._descriptor, size, at)
        except OSError:
            return b""

    def trees(self) -> list[Tree]:
        """
        The trees of the last commits, the newest first.
        """
        first = self._tree(0)
        sizes = PAGE_SIZES if first is None else (first.page_size,)
        found = [first, *(self._tree(size) for size in sizes)]
        return sorted((tree for tree in found if tree is not None), key=lambda tree: -tree.commit)

    def _tree(self, at: int) -> Tree | None:
        data = self.read(at + _HEAD.size, _META.size)
        if len(data) < _META.size:
            return None
        magic, version, page_size, depth, entries, root, commit = _META.unpack(data)
        if (magic, version) != (MAGIC, VERSION) or page_size not in PAGE_SIZES or not 0 < depth <= MAX_DEPTH:
            return None
        return Tree(page_size, commit, root, entries)

    def records(self, tree: Tree) -> Iterator[tuple[bytes, bytes]]:
        """
        The keys and the records of a tree that are as they were written.
        """
        self._seen.clear()
        for key, record in self._walk(tree.page_size, tree.root, MAX_DEPTH):
            if is_as_written(key, record):
                yield key, record

    def _walk(self, size: int, number: int, depth: int) -> Iterator[tuple[bytes, bytes]]:
        if number in self._seen or not depth:
            return
        self._seen.add(number)
        page = self.read(number * size, size)
        if len(page) < size:
            return
        own, _, flags, lower, _ = _HEAD.unpack_from(page)
        if own != number or flags not in (_BRANCH, _LEAF) or not _HEAD.size <= lower <= size:
            return
        for (at,) in struct.iter_unpack("=H", page[_HEAD.size : lower - lower % 2]):
            if not _HEAD.size <= at <= size - _NODE.size:
                continue
            low, high, node_flags, key_size = _NODE.unpack_from(page, at)
            if flags == _BRANCH:
                yield from self._walk(size, low | high << 16 | node_flags << 32, depth - 1)
                continue
            begin = at + _NODE.size
            key, value = page[begin : begin + key_size], page[begin + key_size : begin + key_size + (low | high << 16)]
            if node_flags & _BIG and len(value) >= _NUMBER.size:
                value = self._big(size, _NUMBER.unpack_from(value)[0], low | high << 16)
            yield key, value

    def _big(self, size: int, number: int, length: int) -> bytes:
        """
        A value on pages of its own.
        """
        head = self.read(number * size, _HEAD.size)
        if len(head) < _HEAD.size or _HEAD.unpack(head)[2] != _OVERFLOW:
            return b""
        return self.read(number * size + _HEAD.size, length)


def salvage(damaged: str, new: str, data: str) -> int:
    """
    Write what can be read of the file ``damaged`` to ``new``, and put that at ``data``; how many records those are.  Nothing is
    there afterwards when there are none, or they cannot be written.
    """
    try:
        descriptor = os.open(damaged, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    with closing(os.fdopen(descriptor, "rb", buffering=0)):
        file = DamagedFile(descriptor)
        for tree in file.trees():
            saved = _write(file.records(tree), new, max(MIN_ROOM, 2 * os.fstat(descriptor).st_size))
            if saved:
                os.replace(new, data)
                sync_folder(Path(data).parent)
                log.warn(
                    "{saved} of {all} records of {file} could be read, and are kept", saved=saved, all=tree.entries, file=damaged
                )
                return saved
    return 0


def _write(records: Iterator[tuple[bytes, bytes]], path: str, room: int) -> int:
    saved = 0
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
        with closing(lmdb.open(path, map_size=room, mode=0o600, subdir=False, lock=False, sync=False)) as environment:
            while some := list(islice(records, STEP)):
                with environment.begin(write=True) as transaction:
                    for key, record in some:
                        saved += transaction.put(key, record)
            environment.sync(True)
    except (OSError, lmdb.Error) as error:
        log.error("what could be read of a damaged cache cannot be written: {reason}", reason=str(error))
        saved = 0
    if not saved:
        with suppress(OSError):
            os.unlink(path)
    return saved
