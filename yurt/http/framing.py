"""
How a request is framed on its way to a server.
"""

from __future__ import annotations

from yurt.http.heads import END_TO_END, HOP_BY_HOP, serialise_request
from yurt.http.interfaces import Headers, RequestHead

BODY_EXPECTED = frozenset((b"POST", b"PUT", b"PATCH"))
"""Methods that say ``Content-Length: 0`` when there is no body."""

_LOOKED_AT = HOP_BY_HOP | {b"host", b"content-length", b"expect"}


def frame_request(head: RequestHead, host: bytes, body: bool, upgrade: bool) -> tuple[bytes, bool]:
    """
    The head of a request as it goes to a server, and whether its body is to be chunked.

    ``Expect`` is dropped: the body is sent without waiting.
    """
    if body or upgrade or head.memo is None:
        return _frame(head, host, body, upgrade)
    framed: tuple[bytes, bool] | None = head.memo.get(host)
    if framed is None:
        framed = head.memo[host] = _frame(head, host, body, upgrade)
    return framed


def _frame(head: RequestHead, host: bytes, body: bool, upgrade: bool) -> tuple[bytes, bool]:
    fields: Headers = [(b"Host", host)]
    named: set[bytes] = set()
    chunked = body
    protocol = b""
    for field in head.headers:
        key = field[0].lower()
        if key not in _LOOKED_AT:
            fields.append(field)
        elif key == b"connection":
            named.update(token.strip() for token in field[1].lower().split(b","))
        elif key == b"content-length" and body:
            fields.append(field)
            chunked = False
        elif key == b"upgrade":
            protocol = field[1]
        elif key == b"te" and b"trailers" in field[1].lower():
            fields.append((b"TE", b"trailers"))
    named -= END_TO_END
    named.discard(b"te")
    if named:
        fields = [field for field in fields if field[0].lower() not in named]
    if upgrade:
        fields += [(b"Connection", b"Upgrade"), (b"Upgrade", protocol)]
    if chunked:
        fields.append((b"Transfer-Encoding", b"chunked"))
    elif not body and head.method in BODY_EXPECTED:
        fields.append((b"Content-Length", b"0"))
    return serialise_request(RequestHead(head.method, head.target, fields)), chunked
