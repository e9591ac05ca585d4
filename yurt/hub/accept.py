"""
What a client is willing to read, as far as it decides what is asked of the cloud and what can be served from the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from yurt.http.heads import without
from yurt.http.interfaces import RequestHead

MAX_REMEMBERED_ACCEPTS = 256
MAX_REMEMBERED_BYTES = 512
"""Bytes of a value that is remembered; a longer one is read each time."""

_JSON_TYPES = frozenset({"application/json", "application/*", "*/*"})


@dataclass(frozen=True, slots=True)
class Accept:
    """
    ``json`` tells whether JSON is welcome; ``forms`` the forms of it in order of preference ("" for plain objects,
    "Table", "PartialObjectMetadata"); ``narrowed`` the header value that asks for nothing else than those.
    """

    json: bool
    forms: tuple[str, ...]
    narrowed: bytes

    @property
    def plain(self) -> Accept:
        """
        Plain objects only, if they are welcome at all; filters can do nothing about other forms.
        """
        return PLAIN if "" in self.forms else self


PLAIN = Accept(True, ("",), b"application/json")


def read_accept(value: bytes | None) -> Accept:
    """
    Read an ``Accept`` header; a missing one welcomes JSON.
    """
    return _read(value) if value is not None and len(value) > MAX_REMEMBERED_BYTES else _remembered(value)


def _read(value: bytes | None) -> Accept:
    if not value or not value.strip():
        return PLAIN
    forms: list[str] = []
    kept: list[str] = []
    for entry in value.decode("latin-1").split(","):
        media, *parameters = [part.strip() for part in entry.split(";")]
        if media.lower() not in _JSON_TYPES:
            continue
        named = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        if named.get("stream") not in (None, "watch") or not named.get("q", "1").strip("0."):
            continue
        form = named.get("as", "").removesuffix("List")
        if form not in forms:
            forms.append(form)
        narrowed = entry.strip() if media.lower() == "application/json" else "application/json"
        if narrowed not in kept:
            kept.append(narrowed)
    return Accept(bool(forms), tuple(forms), ",".join(kept).encode("latin-1"))


_remembered = lru_cache(MAX_REMEMBERED_ACCEPTS)(_read)


def is_json(content_type: bytes | None) -> bool:
    """
    Whether a response of this type is JSON.
    """
    return (content_type or b"").split(b";", 1)[0].strip().lower() == b"application/json"


def narrow(head: RequestHead, accept: bytes, *, plain: bool = False) -> RequestHead:
    """
    ``head`` with ``accept`` as its Accept, and with ``plain`` without Accept-Encoding.
    """
    if head.memo is None:
        return _narrow(head, accept, plain)
    narrowed: RequestHead | None = head.memo.get((accept, plain))
    if narrowed is None:
        narrowed = head.memo[accept, plain] = _narrow(head, accept, plain)
        narrowed.memo = {}
    return narrowed


def _narrow(head: RequestHead, accept: bytes, plain: bool) -> RequestHead:
    dropped = (b"accept", b"accept-encoding") if plain else (b"accept",)
    headers = without(head.headers, *dropped)
    headers.append((b"Accept", accept))
    return RequestHead(head.method, head.target, headers, head.http10)
