"""
What the parsers of requests and of responses have in common: llhttp (through httptools) turns bytes into messages, and they
add the checks and the bounds that it leaves to its user.

No I/O here.  A parser is fed what arrives and collects; its owner looks at what was collected after each feed, so that
all that one read brought is passed on at once, and no application code runs inside a parser callback.
"""

from __future__ import annotations

from yurt.http.interfaces import Headers

MAX_HEAD_BYTES = 64 * 1024
"""Most bytes of a start line with its header fields, unless the parser's owner takes more, and of trailers."""

FIELDS_TOO_LARGE = "header fields too large"
"""What a parser says of a head or trailers beyond their bound, RFC 6585 section 5."""


class Rejected(Exception):
    """
    Ends a parse from inside a callback; the reason stands in the parser's ``error``.
    """


def size_of(fields: Headers) -> int:
    """
    The bytes that fields take on the wire.
    """
    return sum(len(name) + len(value) + 4 for name, value in fields)
