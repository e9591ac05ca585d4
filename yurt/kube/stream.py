"""
The body of a watch, as it comes.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from yurt.http.interfaces import ByteStream, Exchange, Headers, ResponseHead, UpstreamError
from yurt.kube.apierror import NO_ANSWER, TIMEOUT, UNREADABLE, ApiError

BEGIN_TIMEOUT = 10.0
"""Seconds until a watch must begin."""
MAX_REFUSAL_BYTES = 64 * 1024
"""Bytes kept of the answer to a refused watch."""


class Stream:
    """
    A :class:`ResponseReceiver` that passes on a body for as long as it comes.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        refusal: Callable[[ResponseHead, bytes], ApiError],
        began: Callable[[], object],
        received: Callable[[bytes], object],
        lasting: float,
    ) -> None:
        self._reactor = reactor
        self._refusal = refusal
        self._began = began
        self._received = received
        self._lasting = lasting
        self._refused: ResponseHead | None = None
        self._body = b""
        self._over = False
        self._timer: IDelayedCall = reactor.callLater(BEGIN_TIMEOUT, self._late, f"no answer within {BEGIN_TIMEOUT:g} s")
        self.called = self.name = ""
        self.exchange: Exchange | None = None
        self.result: Deferred[None] = Deferred(self._cancelled)

    def interim_received(self, head: ResponseHead) -> None: ...

    def head_received(self, head: ResponseHead) -> None:
        self._timer.cancel()
        self._timer = self._reactor.callLater(self._lasting, self._late, f"not ended after {self._lasting:g} s")
        if head.status == 200:
            self._guarded(self._began)
        else:
            self._refused = head

    def data_received(self, data: bytes) -> None:
        if self._refused is None:
            self._guarded(lambda: self._received(data))
        elif len(self._body) < MAX_REFUSAL_BYTES:
            self._body += data

    def _guarded(self, call: Callable[[], object]) -> None:
        """
        What the caller's own code raises ends the stream, and gets no further than to its result.
        """
        try:
            call()
        except Exception as error:
            self._fail(error)

    def response_finished(self, trailers: Headers) -> None:
        self.exchange = None  # it is over: to cancel it would break a connection that others can use
        if self._refused is not None:
            self._fail(self._refusal(self._refused, self._body))
        elif self._end():
            self.result.callback(None)

    def response_failed(self, error: UpstreamError) -> None:
        self.exchange = None
        self._fail(ApiError(0, NO_ANSWER, f"{self.called}: {error}"))

    def upgraded(self, head: ResponseHead, stream: ByteStream) -> None:
        self.exchange = None
        stream.abort()
        self._fail(ApiError(0, UNREADABLE, f"{self.called}: {self.name}: the server switched protocols"))

    def _late(self, why: str) -> None:
        self._fail(ApiError(0, TIMEOUT, f"{self.called}: {self.name}: {why}"))

    def _fail(self, error: Exception) -> None:
        if self._end():
            self.result.errback(error)

    def _cancelled(self, _: Deferred[None]) -> None:
        self._end()

    def _end(self) -> bool:
        """
        Let go of everything; whether it was not over before.
        """
        if self._over:
            return False
        self._over = True
        if self._timer.active():
            self._timer.cancel()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.cancel()
        return True
