"""
An upstream in memory, on a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from yurt.http.interfaces import FlowControlled, Headers, RequestHead, ResponseHead, ResponseReceiver, UpstreamError

Answer = tuple[int, bytes]


@dataclass
class Sent:
    """
    One request that was sent, and when.
    """

    at: float
    head: RequestHead
    fresh: bool
    body: bytes = b""
    cancelled: bool = False


@dataclass
class FakeUpstream:
    """
    Answers after ``delay`` seconds what ``answer`` says, or fails with the UpstreamError it raises.

    Does not answer at all while ``silent``; refuses while ``refusing``.  Once its connections are ``dead``, only those that are
    new lead anywhere.
    """

    clock: Clock
    answer: Callable[[Sent], Answer] = lambda sent: (200, b"ok")
    name: str = "https://cloud.example:6443"
    delay: float = 0.01
    silent: bool = False
    dead: bool = False
    refusing: bool = False
    sent: list[Sent] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def send(
        self, head: RequestHead, receiver: ResponseReceiver, *, body: bool = False, fresh: bool = False, **how: bool
    ) -> FakeExchange:
        """
        As :meth:`yurt.http.interfaces.Upstream.send`.
        """
        sent = Sent(self.clock.seconds(), head, fresh)
        self.sent.append(sent)
        exchange = FakeExchange(self, sent, receiver)
        if not body:
            exchange.finish([])
        return exchange

    def close_connections(self, reason: str) -> None:
        """
        As :meth:`yurt.http.interfaces.Upstream.close_connections`.
        """
        self.closed.append(reason)

    def retire_connections(self) -> None:
        """
        As :meth:`yurt.http.interfaces.Upstream.retire_connections`.
        """
        self.dead = False

    def of(self, target: bytes) -> list[Sent]:
        """
        The requests for ``target``.
        """
        return [sent for sent in self.sent if sent.head.target == target]

    @property
    def open_connections(self) -> int:
        """
        As :attr:`yurt.http.interfaces.Upstream.open_connections`; there are none.
        """
        return 0

    @property
    def probes(self) -> list[Sent]:
        """
        The probes that were sent.
        """
        return self.of(b"/readyz")


class FakeExchange:
    """
    One request to a :class:`FakeUpstream`.
    """

    def __init__(self, upstream: FakeUpstream, sent: Sent, receiver: ResponseReceiver) -> None:
        self._upstream = upstream
        self._sent = sent
        self._receiver = receiver
        self._timer: IDelayedCall | None = None

    def write(self, data: bytes) -> None:
        self._sent.body += data

    def finish(self, trailers: Headers) -> None:
        self._timer = self._upstream.clock.callLater(self._upstream.delay, self._answer)

    def _answer(self) -> None:
        if self._upstream.silent or (self._upstream.dead and not self._sent.fresh):
            return
        try:
            if self._upstream.refusing:
                raise UpstreamError(f"{self._upstream.name}: connection refused", sent=False)
            status, body = self._upstream.answer(self._sent)
        except UpstreamError as error:
            self._receiver.response_failed(error)
            return
        self._receiver.head_received(ResponseHead(status, b"", [(b"Content-Length", str(len(body)).encode())]))
        self._receiver.data_received(body)
        self._receiver.response_finished([])

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def produce_from(self, source: FlowControlled | None) -> None: ...

    def cancel(self) -> None:
        self._sent.cancelled = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
