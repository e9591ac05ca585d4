"""
The miniature apiserver without sockets: an upstream of :mod:`yurt.http` on a Clock, for tests in which hours pass.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.server import Request

from tests.certs import Authority
from yurt.http.interfaces import FlowControlled, Headers, RequestHead, ResponseHead, ResponseReceiver, UpstreamError

from . import errors
from .api import MiniAPI
from .identity import User
from .operations import Answer, Asked
from .routes import read_call, split_target
from .watch import Watcher

DELAY = 0.01
JSON: Headers = [(b"Content-Type", b"application/json")]


class MemoryExchange:
    """
    One request, and what its answer has come to.
    """

    def __init__(self, upstream: MemoryAPI, head: RequestHead, receiver: ResponseReceiver) -> None:
        self.upstream = upstream
        self.head = head
        self.receiver = receiver
        self.at = upstream.clock.seconds()
        self.body = b""
        self.cancelled = False
        self.open = True
        self.deaf = False
        """Whether something was lost on the way, after which a connection brings nothing more."""
        self.lost: Deferred[None] = Deferred()

    @property
    def method(self) -> str:
        return self.head.method.decode()

    @property
    def path(self) -> str:
        return split_target(self.head.target)[0]

    @property
    def query(self) -> dict[str, str]:
        return split_target(self.head.target)[1]

    # What the server does

    def begin(self, status: int = 200, headers: Headers = JSON) -> None:
        if self.open:
            self.receiver.head_received(ResponseHead(status, b"", list(headers)))

    def send(self, data: bytes) -> None:
        self.deaf = self.deaf or self.upstream.silent
        if self.open and not self.deaf:
            self.receiver.data_received(data)

    def end(self) -> None:
        self.deaf = self.deaf or self.upstream.silent
        if not self.deaf and self._over():
            self.receiver.response_finished([])

    def answer(self, status: int, body: Any, headers: Headers = JSON) -> None:
        self.begin(status, headers)
        self.send(body if isinstance(body, bytes) else json.dumps(body).encode())
        self.end()

    def fail(self, why: str = "connection reset") -> None:
        if self._over():
            self.receiver.response_failed(UpstreamError(why))

    def _over(self) -> bool:
        was_open, self.open = self.open, False
        self.upstream.forget(self)
        return was_open

    # What the client does

    def write(self, data: bytes) -> None:
        self.body += data

    def cancel(self) -> None:
        if self._over():
            self.cancelled = True

    def finish(self, trailers: Headers) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def produce_from(self, source: FlowControlled | None) -> None: ...


class _WatchRequest:
    """
    As much of a twisted.web Request as a Watcher uses; its chunks become data again.
    """

    def __init__(self, exchange: MemoryExchange) -> None:
        self._exchange = exchange
        self.channel = self
        self.begun = False

    def setHeader(self, name: bytes, value: bytes) -> None: ...

    def notifyFinish(self) -> Deferred[None]:
        return self._exchange.lost

    def write(self, data: bytes) -> None:
        if not self.begun:
            self.begun = True
            self._exchange.begin()
        elif data:
            self._exchange.send(data.partition(b"\r\n")[2].removesuffix(b"\r\n"))

    def finish(self) -> None:
        self._exchange.end()


@dataclass(eq=False)
class MemoryAPI:
    """
    ``api`` as it answers ``user``, each request after DELAY seconds.

    While ``silent`` nothing comes, and nothing is closed; while ``refusing`` nobody listens.  ``intercept`` may answer an
    exchange by itself, and says whether it did.
    """

    clock: Clock
    ca: Authority | None = None
    user: User = User("admin", ("system:masters",))
    name: str = "https://api.example:6443"
    silent: bool = False
    refusing: bool = False
    intercept: Callable[[MemoryExchange], bool] = lambda exchange: False
    sent: list[MemoryExchange] = field(default_factory=list)
    open: list[MemoryExchange] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Requests by (verb, plural name)."""

    def __post_init__(self) -> None:
        self.api = MiniAPI(self.clock, tls=False, ca=self.ca)

    def send(self, head: RequestHead, receiver: ResponseReceiver, **how: bool) -> MemoryExchange:
        """
        As :meth:`yurt.http.interfaces.Upstream.send`.
        """
        exchange = MemoryExchange(self, head, receiver)
        self.sent.append(exchange)
        self.open.append(exchange)
        self.clock.callLater(DELAY, self._serve, exchange)
        return exchange

    def answer_always(self, status: int, body: Any, headers: Headers = JSON) -> None:
        """
        Answer every request so from now on.
        """

        def answer(exchange: MemoryExchange) -> bool:
            exchange.answer(status, body, headers)
            return True

        self.intercept = answer

    @property
    def open_connections(self) -> int:
        return len(self.open)

    def close_connections(self, reason: str) -> None:
        """
        As :meth:`yurt.http.interfaces.Upstream.close_connections`.
        """
        for exchange in list(self.open):
            exchange.fail(reason)

    def retire_connections(self) -> None:
        """
        As :meth:`yurt.http.interfaces.Upstream.retire_connections`.
        """

    def forget(self, exchange: MemoryExchange) -> None:
        """
        An exchange is over.
        """
        if exchange in self.open:
            self.open.remove(exchange)
            exchange.lost.callback(None)

    def watches(self) -> list[MemoryExchange]:
        """
        The watches that are open.
        """
        return [exchange for exchange in self.open if exchange.query.get("watch")]

    def _serve(self, exchange: MemoryExchange) -> None:
        if not exchange.open or self.silent:
            return
        if self.refusing:
            exchange.fail("connection refused")
        elif not self.intercept(exchange):
            try:
                self.carry_out(exchange)
            except errors.APIError as refusal:
                exchange.answer(refusal.code, refusal.status())

    def carry_out(self, exchange: MemoryExchange) -> None:
        """
        Do what the request says, and answer it; raises an APIError.
        """
        api, headers = self.api, {name.lower(): value.decode() for name, value in exchange.head.headers}
        call = read_call(api.catalogue, exchange.method, exchange.path, exchange.query)
        assert call is not None, exchange.path
        self.counts[call.verb, call.resource.plural] += 1
        if not api.permits(self.user, call.verb, call, exchange.path):
            raise errors.forbidden(self.user.name, call.verb, call.resource, call.namespace, call.name, exchange.path)
        asked = Asked(exchange.body, headers.get(b"content-type", ""), headers.get(b"accept", ""), self.user)
        if call.verb != "watch":
            answer: Answer = api.operations.perform(call, asked)
            exchange.answer(answer.status, answer.body)
            return
        options = api.operations.watch_options(call, asked)
        request = cast(Request, _WatchRequest(exchange))
        encoder, collection = api.encoder(call.resource), api.store.collection(call.resource)
        Watcher(self.clock, api.store, collection, encoder, request, options, api.bookmark_interval).begin()
