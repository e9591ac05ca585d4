"""
Small functions on header fields, and how heads look on the wire.
"""

from __future__ import annotations

from collections.abc import Iterable

from yurt.http.interfaces import Headers, RequestHead, ResponseHead

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""RFC 9110 section 7.6.1, in lower case.  ``Trailer`` is not among them, because trailers are passed on."""

END_TO_END = frozenset((b"authorization", b"content-length", b"content-type", b"cookie", b"host"))
"""Fields that a ``Connection`` header cannot talk a proxy into dropping: who asks and how much follows must stay."""

_NAMES_NOTHING = frozenset((b"keep-alive", b"close"))
"""The usual values of ``Connection``, which name no further field."""


def get_header(headers: Headers, name: bytes) -> bytes | None:
    """
    The value of the first field called ``name`` (given in lower case), or ``None``.
    """
    length = len(name)
    for key, value in headers:
        if len(key) == length and key.lower() == name:
            return value
    return None


def without(headers: Headers, *names: bytes) -> Headers:
    """
    The fields but those called ``names`` (given in lower case).
    """
    return [field for field in headers if field[0].lower() not in names]


def tokens(headers: Headers, name: bytes) -> set[bytes]:
    """
    The members, in lower case, of the comma separated list that all fields called ``name`` make together.
    """
    found: set[bytes] = set()
    for key, value in headers:
        if key.lower() == name:
            found.update(token.strip() for token in value.lower().split(b","))
    found.discard(b"")
    return found


def has_token(headers: Headers, name: bytes, token: bytes) -> bool:
    """
    Whether the list header ``name`` holds ``token`` (both in lower case).
    """
    return token in tokens(headers, name)


def end_to_end(headers: Headers) -> Headers:
    """
    The fields that a proxy passes on: not the hop-by-hop ones, nor those that ``Connection`` names.
    """
    kept: Headers = []
    named: set[bytes] = set()
    for field in headers:
        key = field[0].lower()
        if key not in HOP_BY_HOP:
            kept.append(field)
        elif key == b"connection":
            value = field[1].lower()
            if value not in _NAMES_NOTHING:
                named.update(token.strip() for token in value.split(b","))
    named -= END_TO_END
    return [field for field in kept if field[0].lower() not in named] if named else kept


def parse_length(value: bytes) -> int | None:
    """
    A ``Content-Length`` value as a number, or ``None`` when it is none.
    """
    return int(value) if value.isdigit() and len(value) <= 18 else None


def serialise_fields(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """
    Fields as they stand in a head or in trailers, each with its line end.  Raises ``ValueError`` when one holds a line end
    of its own, which would let its author write further fields.
    """
    lines = [b": ".join(field) for field in headers]
    ends = len(lines)
    lines.append(b"")
    data = b"\r\n".join(lines)
    if data.count(b"\n") != ends or data.count(b"\r") != ends:
        raise ValueError("a header field holds a line end")
    return data


def serialise_request(head: RequestHead) -> bytes:
    """
    The head of an HTTP/1.1 request.
    """
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (head.method, head.target, serialise_fields(head.headers))


def serialise_response(head: ResponseHead) -> bytes:
    """
    The head of an HTTP/1.1 response.
    """
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (head.status, head.reason, serialise_fields(head.headers))
