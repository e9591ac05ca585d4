"""
Through which lens clients were last told what they know, so that they can be told the difference when they come back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from yurt.hub.cache.records import ViewKey
from yurt.hub.cache.table import Table
from yurt.hub.filters.lens import Lens

MAX_KEYS = 256
"""Lists and watches, by who asked for what, of which anything is remembered."""

MAX_VERSIONS = 8
"""ResourceVersions remembered for each of them."""

LIST_TO_WATCH = 60.0
"""Seconds during which a client may still begin its watch where its list ended: what the list told is not forgotten for what is
told later of the same version."""

IN_DOUBT = b"?"
"""In the place of a digest: nobody knows."""

MAX_OTHERS = 4
"""Other lenses remembered of one version."""

SEND_BACK_EVERY = 60.0
MAX_SENT_BACK = 4
"""Clients of one view that are told to list anew in so many seconds."""


@dataclass(frozen=True, slots=True)
class Told:
    """
    What a client was told: through which lens, and which objects (``namespace/name``) were hidden from it; None when it has to
    be found out.  ``others`` were told otherwise of the same version not long before; who comes back may be any of them.
    """

    lens: Lens
    hidden: frozenset[str] | None = None
    at: float = 0.0
    others: tuple[Told, ...] = ()


class ToldBook:
    """
    Remembers it by view and resourceVersion.  On disk is a digest of the last lens of each view, for those who come back to
    another process.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._told: OrderedDict[ViewKey, OrderedDict[str, Told]] = OrderedDict()
        self._digests: OrderedDict[bytes, bytes] | None = None
        self._sent_back: OrderedDict[ViewKey, list[float]] = OrderedDict()

    def record(self, key: ViewKey, version: str, told: Told) -> None:
        """
        A client knows the state of that version.
        """
        versions = self._told.setdefault(key, OrderedDict())
        self._told.move_to_end(key)
        before = versions.get(version)
        if before is not None:
            told = _join(before, told)
        versions[version] = told
        versions.move_to_end(version)
        _shorten(versions, MAX_VERSIONS)
        _shorten(self._told, MAX_KEYS)
        self._write(key, told.lens.digest)

    def telling(self, key: ViewKey) -> None:
        """
        A difference is about to be told.  Until it is recorded what the client knows then, another process takes it for unknown:
        a hub that is killed now cannot tell what arrived.
        """
        self._write(key, IN_DOUBT)

    def forget(self, key: ViewKey) -> None:
        """
        Who asked for this is told everything from now on.
        """
        self._told.pop(key, None)
        self._write(key, b"")

    def at(self, key: ViewKey, version: str) -> Told | None:
        """
        What was told of the state of that very version.
        """
        versions = self._told.get(key)
        return None if versions is None else versions.get(version)

    def find(self, key: ViewKey, version: str, lens: Lens) -> Told | None:
        """
        What a client knows that goes on from a version, now that ``lens`` is the one for it; None when that cannot be told.
        """
        told = self.at(key, version)
        if told is not None:
            return told
        all_alike = all(one.lens.same(lens) for one in self._all(key))
        return Told(lens) if all_alike and self._read().get(_packed(key), b"") == lens.digest else None

    def knows(self, key: ViewKey) -> bool:
        """
        Whether a client may have been told less than everything.
        """
        if any(told.lens.rules for told in self._all(key)):
            return True
        return bool(self._read()) and _packed(key) in self._read()

    def _all(self, key: ViewKey) -> Iterator[Told]:
        for told in self._told.get(key, {}).values():
            yield from (told, *told.others)

    def may_send_back(self, key: ViewKey, now: float) -> bool:
        """
        Whether a client may be told to list anew: not again and again, in case that its lists cannot be filtered.
        """
        lately = [at for at in self._sent_back.get(key, ()) if now - at < SEND_BACK_EVERY]
        if len(lately) >= MAX_SENT_BACK:
            return False
        self._sent_back[key] = [*lately, now]
        self._sent_back.move_to_end(key)
        _shorten(self._sent_back, MAX_KEYS)
        return True

    def _read(self) -> OrderedDict[bytes, bytes]:
        if self._digests is None:
            self._digests = OrderedDict(self._table.scan())
        return self._digests

    def _write(self, key: ViewKey, digest: bytes) -> None:
        """
        Nothing is written for a view that is shown as it is.
        """
        packed, digests = _packed(key), self._read()
        if digests.get(packed, b"") == digest:
            return
        if digest:
            digests[packed] = digest
            self._table.put(packed, digest)
        else:
            del digests[packed]
            self._table.delete(packed)
        while len(digests) > MAX_KEYS:
            oldest, _ = digests.popitem(last=False)
            self._table.delete(oldest)
        self._table.flush()


def _join(before: Told, told: Told) -> Told:
    """
    What was told of one version, by what was told of it before.
    """
    known = {one.lens.digest: one for one in (*before.others, before, *told.others) if told.at - one.at <= LIST_TO_WATCH}
    same = known.pop(told.lens.digest, None)
    if same is not None and same.hidden is not None:
        told = replace(told, hidden=same.hidden | (told.hidden or frozenset()))  # another page
    return replace(told, others=tuple(replace(one, others=()) for one in known.values())[-MAX_OTHERS:])


def _shorten(entries: OrderedDict[Any, Any], limit: int) -> None:
    """
    Drop the oldest entries beyond a limit.
    """
    while len(entries) > limit:
        entries.popitem(last=False)


def _packed(key: ViewKey) -> bytes:
    """
    A view's key as a key of the store, which are short: texts end with a byte that is in none of them.
    """
    texts = (*key.caller, *key[1:])
    return blake2b(b"\0".join(text.encode() for text in texts), digest_size=16).digest()
