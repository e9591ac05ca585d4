"""
A request as the application sees it, and its response on the way to the client.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from cryptography.x509 import Certificate
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from yurt.http.heads import end_to_end, get_header, parse_length, serialise_fields, serialise_response, without
from yurt.http.interfaces import BodyReceiver, ByteStream, FlowControlled, Headers, RequestHead, ResponseHead
from yurt.http.request_parser import RequestMessage
from yurt.http.status import PHRASES, status_body

_WAITING, _STARTED, _FINISHED = range(3)

MAX_JOINED_BODY = 64 * 1024
"""Up to so many bytes head and body go out in one piece; more would cost more to copy than a second write does."""

MAX_REMEMBERED_FIELDS = 64
"""Sets of header fields of answers given here that are kept serialised: they repeat themselves."""

_remembered_fields = lru_cache(MAX_REMEMBERED_FIELDS)(serialise_fields)


class ServerWire(Protocol):
    """
    What a request needs of the connection it came on.
    """

    peer: IAddress
    door: object
    full: bool

    @property
    def draining(self) -> bool: ...

    @property
    def client_certificate(self) -> Certificate | None: ...

    @property
    def server_name(self) -> str: ...

    @property
    def tcp_socket(self) -> socket.socket | None: ...

    @property
    def own_headers(self) -> Headers: ...

    def send(self, data: bytes) -> None: ...

    def abort(self) -> None: ...

    def adjust_reading(self) -> None: ...

    def request_finished(self, request: ServerRequest, keep_alive: bool) -> None: ...

    def hand_over(self, head: bytes) -> ByteStream: ...


class ServerRequest(RequestMessage):
    """
    See :class:`yurt.http.interfaces.IncomingRequest`.  It is also the :class:`FlowControlled` source of its body.
    """

    log = Logger()

    __slots__ = (
        "_chunked",
        "_connection",
        "_continued",
        "_keep",
        "_lost",
        "half_closed",
        "_on_lost",
        "_receiver",
        "_remaining",
        "_silent",
        "_state",
        "_told",
        "door",
        "held",
        "peer",
        "source",
    )

    def __init__(self, head: RequestHead, connection: ServerWire) -> None:
        super().__init__(head)
        self._connection = connection
        self.peer = connection.peer
        self.door = connection.door
        self._state = _WAITING
        self._receiver: BodyReceiver | None = None
        self._told = False
        self._continued = False
        self._lost = False
        self._on_lost: list[Callable[[], None]] = []
        self.half_closed: float | None = None
        self._remaining: int | None = None
        self._chunked = self._silent = self._keep = False
        self.held = False
        self.source: FlowControlled | None = None

    @property
    def client_certificate(self) -> Certificate | None:
        """
        See :class:`IncomingRequest`.
        """
        return self._connection.client_certificate

    @property
    def server_name(self) -> str:
        """
        See :class:`IncomingRequest`.
        """
        return self._connection.server_name

    @property
    def tcp_socket(self) -> socket.socket | None:
        """
        See :class:`IncomingRequest`.
        """
        return self._connection.tcp_socket

    # The body that comes in

    def read_body(self, receiver: BodyReceiver) -> FlowControlled:
        """
        See :class:`IncomingRequest`.
        """
        self._receiver = receiver
        if self.expects_continue and not (self._continued or self.complete or self.chunks):
            self.interim(ResponseHead(100, b"Continue"))
        self.deliver()
        self._connection.adjust_reading()
        return self

    def deliver(self) -> None:
        """
        Pass on what has arrived of the body, if somebody reads it.
        """
        receiver = self._receiver
        if receiver is None or self._told or self._lost:
            return
        if self.chunks:
            data = self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)
            self.chunks.clear()
            receiver.body_received(data)
        if self.complete and not self._told:
            self._told = True
            receiver.body_finished(self.trailers)

    @property
    def started(self) -> bool:
        """
        Whether part of a response is on its way.
        """
        return self._state == _STARTED

    @property
    def wants_bytes(self) -> bool:
        """
        Whether more of this request should be read from the client.
        """
        if self.complete:
            return True
        return not self.held and not (self.chunks and self._receiver is None)

    @property
    def awaits_body(self) -> bool:
        """
        Whether somebody wants more of the body than has come.
        """
        return not self.complete and not self.held and self._receiver is not None

    def pause(self) -> None:
        """
        Hold the body back.
        """
        self.held = True
        self._connection.adjust_reading()

    def resume(self) -> None:
        """
        Let the body come again.
        """
        self.held = False
        self._connection.adjust_reading()

    # The response that goes out

    def interim(self, head: ResponseHead) -> None:
        """
        See :class:`IncomingRequest`.  A 100 is sent at most once, and only to a client that waits for it.
        """
        if self._state != _WAITING or self.head.http10:
            return
        if head.status == 100:
            if self._continued or not self.expects_continue:
                return
            self._continued = True
        self._connection.send(serialise_response(head))

    def respond(self, status: int, headers: Headers, body: bytes = b"", phrase: bytes = b"") -> None:
        """
        See :class:`IncomingRequest`.
        """
        if self._state != _WAITING:
            return
        keep = self.keep_alive and self.complete and not self._connection.draining
        fields = _remembered_fields(tuple(headers))
        if status == 204 or status == 304:
            body = b""
        else:
            fields += b"Content-Length: %d\r\n" % len(body)
            if self.head.method == b"HEAD":
                body = b""
        if not keep:
            fields += b"Connection: close\r\n"
        elif self.head.http10:
            fields += b"Connection: keep-alive\r\n"
        self._state = _FINISHED
        head = b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, phrase or PHRASES.get(status, b""), fields)
        if len(body) <= MAX_JOINED_BODY:
            self._connection.send(head + body)
        else:
            self._connection.send(head)
            self._connection.send(body)
        self._connection.request_finished(self, keep)

    def start(self, head: ResponseHead) -> None:
        """
        See :class:`IncomingRequest`.
        """
        if self._state != _WAITING:
            return
        fields = end_to_end(head.headers)
        self._silent = self.head.method == b"HEAD" or head.status == 204 or head.status == 304
        if head.status == 204 or head.status == 304:
            fields = without(fields, b"content-length")
        value = get_header(fields, b"content-length")
        self._remaining = None if value is None else parse_length(value)
        unread = self.expects_continue and not (self._continued or self.complete)
        self._keep = self.keep_alive and not (self._connection.draining or unread)
        if self._remaining is None and not self._silent:
            self._chunked = not self.head.http10
            self._keep = self._keep and self._chunked
            if self._chunked:
                fields.append((b"Transfer-Encoding", b"chunked"))
        if not self._keep:
            fields.append((b"Connection", b"close"))
        elif self.head.http10:
            fields.append((b"Connection", b"keep-alive"))
        data = serialise_response(ResponseHead(head.status, head.reason, fields))
        self._state = _STARTED
        self._connection.send(data)

    def write(self, data: bytes) -> None:
        """
        See :class:`IncomingRequest`.
        """
        if self._state != _STARTED or self._silent or not data:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        elif self._remaining is not None:
            self._remaining -= len(data)
            if self._remaining < 0:
                self._abort_wrong_length("longer")
                return
        self._connection.send(data)

    def finish(self, trailers: Headers | None = None) -> None:
        """
        See :class:`IncomingRequest`.
        """
        if self._state != _STARTED:
            return
        if self._remaining and not self._silent:
            self._abort_wrong_length("shorter")
            return
        if self._chunked:
            end = b"0\r\n%b\r\n" % serialise_fields(trailers) if trailers else b"0\r\n\r\n"
            self._connection.send(end)
        self._state = _FINISHED
        self._connection.request_finished(self, self._keep)

    def _abort_wrong_length(self, how: str) -> None:
        self.log.warn(
            "The response to {method} {path} is {how} than its Content-Length says: connection cut",
            method=self.head.method.decode("latin-1"),
            path=self.path,
            how=how,
        )
        self.abort()

    def abort(self) -> None:
        """
        See :class:`IncomingRequest`.
        """
        if self._state != _FINISHED:
            self._state = _FINISHED
            self._on_lost.clear()
            self._connection.abort()

    def fail(self, code: int, reason: str, message: str) -> None:
        """
        Answer by this layer itself with a Status and the end of the connection; cut it if an answer is on its way.
        """
        if self._state == _STARTED:
            self.abort()
            return
        self.keep_alive = False
        headers = [*self._connection.own_headers, (b"Content-Type", b"application/json")]
        self.respond(code, headers, status_body(code, reason, message))

    def accept_upgrade(self, head: ResponseHead) -> ByteStream:
        """
        See :class:`IncomingRequest`.  Raises ``ValueError`` for a request that did not ask for it.
        """
        if not self.upgrade:
            raise ValueError(f"{self.path} did not ask for an upgrade")
        self._state = _FINISHED
        self._on_lost.clear()
        return self._connection.hand_over(serialise_response(head))

    def produce_from(self, source: FlowControlled | None) -> None:
        """
        See :class:`IncomingRequest`.
        """
        self.source = source
        if source is not None and self._connection.full and self._state != _FINISHED:
            source.pause()

    def when_lost(self, callback: Callable[[], None], half_closed: float | None = None) -> None:
        """
        See :class:`IncomingRequest`.
        """
        self.half_closed = half_closed
        if self._lost:
            callback()
        elif self._state != _FINISHED:
            self._on_lost.append(callback)

    def connection_lost(self) -> None:
        """
        The connection is gone, whoever ended it.
        """
        callbacks, self._on_lost = self._on_lost, []
        self._lost = self._state != _FINISHED
        self._state = _FINISHED
        for callback in callbacks:
            with self.log.failuresHandled("while telling that a client hung up"):
                callback()

    @property
    def path(self) -> str:
        """
        The path of the target, for logs: a query may hold what must not stand there.
        """
        return self.head.target.partition(b"?")[0].decode("latin-1")
