"""
One connection to an HTTP/1.1 server, and the exchange that it carries.
"""

from __future__ import annotations

from typing import Protocol as Interface
from typing import cast

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.http.heads import END_TO_END, HOP_BY_HOP, serialise_fields, serialise_request
from yurt.http.interfaces import FlowControlled, Headers, RequestHead, ResponseHead, ResponseReceiver, UpstreamError
from yurt.http.parser import ResponseParser
from yurt.http.upgrade import TransportStream
from yurt.http.wire import Wire, allow_stall, is_tls, one_write, tune

RETRIED = frozenset((b"GET", b"HEAD"))
"""Methods sent once more when a connection that had been idle turns out to be dead."""

BODY_EXPECTED = frozenset((b"POST", b"PUT", b"PATCH"))
"""Methods that say ``Content-Length: 0`` when there is no body."""

_LOOKED_AT = HOP_BY_HOP | {b"host", b"content-length", b"expect"}


def frame_request(head: RequestHead, host: bytes, body: bool, upgrade: bool) -> tuple[bytes, bool]:
    """
    The head of a request as it goes to a server, and whether its body is to be chunked.

    ``Expect`` is dropped: the body is sent without waiting.
    """
    if body or upgrade or head.memo is None:
        return _frame(head, host, body, upgrade)
    framed: tuple[bytes, bool] | None = head.memo.get(host)
    if framed is None:
        framed = head.memo[host] = _frame(head, host, body, upgrade)
    return framed


def _frame(head: RequestHead, host: bytes, body: bool, upgrade: bool) -> tuple[bytes, bool]:
    fields: Headers = [(b"Host", host)]
    named: set[bytes] = set()
    chunked = body
    protocol = b""
    for field in head.headers:
        key = field[0].lower()
        if key not in _LOOKED_AT:
            fields.append(field)
        elif key == b"connection":
            named.update(token.strip() for token in field[1].lower().split(b","))
        elif key == b"content-length" and body:
            fields.append(field)
            chunked = False
        elif key == b"upgrade":
            protocol = field[1]
        elif key == b"te" and b"trailers" in field[1].lower():
            fields.append((b"TE", b"trailers"))
    named -= END_TO_END
    named.discard(b"te")
    if named:
        fields = [field for field in fields if field[0].lower() not in named]
    if upgrade:
        fields += [(b"Connection", b"Upgrade"), (b"Upgrade", protocol)]
    if chunked:
        fields.append((b"Transfer-Encoding", b"chunked"))
    elif not body and head.method in BODY_EXPECTED:
        fields.append((b"Content-Length", b"0"))
    return serialise_request(RequestHead(head.method, head.target, fields)), chunked


class Pool(Interface):
    """
    What a connection and an exchange need of the upstream that they belong to.
    """

    name: str
    streams: set[ClientConnection]

    def dial_for(self, exchange: ClientExchange) -> None: ...

    def exchange_over(self, exchange: ClientExchange) -> None: ...

    def connection_idle(self, connection: ClientConnection) -> None: ...

    def connection_lost(self, connection: ClientConnection) -> None: ...


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
        self, upstream: Pool, head: RequestHead, receiver: ResponseReceiver, data: bytes, chunked: bool, body: bool
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
        self.connection: ClientConnection | None = None
        self.dialling: Deferred[ClientConnection] | None = None
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
        elif self._reused and exchange.retry and not exchange.answered:
            exchange.connection = None
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
        self._exchange = exchange
        self._reused = reused
        exchange.connection = self
        exchange.sent = True
        self._parser.expect(exchange.method)
        if exchange.paused:
            self.wire.pauseProducing()
        self.wire.write(exchange.take_early())
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
        elif not exchange.body_sent:
            self.abandon()
        elif self._parser.reusable and not self._ended and not exchange.alone:
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


def describe(failure: Failure) -> str:
    """
    A failure in one line, for people.
    """
    value = failure.value
    if isinstance(value, (VerificationError, CertificateError)):
        return "TLS: its certificate is for another name"
    if isinstance(value, SSL.Error) and value.args and isinstance(value.args[0], list):
        return "TLS: " + "; ".join(entry[-1] for entry in value.args[0])
    if isinstance(value, ConnectionLost) and value.args:  # without the words that Twisted puts around it
        return " ".join(str(value.args[0]).split())
    return " ".join((str(value) or type(value).__name__).split())
