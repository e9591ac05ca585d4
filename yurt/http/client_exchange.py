"""
One request on its way to a server, and who is told of its answer.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from yurt.http.client_roles import Carrier, Exchanges
from yurt.http.heads import serialise_fields
from yurt.http.interfaces import FlowControlled, Headers, RequestHead, ResponseReceiver, UpstreamError

RETRIED = frozenset((b"GET", b"HEAD"))
"""Methods sent once more when a connection that had been idle turns out to be dead."""


EXPECT = b"Expect: 100-continue\r\n"
"""
Asks a server to say that it is about to read the body (RFC 9110 section 10.1.1), which Go's HTTP library does when the API server
begins to: whoever hears nothing knows that nothing has been done.
"""


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
        "held",
        "method",
        "over",
        "paused",
        "receiver",
        "retry",
        "sent",
        "source",
        "target",
        "upgrade",
        "word",
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
        self.held = False
        """Whether the server has the head only, and the body waits here for its word."""
        self.word: IDelayedCall | None = None
        """While that word is awaited: what ends the wait."""
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
        if self.connection is None or self.held:
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
        if source is not None and (self.connection is None or self.held or self.connection.full):
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
        self.await_no_word()
        if self.dialling is not None:
            self.dialling.cancel()
        if self.connection is not None:
            self.connection.abandon()

    def take_early(self) -> bytes:
        """
        The bytes to send when the connection stands.  Those of a request that may be retried are the same every time.
        """
        return self.head + self.take_body() if self._early else self.head

    def take_body(self) -> bytes:
        """
        What has come of the body, and was not sent.
        """
        data = b"".join(self._early)
        self._early.clear()
        return data

    # Whether the server is still there

    @property
    def head_that_waits(self) -> bytes:
        """
        The head, with which the server is asked to say whether it wants the body.
        """
        return self.head[:-2] + EXPECT + b"\r\n"

    def await_no_word(self) -> None:
        """
        Whatever the server says now is an answer.
        """
        word, self.word = self.word, None
        if word is not None and word.active():
            word.cancel()

    def forget_connection(self) -> None:
        """
        It is to be carried by another one: nothing has been done yet.
        """
        self.await_no_word()
        self.held = False
        self.connection = None

    def fail(self, message: str, local: bool = False, cause: BaseException | None = None) -> None:
        """
        Tell the receiver that no (whole) answer comes; ``local`` as in :class:`UpstreamError`, ``cause`` as its cause.
        """
        if not self.over:
            self._upstream.exchange_over(self)
            self.over = True
            self.source = None
            self.await_no_word()
            error = UpstreamError(f"{self._upstream.name}: {message}", sent=self.sent, local=local)
            error.__cause__ = cause
            self.receiver.response_failed(error)
