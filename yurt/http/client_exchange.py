"""
One request on its way to a server, and who is told of its answer.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred

from yurt.http.heads import serialise_fields
from yurt.http.interfaces import FlowControlled, Headers, RequestHead, ResponseReceiver, UpstreamError
from yurt.http.wire import Wire

RETRIED = frozenset((b"GET", b"HEAD"))
"""Methods sent once more when a connection that had been idle turns out to be dead."""


class Carrier(Protocol):
    """
    What an exchange needs of the connection that carries it.
    """

    wire: Wire
    full: bool

    def abandon(self) -> None: ...


class Exchanges(Protocol):
    """
    What an exchange needs of the upstream that it belongs to.
    """

    name: str

    def exchange_over(self, exchange: ClientExchange) -> None: ...


class ClientExchange:
    """
    See :class:`yurt.http.interfaces.Exchange`.
    """

    __slots__ = (
        "_chunked",
        "_early",
        "_upstream",
        "alone",
        "answered",
        "body_sent",
        "connection",
        "dialling",
        "head",
        "method",
        "over",
        "paused",
        "receiver",
        "retry",
        "sent",
        "source",
        "target",
        "upgrade",
    )

    def __init__(
        self, upstream: Exchanges, head: RequestHead, receiver: ResponseReceiver, data: bytes, chunked: bool, body: bool
    ) -> None:
        self._upstream = upstream
        self.receiver = receiver
        self.method = head.method
        self.target = head.target
        self.head = data
        self._chunked = chunked
        self._early: list[bytes] = []
        self.body_sent = not body
        self.upgrade = False
        self.retry = not body and head.method in RETRIED
        self.alone = body and head.method in RETRIED
        """A body that some servers leave unread, and take for the next request: that must not be somebody else's answer."""
        self.answered = False
        self.sent = False
        self.over = False
        self.paused = False
        self.connection: Carrier | None = None
        self.dialling: Deferred[Any] | None = None
        self.source: FlowControlled | None = None

    def pause(self) -> None:
        """
        See :class:`Exchange`.
        """
        self.paused = True
        if self.connection is not None and not self.over:
            self.connection.wire.pauseProducing()

    def resume(self) -> None:
        """
        See :class:`Exchange`.
        """
        self.paused = False
        if self.connection is not None and not self.over:
            self.connection.wire.resumeProducing()

    def write(self, data: bytes) -> None:
        """
        See :class:`Exchange`.  Before the connection stands, pieces are kept; their source is held back meanwhile.
        """
        if self.over or self.body_sent or not data:
            return
        self._send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self, trailers: Headers) -> None:
        """
        See :class:`Exchange`.
        """
        if self.over or self.body_sent:
            return
        if self._chunked:
            self._send(b"0\r\n%b\r\n" % serialise_fields(trailers))
        self.body_sent = True
        self.source = None

    def _send(self, data: bytes) -> None:
        if self.connection is None:
            self._early.append(data)
        else:
            self.connection.wire.write(data)

    def produce_from(self, source: FlowControlled | None) -> None:
        """
        See :class:`Exchange`.
        """
        if self.body_sent or self.over:
            return
        self.source = source
        if source is not None and (self.connection is None or self.connection.full):
            source.pause()

    def cancel(self) -> None:
        """
        See :class:`Exchange`.
        """
        if not self.over:
            self._upstream.exchange_over(self)
            self.drop()

    def drop(self) -> None:
        """
        End it and its connection; nobody is told.
        """
        self.over = True
        self.source = None
        if self.dialling is not None:
            self.dialling.cancel()
        if self.connection is not None:
            self.connection.abandon()

    def take_early(self) -> bytes:
        """
        The bytes to send when the connection stands.  Those of a request that may be retried are the same every time.
        """
        if not self._early:
            return self.head
        data = b"".join([self.head, *self._early])
        self._early.clear()
        return data

    def fail(self, message: str, local: bool = False, cause: BaseException | None = None) -> None:
        """
        Tell the receiver that no (whole) answer comes; ``local`` as in :class:`UpstreamError`, ``cause`` as its cause.
        """
        if not self.over:
            self._upstream.exchange_over(self)
            self.over = True
            self.source = None
            error = UpstreamError(f"{self._upstream.name}: {message}", sent=self.sent, local=local)
            error.__cause__ = cause
            self.receiver.response_failed(error)
