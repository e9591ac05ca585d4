"""
One connection to an HTTP/1.1 server, which carries one exchange at a time.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.http.client_exchange import ClientExchange
from yurt.http.client_roles import Pool
from yurt.http.failures import describe
from yurt.http.interfaces import ResponseHead
from yurt.http.response_parser import ResponseParser
from yurt.http.upgrade import TransportStream
from yurt.http.wire import Wire, allow_stall, is_tls, one_write, tune

CONTINUE = 100
EXPECTATION_FAILED = 417


@implementer(IHandshakeListener, IHalfCloseableProtocol, IPushProducer)
class ClientConnection(Protocol):
    """
    One connection to a server: shaking hands, idle, carrying one exchange, or upgraded.
    """

    wire: Wire

    def __init__(self, upstream: Pool, max_head_bytes: int, dead_after: float) -> None:
        self._upstream = upstream
        self._parser = ResponseParser(max_head_bytes)
        self._dead_after = dead_after
        self._exchange: ClientExchange | None = None
        self._stream: TransportStream | None = None
        self._reused = False
        self._ended = False
        self.full = False
        self.generation = 0
        self.idle_since = 0.0
        self._gone: Failure | None = None
        self._ready = False
        self._on_ready: Deferred[None] | None = None

    # What the transport calls

    def connectionMade(self) -> None:
        self.wire = cast(Wire, self.transport)
        tune(self.wire, dead_after=self._dead_after)
        self.wire.registerProducer(self, True)
        if not is_tls(self.wire):
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        """
        The way stands, and the server is the one it says it is.
        """
        self._ready = True
        waiting, self._on_ready = self._on_ready, None
        if waiting is not None:
            waiting.callback(None)

    def dataReceived(self, data: bytes) -> None:
        if self._stream is not None:
            self._stream.received(data)
            return
        exchange = self._exchange
        if exchange is None:
            self.abandon()  # what nobody asked for
            return
        with one_write:
            self._parser.feed(data)
            self._deliver(exchange)

    def readConnectionLost(self) -> None:
        self._ended = True
        if self._stream is not None:
            self._stream.read_ended()
            return
        exchange = self._exchange
        if exchange is not None and self._parser.end():
            self._deliver(exchange)
        if self._exchange is None:
            self.close()
        else:
            self.abandon()

    def writeConnectionLost(self) -> None:
        """
        Nothing to do: it was closed here.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = reason
        waiting, self._on_ready = self._on_ready, None
        if waiting is not None:
            waiting.errback(reason)
        self._upstream.connection_lost(self)
        if self._stream is not None:
            self._stream.lost()
        exchange = self._exchange
        if exchange is None:
            return
        if (self._ended or isinstance(reason.value, ConnectionDone)) and self._parser.end():
            self._deliver(exchange)
        elif exchange.word is not None or (self._reused and exchange.retry and not exchange.answered):
            exchange.forget_connection()
            self._upstream.dial_for(exchange)
        else:
            where = "in the middle of the answer" if exchange.answered else "before an answer came"
            why = "closed by the server" if self._ended or isinstance(reason.value, ConnectionDone) else describe(reason)
            self._exchange = None
            exchange.fail(f"connection lost {where}: {why}")

    def pauseProducing(self) -> None:
        """
        The transport is full; it says so at every write.
        """
        if self.full:
            return
        self.full = True
        if self._exchange is not None and self._exchange.source is not None:
            self._exchange.source.pause()

    def resumeProducing(self) -> None:
        """
        The transport has room again.
        """
        self.full = False
        if self._exchange is not None and self._exchange.source is not None:
            self._exchange.source.resume()

    def stopProducing(self) -> None:
        """
        The transport is going away; ``connectionLost`` follows.
        """

    # What the pool and the exchange call

    def when_ready(self) -> Deferred[None]:
        """
        Fires when all hand-shakes are done, fails when the connection is lost before.  Ask once.
        """
        if self._gone is not None:
            return fail(self._gone)
        if self._ready:
            return succeed(None)
        self._on_ready = Deferred(lambda _: self.abandon())
        return self._on_ready

    def carry(self, exchange: ClientExchange, reused: bool) -> None:
        """
        Send a request.
        """
        self._take(exchange, reused)
        self._send(exchange, exchange.take_early())

    def ask(self, exchange: ClientExchange) -> None:
        """
        Send the head of a request whose body follows when the server has said that it is there.
        """
        self._take(exchange, True)
        exchange.held = True
        self.wire.write(exchange.head_that_waits)
        one_write.message_ended()
        self._upstream.await_word(exchange)

    def _take(self, exchange: ClientExchange, reused: bool) -> None:
        self._exchange = exchange
        self._reused = reused
        exchange.connection = self
        self._parser.expect(exchange.method)
        if exchange.paused:
            self.wire.pauseProducing()

    def _send(self, exchange: ClientExchange, data: bytes) -> None:
        """
        From now on the server may carry it out.
        """
        exchange.sent = True
        self.wire.write(data)
        if exchange.body_sent:
            one_write.message_ended()
        if exchange.source is not None and not self.full:
            exchange.source.resume()

    def abandon(self) -> None:
        """
        Close at once.
        """
        self._upstream.connection_lost(self)
        self._on_ready = None
        if self._exchange is not None and self._exchange.over:
            self._exchange = None
        if self._gone is None and self.transport is not None:
            self.wire.abortConnection()

    def desert(self) -> None:
        """
        Close at once; another connection carries the request.
        """
        self._exchange = None
        self.abandon()

    def close(self) -> None:
        """
        Close politely; nothing is in flight.
        """
        self._upstream.connection_lost(self)
        if self._gone is None:
            self.wire.unregisterProducer()
            self.wire.loseConnection()

    # The response

    def _deliver(self, exchange: ClientExchange) -> None:
        """
        Tell the receiver everything that the last read brought.
        """
        if exchange.word is not None and not self._is_answer(exchange):
            return
        exchange.answered = True
        parser = self._parser
        receiver = exchange.receiver
        if parser.interims:
            interims, parser.interims = parser.interims, []
            for interim in interims:
                if not exchange.over:
                    receiver.interim_received(interim)
        head = parser.head
        if head is not None and not exchange.over:
            if head.status == 101:
                self._upgraded(exchange, head)
                return
            parser.head = None
            receiver.head_received(head)
        chunks = parser.chunks
        if chunks:
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
            if not exchange.over:
                receiver.data_received(data)
        if exchange.over:
            return
        if parser.complete:
            self._complete(exchange)
        elif parser.error is not None:
            self._exchange = None
            self.abandon()
            exchange.fail(f"what it answered is no HTTP: {parser.error}")

    def _is_answer(self, exchange: ClientExchange) -> bool:
        """
        Whether what came from a server that was asked is more than its word.
        """
        parser = self._parser
        if parser.head is not None and parser.head.status == EXPECTATION_FAILED:
            exchange.forget_connection()
            self.desert()
            self._upstream.dial_for(exchange)
            return False
        others = [interim for interim in parser.interims if interim.status != CONTINUE]
        if len(others) < len(parser.interims):
            parser.interims = others
            self._upstream.word_came()
            exchange.await_no_word()
            if parser.head is None:
                exchange.held = False
                self._send(exchange, exchange.take_body())
        elif parser.head is not None:
            exchange.await_no_word()
        return bool(others) or parser.head is not None or parser.error is not None

    def _complete(self, exchange: ClientExchange) -> None:
        """
        The response is whole: keep the connection if it can be kept.
        """
        self._exchange = None
        exchange.over = True
        exchange.source = None
        exchange.connection = None
        upstream = self._upstream
        upstream.exchange_over(exchange)
        if self._gone is not None:
            pass
        elif exchange.held or not exchange.body_sent:
            self.abandon()
        elif self._parser.reusable and not (self._ended or exchange.alone or exchange.upgrade):
            # API servers close without a word when they have passed on that an upgrade is refused.
            if exchange.paused:
                self.wire.resumeProducing()
            upstream.connection_idle(self)
        else:
            self.close()
        exchange.receiver.response_finished(self._parser.trailers)

    def _upgraded(self, exchange: ClientExchange, head: ResponseHead) -> None:
        self._exchange = None
        if not exchange.upgrade:
            self.abandon()
            exchange.fail("it switched protocols, which nobody asked for")
            return
        exchange.over = True
        exchange.connection = None
        self._upstream.exchange_over(exchange)
        self._upstream.streams.add(self)
        allow_stall(self.wire)
        self._stream = TransportStream(self.wire, self._parser.rest, self._ended, held=exchange.paused)
        exchange.receiver.upgraded(head, self._stream)
