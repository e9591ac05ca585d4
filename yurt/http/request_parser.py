"""
Bytes to requests; :mod:`yurt.http.parsing` tells how the parsers work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import httptools

from yurt.http.heads import parse_length, serialise_request, without
from yurt.http.interfaces import Headers, RequestHead
from yurt.http.parsing import FIELDS_TOO_LARGE, MAX_HEAD_BYTES, Rejected, size_of
from yurt.http.repeats import MAX_REPEATED_BYTES, Repeats

ASTERISK = b"*"
"""The target by which OPTIONS asks after the server itself, RFC 9110 section 9.3.7; an API server's HTTP library says 200."""

_FRAMING = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect", b"upgrade"))


class RequestMessage:
    """
    A request as far as it has arrived.  ``chunks`` holds body pieces until the owner takes them.
    """

    __slots__ = ("chunks", "complete", "expects_continue", "has_body", "head", "keep_alive", "trailers", "upgrade")

    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self.chunks: list[bytes] = []
        self.trailers: Headers = []
        self.complete = False
        self.upgrade = False
        self.keep_alive = True
        self.has_body = False
        self.expects_continue = False


M = TypeVar("M", bound=RequestMessage)


class RequestParser(Generic[M]):
    """
    The requests of one connection.

    After a feed ``begun`` holds the messages whose head is complete, in order, for the owner to take; ``error`` says why
    the rest of the connection cannot be understood; ``stopped`` is true after a request that asked to be the last one
    or to upgrade, and ``rest`` holds what came after the latter.  With ``takes_connect`` a CONNECT is such a request, too.

    ``repeats`` is for all parsers of one kind; messages that came as the same bytes share their head.
    """

    def __init__(
        self,
        begin: Callable[[RequestHead], M],
        max_head_bytes: int = MAX_HEAD_BYTES,
        *,
        takes_connect: bool = False,
        repeats: Repeats | None = None,
    ) -> None:
        self._begin = begin
        self._repeats = repeats
        self._limit = max_head_bytes
        self._trailers_limit = min(max_head_bytes, MAX_HEAD_BYTES)
        self._takes_connect = takes_connect
        self.begun: list[M] = []
        self.error: str | None = None
        self.stopped = False
        self.rest = b""
        self._start()

    def _start(self) -> None:
        self._parser: Any = None  # made for the first bytes that did not come before
        self._message: M | None = None
        self._between = True
        self._offered = False
        self._offer_declined = False
        self._pending = 0
        self._target = b""
        self._fields: Headers = []

    @property
    def in_head(self) -> bool:
        """
        Whether part of a head has arrived.
        """
        return self._message is None and self._pending > 0 and not self.stopped

    @property
    def head_bytes(self) -> int:
        """
        How much of a head, or of trailers, has arrived that is not whole.
        """
        return self._pending

    def restart(self) -> None:
        """
        Go on with a new request after an upgrade that was not accepted.
        """
        self.stopped = False
        self._start()

    def end(self) -> None:
        """
        Nothing more will arrive: a request that is not whole is none.
        """
        if not (self._between or self.stopped):
            self.error = self.error or "it ended too early"

    def feed(self, data: bytes) -> None:
        """
        Take what arrived.  Raises nothing: see ``error``.
        """
        if self.stopped:
            if self._offered:
                self.rest += data
            return
        if self.error is not None:
            return
        if self._between and self._repeats is not None and len(data) <= MAX_REPEATED_BYTES:
            self._feed_repeated(data, self._repeats)
        else:
            self._feed_parser(data)

    def _feed_repeated(self, data: bytes, repeats: Repeats) -> None:
        """
        Take what arrived after a whole request and may be one that came before.
        """
        head = repeats.find(data)
        if head is not None:
            message = self._begin(head)
            message.complete = True
            self._pending = 0  # empty lines may have come before
            if head.method == b"CONNECT":
                message.upgrade = self.stopped = self._offered = True
                self.rest = b""
            self.begun.append(message)
            return
        before = len(self.begun)
        self._feed_parser(data)
        if not self._between or self.error or len(self.begun) != before + 1:
            return
        message = self.begun[-1]
        connects = message.upgrade and message.head.method == b"CONNECT" and not self.rest
        if message.keep_alive and not message.has_body and (connects or not self.stopped):
            repeats.keep(data, message.head)

    def _feed_parser(self, data: bytes) -> None:
        self._pending += len(data)
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade_offered(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if self.error is None and not self.stopped:
                self.error = str(error)
        else:
            if self._pending > (self._limit if self._message is None else self._trailers_limit):
                self.error = FIELDS_TOO_LARGE

    def _upgrade_offered(self, rest: bytes) -> None:
        if not self._offer_declined:
            self.stopped = self._offered = True
            self.rest = rest
            return
        # llhttp leaves the body of such a request unread: parse it once more, without the offer.
        message = self.begun.pop()
        head = message.head
        asked_to_close = not message.keep_alive
        head.headers = without(head.headers, b"upgrade", b"connection", b"http2-settings")
        if asked_to_close:
            head.headers.append((b"Connection", b"close"))
        self.stopped = False
        self._start()
        self.feed(serialise_request(head) + rest)

    def on_message_begin(self) -> None:
        self._between = False

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        fields = self._fields
        if self._pending > self._limit and size_of(fields) + len(self._target) > self._limit:
            raise self._reject(FIELDS_TOO_LARGE)
        self._pending = 0
        parser = self._parser
        version = parser.get_http_version()
        method = parser.get_method()
        connects = self._takes_connect and method == b"CONNECT"
        head = RequestHead(method, self._target if connects else self._check_target(), fields, version == "1.0")
        message = self._begin(head)
        if version != "1.1" and version != "1.0":
            raise self._reject("this HTTP version is not spoken here")
        message.keep_alive = parser.should_keep_alive()
        offer = self._check_fields(message)
        if parser.should_upgrade():
            if method == b"CONNECT" and (not connects or message.has_body):
                raise self._reject("a CONNECT has no body" if connects else "CONNECT is not served here")
            message.upgrade = connects or not (message.has_body or offer.startswith(b"h2c"))
            self._offer_declined = not message.upgrade
        self._target = b""
        self._fields = message.trailers
        self._message = message
        self.begun.append(message)

    def _check_target(self) -> bytes:
        """
        The target in origin form; absolute form is reduced to it, and its host goes before that in Host (RFC 9112 section 3.2.2).
        """
        target = self._target
        if target == ASTERISK and self._parser.get_method() == b"OPTIONS":
            return target
        if target[:1] != b"/":
            scheme, _, rest = target.partition(b"://")
            if scheme.lower() not in (b"http", b"https") or not rest or rest[:1] in b"/?":
                raise self._reject("the request target is no path")
            authority, target = _split_absolute(rest)
            named = authority.rpartition(b"@")[2]
            self._fields[:] = [(name, named if name.lower() == b"host" else value) for name, value in self._fields]
        if b"#" in target:
            raise self._reject("the request target holds a fragment")
        return target

    def _check_fields(self, message: M) -> bytes:
        """
        What llhttp leaves open: one Host, one meaning of the framing.  Returns the offered protocol, in lower case.
        """
        hosts = 0
        offer = b""
        for name, value in message.head.headers:
            key = name.lower()
            if key not in _FRAMING:
                continue
            if key == b"host":
                hosts += 1
            elif key == b"content-length":
                length = parse_length(value)
                if length is None:
                    raise self._reject("Content-Length is no number")
                message.has_body = message.has_body or length > 0
            elif key == b"transfer-encoding":
                if value.strip().lower() != b"chunked" or message.head.http10:
                    raise self._reject("only the transfer coding chunked is spoken here, and only in HTTP/1.1")
                message.has_body = True
            elif key == b"expect":
                message.expects_continue = value.lower() == b"100-continue" and not message.head.http10
            else:
                offer = value.strip().lower()
        if hosts > 1 or not (hosts or message.head.http10):
            raise self._reject("one Host header is required")
        message.expects_continue = message.expects_continue and message.has_body
        return offer

    def _reject(self, reason: str) -> Rejected:
        self.error = reason
        return Rejected()

    def on_body(self, data: bytes) -> None:
        self._pending = 0
        if self._message is not None:
            self._message.chunks.append(data)

    def on_message_complete(self) -> None:
        message = self._message
        if message is None:
            return
        if self._pending > self._trailers_limit and size_of(message.trailers) > self._trailers_limit:
            raise self._reject(FIELDS_TOO_LARGE)
        message.complete = True
        self.stopped = not message.keep_alive
        self._message = None
        self._between = True
        self._pending = 0
        self._fields = []


def _split_absolute(rest: bytes) -> tuple[bytes, bytes]:
    """
    Authority and origin form of a target in absolute form, without its scheme.
    """
    slash = rest.find(b"/")
    query = rest.find(b"?")
    if slash < 0 or 0 <= query < slash:
        return (rest[:query], b"/" + rest[query:]) if query >= 0 else (rest, b"/")
    return rest[:slash], rest[slash:]
