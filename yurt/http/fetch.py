"""
One small request and its whole answer, for control calls over the data path's connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from yurt.http.heads import without
from yurt.http.interfaces import ByteStream, Exchange, Headers, RequestHead, ResponseHead, Upstream, UpstreamError

MAX_BODY_BYTES = 4 * 1024 * 1024
"""The largest answer that is taken unless the caller says otherwise."""


@dataclass(frozen=True, slots=True)
class FetchedResponse:
    """
    A whole response.
    """

    status: int
    headers: Headers
    body: bytes


class FetchTimeout(UpstreamError):
    """
    The answer was not whole in time.
    """


class AnswerTooLarge(UpstreamError):
    """
    The answer has more bytes than its caller takes.
    """


class _Collector:
    """
    Keeps a response until it is whole.
    """

    def __init__(self, name: str, limit: int, result: Deferred[FetchedResponse]) -> None:
        self._name = name
        self._limit = limit
        self._result = result
        self._head: ResponseHead | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self.exchange: Exchange | None = None

    def interim_received(self, head: ResponseHead) -> None:
        """
        Of no interest.
        """

    def head_received(self, head: ResponseHead) -> None:
        self._head = head

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size > self._limit:
            self.give_up(AnswerTooLarge(f"{self._name}: the answer is larger than {self._limit} bytes"))

    def response_finished(self, trailers: Headers) -> None:
        head = self._head
        if head is not None and not self._result.called:
            self._result.callback(FetchedResponse(head.status, head.headers, b"".join(self._chunks)))

    def response_failed(self, error: UpstreamError) -> None:
        if not self._result.called:
            self._result.errback(error)

    def upgraded(self, head: ResponseHead, stream: ByteStream) -> None:
        stream.abort()

    def give_up(self, error: UpstreamError) -> None:
        """
        Drop the exchange and fail.
        """
        if self.exchange is not None:
            self.exchange.cancel()
        self.response_failed(error)


def fetch(
    reactor: IReactorTime,
    upstream: Upstream,
    method: bytes,
    target: bytes,
    headers: Headers,
    body: bytes = b"",
    *,
    timeout: float,
    limit: int = MAX_BODY_BYTES,
    fresh: bool = False,
) -> Deferred[FetchedResponse]:
    """
    Send one request and collect the answer, at most ``limit`` bytes of body, within ``timeout`` seconds.

    Fails with :class:`FetchTimeout`, :class:`AnswerTooLarge` or another :class:`UpstreamError`.  Cancelling it drops the
    exchange.
    """

    def cancel(_: Deferred[FetchedResponse]) -> None:
        exchange.cancel()

    result: Deferred[FetchedResponse] = Deferred(cancel)
    collector = _Collector(upstream.name, limit, result)
    fields = without(headers, b"content-length")
    if body:
        fields.append((b"Content-Length", b"%d" % len(body)))
    exchange = upstream.send(RequestHead(method, target, fields), collector, body=bool(body), fresh=fresh)
    collector.exchange = exchange
    if body:
        exchange.write(body)
        exchange.finish([])
    late = FetchTimeout(f"{upstream.name}: no whole answer within {timeout:.2g} s")
    timer = reactor.callLater(timeout, collector.give_up, late)

    def done(outcome: Any) -> Any:
        if timer.active():
            timer.cancel()
        return outcome

    return result.addBoth(done)
