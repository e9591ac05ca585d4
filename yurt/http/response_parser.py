"""
Bytes to responses; :mod:`yurt.http.parsing` tells how the parsers work.
"""

from __future__ import annotations

from typing import Any

import httptools

from yurt.http.interfaces import Headers, ResponseHead
from yurt.http.parsing import FIELDS_TOO_LARGE, MAX_HEAD_BYTES, Rejected, size_of


class ResponseParser:
    """
    The responses of one connection, one request at a time: :meth:`expect`, then :meth:`feed` until ``complete``.

    After a feed the owner takes ``interims``, ``head`` and ``chunks`` (and sets them back).  ``reusable`` is true when
    the connection may carry another request; ``upgraded`` after a 101, and ``rest`` holds what came after it.
    """

    __slots__ = (
        "_awaiting",
        "_bodiless",
        "_connect",
        "_fields",
        "_fresh",
        "_limit",
        "_parser",
        "_pending",
        "_reason",
        "_until_close",
        "chunks",
        "complete",
        "error",
        "head",
        "interims",
        "rest",
        "reusable",
        "trailers",
        "upgraded",
    )

    def __init__(self, max_head_bytes: int = MAX_HEAD_BYTES) -> None:
        self._limit = max_head_bytes
        self._fresh = False
        self.error: str | None = None
        self._renew()
        self.expect(b"GET")

    def _renew(self) -> None:
        self._parser: Any = httptools.HttpResponseParser(self)
        self._fresh = True

    def expect(self, method: bytes) -> None:
        """
        A request with ``method`` was sent: its response comes next.
        """
        if not self._fresh:
            self._renew()
        self._bodiless = method == b"HEAD"
        self._connect = method == b"CONNECT"
        self._awaiting = True
        self._until_close = False
        self._pending = 0
        self._reason = b""
        self._fields: Headers = []
        self.interims: list[ResponseHead] = []
        self.head: ResponseHead | None = None
        self.chunks: list[bytes] = []
        self.trailers: Headers = []
        self.complete = False
        self.reusable = False
        self.upgraded = False
        self.rest = b""

    def feed(self, data: bytes) -> None:
        """
        Take what arrived.  Raises nothing: see ``error``.
        """
        if self.complete or self.error is not None:
            self.reusable = False
            if self.upgraded:
                self.rest += data
            return
        self._pending += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._fresh = False
            if not self.upgraded and not self.complete:
                self.error = "an upgrade that nobody asked for"
            self.rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if not self.complete:
                self.error = self.error or str(error)
            self.reusable = self._fresh = False
        else:
            if self._pending > self._limit:
                self.error = FIELDS_TOO_LARGE

    def end(self) -> bool:
        """
        The peer closed the connection.  True when the body was to last until then, and so is whole.
        """
        if self._until_close and not self.complete and self.error is None:
            self.complete = True
            return True
        return False

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        if not self._awaiting:
            self.reusable = False
            return
        fields = self._fields
        if self._pending > self._limit and size_of(fields) + len(self._reason) > self._limit:
            self.error = FIELDS_TOO_LARGE
            raise Rejected()
        self._pending = 0
        status = self._parser.get_status_code()
        head = ResponseHead(status, self._reason, fields)
        if status < 100:
            self.error = f"status {status} is none"
            raise Rejected()
        if status < 200 and status != 101:
            self.interims.append(head)
            return
        self.head = head
        self._awaiting = False
        self._fields = self.trailers
        self.reusable = self._parser.should_keep_alive()
        if status == 101:
            self.complete = self.upgraded = True
            self.reusable = False
        elif self._bodiless or status == 204 or status == 304 or (self._connect and status < 300):
            self._skip_body(fields)
        else:
            self._until_close = not _is_framed(fields)
            if self._until_close and any(name.lower() == b"transfer-encoding" for name, _ in fields):
                self.head = None
                self.error = "only the transfer coding chunked is spoken here"
                raise Rejected()

    def _skip_body(self, fields: Headers) -> None:
        """
        The message ends with its head, whatever its framing says; llhttp would wait for a body.
        """
        self.complete = True
        self._fresh = False
        if not self.reusable and not _is_framed(fields):
            # Only for want of framing, which such a response does not need, unless it says close.
            closing = any(key.lower() == b"connection" and b"close" in value.lower() for key, value in fields)
            self.reusable = not closing and self._parser.get_http_version() == "1.1"

    def on_body(self, data: bytes) -> None:
        self._pending = 0
        if self.complete:
            self.reusable = False
            if self._connect:
                self.rest += data
        else:
            self.chunks.append(data)

    def on_message_complete(self) -> None:
        if self._awaiting:
            self._fields = []
            self._reason = b""
        elif self._pending > self._limit and size_of(self.trailers) > self._limit:
            self.error = "trailers too large"
            raise Rejected()
        else:
            self.complete = True
        self._pending = 0


def _is_framed(fields: Headers) -> bool:
    """
    Whether a response says itself where its body ends.
    """
    for name, value in fields:
        key = name.lower()
        if key == b"content-length":
            return True
        if key == b"transfer-encoding":
            return value.strip().lower() == b"chunked"
    return False
