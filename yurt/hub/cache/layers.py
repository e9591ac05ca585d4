"""
What reads of the store find: what waits in memory, before what is on its way to the disk, before what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import lmdb
from twisted.logger import Logger

from yurt.hub.cache.disk import Disk
from yurt.hub.cache.sealing import MAX_KEY, MAX_PREFIX, BadRecord, LockedRecord, Secrets, shorten, unseal

ENTRY_BYTES = 100
"""What an entry that waits costs in memory beside its key and value."""

SCAN_CHUNK = 512
"""Records that a scan reads from the disk at a time."""


class Overlay:
    """
    Writes that are not on the disk: full key → value, None for a deletion.
    """

    __slots__ = ("entries", "size")

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes | None] = {}
        self.size = 0

    def put(self, key: bytes, value: bytes | None) -> None:
        """
        Set a value, or delete it.
        """
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


class Layers:
    """
    Writes wait in ``pending``; a commit moves them to ``committing``, until they are on the ``disk`` (None while it cannot be
    used).  ``changed`` is called after each write.

    ``corrupt_records`` counts bad checksums, ``locked_records`` what was encrypted with a key that is gone: neither is ever
    returned.
    """

    log = Logger()

    def __init__(self, secrets: Secrets | None, changed: Callable[[], object]) -> None:
        self.pending = Overlay()
        self.committing = Overlay()
        self.disk: Disk | None = None
        self.secrets = secrets
        self.corrupt_records = self.locked_records = 0
        self._changed = changed

    def get(self, key: bytes) -> bytes | None:
        """
        The value under a full key, or None.
        """
        for entries in (self.pending.entries, self.committing.entries):
            if key in entries:
                return entries[key]
        if self.disk is None:
            return None
        disk_key = shorten(key)
        try:
            record = self.disk.get(disk_key)
            return None if record is None else unseal(disk_key, record, self.secrets)[1]
        except (BadRecord, lmdb.Error) as error:
            self._drop(key, error)
            return None

    def _drop(self, key: bytes, error: Exception) -> None:
        """
        Drop a record that cannot be read.  One that is encrypted stays where the key's file is only out of reach.
        """
        if not isinstance(error, LockedRecord):
            self.corrupt_records += 1
        elif self.secrets is None or not self.secrets.vault.is_kept:
            return
        else:
            if not self.locked_records:
                message = "the key in {path} does not open what was encrypted in the cache: such records are dropped"
                self.log.error(message, path=str(self.secrets.vault.path))
            self.locked_records += 1
        self.put_anew(key, None)

    def get_many(self, keys: list[bytes]) -> Iterator[bytes | None]:
        """
        The values of several keys, in their order.
        """
        pending, committing, secrets = self.pending.entries, self.committing.entries, self.secrets
        found = self._read_many([key for key in keys if len(key) <= MAX_KEY and key not in pending and key not in committing])
        for key in keys:
            record = found.pop(key, None)
            try:
                yield self.get(key) if record is None else unseal(key, record, secrets)[1]
            except BadRecord:
                yield self.get(key)

    def put(self, key: bytes, value: bytes | None) -> None:
        """
        Set a value, or delete it (None), unless it is so already.
        """
        if self.get(key) != value:
            self.put_anew(key, value)

    def put_anew(self, key: bytes, value: bytes | None) -> None:
        """
        The same for what is known to be otherwise.
        """
        self.pending.put(key, value)
        self._changed()

    def put_all(self, entries: dict[bytes, bytes]) -> None:
        """
        Many at once, all known to be others than those that are there.
        """
        if entries:
            self.pending.put_all(entries)
            self._changed()

    def is_pending(self, key: bytes) -> bool:
        """
        Whether a change of this key is not known to be on the disk.
        """
        return key in self.pending.entries or key in self.committing.entries

    def scan(self, prefix: bytes) -> Iterator[list[tuple[bytes, bytes]]]:
        """
        Keys and values in order, in chunks.  Between two of them others may write: then a scan gives what it finds there.
        """
        local = {shorten(key): key for key in self.committing.entries if key.startswith(prefix)}
        local.update((shorten(key), key) for key in self.pending.entries if key.startswith(prefix))
        waiting = sorted(local, reverse=True)
        after: bytes | None = None
        while True:
            rows = self._read_after(prefix[:MAX_PREFIX], after)
            after = rows[-1][0] if len(rows) == SCAN_CHUNK else None
            found = dict(self._unsealed(rows, prefix))
            while waiting and (after is None or waiting[-1] <= after):
                disk_key = waiting.pop()
                found[disk_key] = (local[disk_key], self.get(local[disk_key]))
            in_order = [found[disk_key] for disk_key in sorted(found)] if local else found.values()
            yield [(key, value) for key, value in in_order if value is not None]
            if after is None:
                return

    def _read_many(self, disk_keys: list[bytes]) -> dict[bytes, bytes]:
        try:
            return {} if self.disk is None else dict(self.disk.get_many(disk_keys))
        except lmdb.Error:  # The keys will be read one by one, and the bad ones counted.
            return {}

    def _read_after(self, prefix: bytes, after: bytes | None) -> list[tuple[bytes, bytes]]:
        try:
            return [] if self.disk is None else self.disk.read_after(prefix, after, SCAN_CHUNK)
        except lmdb.Error:
            self.corrupt_records += 1
            return []

    def _unsealed(self, rows: list[tuple[bytes, bytes]], prefix: bytes) -> Iterator[tuple[bytes, tuple[bytes, bytes | None]]]:
        pending, committing, secrets = self.pending.entries, self.committing.entries, self.secrets
        for disk_key, record in rows:
            try:
                key, value = unseal(disk_key, record, secrets)
            except BadRecord as error:
                self._drop(disk_key, error)
                continue
            if key.startswith(prefix):
                yield disk_key, (key, self.get(key) if key in pending or key in committing else value)

    # Commits

    def begin_commit(self) -> dict[bytes, bytes | None]:
        """
        Let what is pending be on its way: that is what is to be written.
        """
        self.committing, self.pending = self.pending, Overlay()
        return self.committing.entries

    def end_commit(self) -> None:
        """
        What was on its way has been written.
        """
        self.committing = Overlay()

    def take_back(self) -> None:
        """
        What was on its way has not been written: it waits again, behind what has been put since.
        """
        for key, value in self.pending.entries.items():
            self.committing.put(key, value)
        self.pending, self.committing = self.committing, Overlay()

    def drop_pending(self, expendable: tuple[bytes, ...]) -> int:
        """
        Give up what waits under keys with these beginnings; how many entries that were.
        """
        kept = Overlay()
        for key, value in self.pending.entries.items():
            if not key.startswith(expendable):
                kept.put(key, value)
        dropped = len(self.pending.entries) - len(kept.entries)
        self.pending = kept
        return dropped

    @property
    def unwritten(self) -> int:
        """
        How many entries are not known to be on the disk.
        """
        return len(self.pending.entries.keys() | self.committing.entries.keys())
