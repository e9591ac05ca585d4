"""
The pooled HTTP/1.1 client of the data path.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.python.failure import Failure

from yurt.http.address import parse_address, parse_proxy
from yurt.http.client_connection import ClientConnection
from yurt.http.client_exchange import ClientExchange
from yurt.http.dial import Build, dial
from yurt.http.failures import describe
from yurt.http.framing import frame_request
from yurt.http.interfaces import RequestHead, ResponseReceiver, UpstreamError
from yurt.http.limits import ClientLimits
from yurt.tls import ClientTLS

NO_MEANS = (error.ConnectBindError,)
"""What Twisted makes of it when the kernel gives no socket: too many open files."""

MAX_WORDLESS = 3
"""Times that a server is asked to say that it goes on, until it is taken for one that never does."""

WORD_MARGIN = 1.5
"""A server gets this many times what its last new connection took to say so, where that is longer than its usual time."""

NO_CONNECTION_IN_TIME = (TimeoutError, CancelledError, error.TimeoutError, error.ConnectingCancelledError)


class HTTPUpstream:
    """
    One server, over a pool of HTTP/1.1 connections, each of which carries one exchange at a time.

    ``url`` gives scheme, host, port, and a path to put before every target; ``tls`` is needed for https; ``proxy`` is
    the URL of an HTTP proxy to go through; ``endpoint`` is dialled in place of the host, which TLS still verifies.  Raises
    ``ValueError`` for addresses that cannot be used.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        tls: ClientTLS | None,
        proxy: str | None = None,
        limits: ClientLimits = ClientLimits(),
        *,
        endpoint: IStreamClientEndpoint | None = None,
    ) -> None:
        self.name = url
        self.limits = limits
        self._reactor = reactor
        self._address = parse_address(url)
        if self._address.scheme == "https" and tls is None:
            raise ValueError("an https server needs TLS settings")
        self._tls = tls if self._address.scheme == "https" else None
        if proxy is not None:
            parse_proxy(proxy)
        self._proxy = proxy
        self._endpoint = endpoint
        self._base = self._address.base.encode("ascii")
        self._host = self._address.authority.encode("idna" if not self._address.host.isascii() else "ascii")
        self._idle: list[ClientConnection] = []
        self._exchanges: set[ClientExchange] = set()
        self._sweep: IDelayedCall | None = None
        self._generation = 0
        self._wordless = 0
        """How often a server that has never said that it goes on was asked in vain."""
        self._has_word = False
        self._way_takes = 0.0
        """Seconds that the last new connection took: hand-shakes go there and back twice."""
        self.streams: set[ClientConnection] = set()

    @property
    def open_connections(self) -> int:
        """
        See :class:`Upstream`.
        """
        return len(self._idle) + len(self._exchanges) + len(self.streams)

    def send(
        self,
        head: RequestHead,
        receiver: ResponseReceiver,
        *,
        body: bool = False,
        upgrade: bool = False,
        fresh: bool = False,
        once: bool = False,
    ) -> ClientExchange:
        """
        See :class:`Upstream`.
        """
        if self._base:
            head = RequestHead(head.method, self._base + head.target, head.headers)
        data, chunked = frame_request(head, self._host, body, upgrade)
        exchange = ClientExchange(self, head, receiver, data, chunked, body)
        exchange.upgrade = upgrade
        self._exchanges.add(exchange)
        is_asked = body and self._wordless < MAX_WORDLESS
        if not self._idle or fresh:
            self.dial_for(exchange)
        elif not once or self._reactor.seconds() - self._idle[-1].idle_since <= self.limits.trusted_for:
            self._idle.pop().carry(exchange, reused=True)
        elif is_asked:
            self._idle.pop().ask(exchange)
        else:
            self.dial_for(exchange)
        return exchange

    def dial_for(self, exchange: ClientExchange) -> None:
        """
        Carry an exchange over a new connection.
        """
        began = self._reactor.seconds()
        dialling = Deferred.fromCoroutine(self._connect())
        dialling.addTimeout(self.limits.connect_timeout, self._reactor)
        exchange.dialling = dialling

        def connected(connection: ClientConnection) -> None:
            exchange.dialling = None
            self._way_takes = self._reactor.seconds() - began
            if exchange.over:
                connection.abandon()
            else:
                connection.carry(exchange, reused=False)

        def failed(failure: Failure) -> None:
            exchange.dialling = None
            if exchange.over:
                return
            by = "" if self._proxy is None else f" by proxy {parse_proxy(self._proxy).target}"
            if failure.check(UpstreamError):
                message = str(failure.value)
            elif failure.check(*NO_CONNECTION_IN_TIME):
                message = f"no connection{by} within {self.limits.connect_timeout:g} s"
            else:
                message = f"cannot connect{by}: {describe(failure)}"
            # Never before send() returned, even if the failure was there at once.
            local = failure.check(*NO_MEANS) is not None
            self._reactor.callLater(0, exchange.fail, message, local, failure.value)

        dialling.addCallbacks(connected, failed)

    async def _connect(self) -> ClientConnection:
        address, limits, generation = self._address, self.limits, self._generation
        creator = None if self._tls is None else self._tls.creator(address.host)
        factory = Build(lambda _: ClientConnection(self, limits.max_head_bytes, limits.dead_after))
        timeout = limits.connect_timeout
        protocol = await dial(self._reactor, address, factory, creator, self._proxy, timeout, self._endpoint)
        connection = cast(ClientConnection, protocol)
        connection.generation = generation
        await connection.when_ready()
        return connection

    def close_connections(self, reason: str) -> None:
        """
        See :class:`Upstream`.  Upgraded connections are cut too.
        """
        for connection in [*self._idle, *self.streams]:
            connection.abandon()
        for exchange in list(self._exchanges):
            if exchange.over:
                continue
            exchange.fail(reason)
            exchange.drop()
        self._end_sweep()

    def drop_idle(self) -> None:
        """
        Close the connections that carry nothing now.
        """
        for connection in list(self._idle):
            connection.close()

    def retire_connections(self) -> None:
        """
        See :class:`Upstream`; as after a change of certificates.
        """
        self._generation += 1
        self.drop_idle()

    # What exchanges and connections tell

    def await_word(self, exchange: ClientExchange) -> None:
        """
        An idle connection has been asked whether its server is still there.
        """
        seconds = max(self.limits.continue_timeout, WORD_MARGIN * self._way_takes)
        exchange.word = self._reactor.callLater(seconds, self._word_missed, exchange)

    def word_came(self) -> None:
        """
        It is.
        """
        self._has_word, self._wordless = True, 0

    def _word_missed(self, exchange: ClientExchange) -> None:
        """
        It is not, or says nothing of that kind: a new connection carries the request.  Those that were idle may be dead as well.
        """
        if not self._has_word:
            self._wordless += 1
        connection = exchange.connection
        exchange.forget_connection()
        if connection is not None:
            connection.desert()
        self.retire_connections()
        self.dial_for(exchange)

    def exchange_over(self, exchange: ClientExchange) -> None:
        """
        An exchange has ended.
        """
        self._exchanges.discard(exchange)

    def connection_idle(self, connection: ClientConnection) -> None:
        """
        A connection may carry the next exchange.  The one used last is used first.
        """
        if len(self._idle) >= self.limits.max_idle:
            connection.abandon()
            return
        if connection.generation != self._generation:
            connection.close()
            return
        connection.idle_since = self._reactor.seconds()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = self._reactor.callLater(self.limits.idle_timeout, self._close_idle)

    def connection_lost(self, connection: ClientConnection) -> None:
        """
        A connection is gone.
        """
        self.streams.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
            if not self._idle:
                self._end_sweep()

    def _end_sweep(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _close_idle(self) -> None:
        """
        Close the connections that have been idle for too long; the oldest stand first.
        """
        self._sweep = None
        horizon = self._reactor.seconds() - self.limits.idle_timeout
        while self._idle and self._idle[0].idle_since <= horizon:
            self._idle[0].close()
        if self._idle:
            left = self._idle[0].idle_since - horizon
            self._sweep = self._reactor.callLater(left, self._close_idle)
