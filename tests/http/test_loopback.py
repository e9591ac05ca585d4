"""
Client, proxy and server over real sockets: back-pressure, half-close and hang-ups from end to end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests import certs
from tests.http.memory import Application, Recorder, get
from yurt.http.client import HTTPUpstream
from yurt.http.fetch import fetch
from yurt.http.interfaces import ByteStream, Exchange, FlowControlled, Headers, IncomingRequest, ResponseHead, UpstreamError
from yurt.http.limits import ServerLimits
from yurt.http.server import HTTPServerFactory
from yurt.http.server_connection import ServerConnection
from yurt.http.upgrade import join
from yurt.http.wire import unsent
from yurt.tls import ClientTLS, Credentials, ServerTLS

reactor: Any = _reactor

TOTAL = 32 * 1024 * 1024
PIECE = bytes(64 * 1024)
LARGE = bytes(16 * 1024 * 1024)
"""More than the kernel holds for a reader that has stopped."""


class Relay:
    """
    Passes a response on, as a proxy does.
    """

    def __init__(self, request: IncomingRequest) -> None:
        self.request = request

    def interim_received(self, head: ResponseHead) -> None:
        self.request.interim(head)

    def head_received(self, head: ResponseHead) -> None:
        self.request.start(head)

    def data_received(self, data: bytes) -> None:
        self.request.write(data)

    def response_finished(self, trailers: Headers) -> None:
        self.request.finish(trailers)

    def response_failed(self, error: UpstreamError) -> None:
        self.request.abort()

    def upgraded(self, head: ResponseHead, stream: ByteStream) -> None:
        join(self.request.accept_upgrade(head), stream)


class BodyRelay:
    """
    Passes a request body on.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def body_received(self, data: bytes) -> None:
        self.exchange.write(data)

    def body_finished(self, trailers: Headers) -> None:
        self.exchange.finish(trailers)


class Flood:
    """
    Sends a large response as fast as it may.
    """

    def __init__(self, request: IncomingRequest) -> None:
        self.request = request
        self.sent = 0
        self.running = True
        self.lost = False
        request.when_lost(self.stop)
        request.start(ResponseHead(200, b"OK", [(b"Content-Length", b"%d" % TOTAL)]))
        request.produce_from(self)
        self.go()

    def stop(self) -> None:
        self.lost = True
        self.running = False

    def pause(self) -> None:
        self.running = False

    def resume(self) -> None:
        if not (self.running or self.lost):
            self.running = True
            self.go()

    def go(self) -> None:
        """
        One piece a turn.
        """
        if not self.running or self.sent == TOTAL:
            return
        self.sent += len(PIECE)
        self.request.write(PIECE)
        if self.sent == TOTAL:
            self.request.finish()
        else:
            reactor.callLater(0, self.go)


class Meter:
    """
    Counts a body.
    """

    def __init__(self) -> None:
        self.size = 0
        self.finished = False

    def body_received(self, data: bytes) -> None:
        self.size += len(data)

    def body_finished(self, trailers: Headers) -> None:
        self.finished = True


class Raw(Protocol):
    """
    A client that sees bytes.
    """

    def __init__(self) -> None:
        self.data = b""
        self.size = 0
        self.lost: Deferred[None] = Deferred()
        self.is_lost = False

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)
        if len(self.data) < 100_000:
            self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True
        self.lost.callback(None)

    @property
    def wire(self) -> Any:
        """
        The transport.
        """
        return self.transport


class LoopbackTests(TestCase):
    """
    A client, a proxy on plain TCP, and a server behind it over TLS.
    """

    timeout = 180

    async def setUp(self) -> None:  # type: ignore[override]
        ca = certs.make_ca()
        identity = certs.issue(ca, "server", ips=["127.0.0.1"])
        self.floods: list[Flood] = []
        self.uploads: list[tuple[Meter, FlowControlled]] = []
        server = HTTPServerFactory(reactor, Application(self.answer))
        tls = ServerTLS(Credentials(cert_data=identity.cert_pem, key_data=identity.key_pem))
        port = await self.listen(TLSMemoryBIOFactory(tls, False, server))  # type: ignore[arg-type]
        self.tls, self.client_tls = tls, ClientTLS(Credentials(ca_data=ca.cert_pem))
        self.upstream = HTTPUpstream(reactor, f"https://127.0.0.1:{port}", self.client_tls)
        proxy = HTTPServerFactory(reactor, Application(self.relay))
        self.port = await self.listen(proxy)
        self.addCleanup(server.drain, 1)
        self.addCleanup(self.upstream.close_connections, "the test is over")
        self.addCleanup(proxy.drain, 0.1)

    async def listen(self, factory: Factory) -> int:
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        address: Any = port.getHost()
        return int(address.port)

    def answer(self, request: IncomingRequest) -> None:
        """
        The server: floods, takes uploads, echoes upgraded bytes, or says hello.
        """
        if request.head.target == b"/flood":
            self.floods.append(Flood(request))
        elif request.head.target == b"/large":
            request.respond(200, [], LARGE)
        elif request.has_body:
            meter = Meter()
            source = request.read_body(meter)
            source.pause()
            self.uploads.append((meter, source))
        elif request.upgrade:
            fields = [(b"Connection", b"Upgrade"), (b"Upgrade", b"echo")]
            stream = request.accept_upgrade(ResponseHead(101, b"Switching Protocols", fields))
            taker = Recorder()
            taker.bytes_received = stream.write  # type: ignore[method-assign]
            taker.bytes_finished = stream.finish  # type: ignore[method-assign]
            stream.attach(taker, None)
        else:
            request.respond(200, [], b"hello")

    def relay(self, request: IncomingRequest) -> None:
        """
        The proxy.
        """
        exchange = self.upstream.send(request.head, Relay(request), body=request.has_body, upgrade=request.upgrade)
        request.produce_from(exchange)
        request.when_lost(exchange.cancel)
        if request.has_body:
            exchange.produce_from(request.read_body(BodyRelay(exchange)))

    async def client(self) -> Raw:
        protocol: Raw = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self.port), Raw())
        self.addCleanup(protocol.wire.abortConnection)
        return protocol

    async def until(self, condition: Callable[[], object]) -> None:
        """
        Wait for a condition; the time limit of the test bounds it.
        """
        while not condition():
            await deferLater(reactor, 0.005)

    async def test_stalled_client(self) -> None:
        """
        A client that stops reading stops the server of its own response only, which goes on when it reads again.
        """
        stalled = await self.client()
        stalled.wire.write(get(b"/flood"))
        await self.until(lambda: stalled.size)
        stalled.wire.pauseProducing()
        flood = self.floods[0]
        await self.until(lambda: not flood.running)
        self.assertLess(flood.sent, TOTAL)
        other = await self.client()
        other.wire.write(get())
        await self.until(lambda: other.data.endswith(b"hello"))
        self.assertFalse(flood.running)
        stalled.wire.resumeProducing()
        await self.until(lambda: stalled.size > TOTAL)
        self.assertEqual(flood.sent, TOTAL)

    async def test_unread_answers(self) -> None:
        """
        What waits for clients that do not read is bounded for all together, by TLS, too: who has left its answer unread for
        longest is cut, and those that read get theirs whole.
        """
        most = 3 * len(LARGE)
        for tls in (None, self.tls):
            server = HTTPServerFactory(reactor, Application(self.answer), None, ServerLimits(max_unread_bytes=most))
            self.addCleanup(server.drain, 0.1)
            port = await self.listen(TLSMemoryBIOFactory(tls, False, server) if tls else server)  # type: ignore[arg-type]
            endpoint: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
            endpoint = wrapClientTLS(self.client_tls.creator("127.0.0.1"), endpoint) if tls else endpoint
            clients: list[Raw] = []
            accepted: set[ServerConnection] = set()
            for number in range(8):
                client: Raw = await connectProtocol(endpoint, Raw())
                clients.append(client)
                self.addCleanup(client.wire.abortConnection)
                client.wire.write(get(b"/large"))
                await self.until(lambda client=client: client.size)  # type: ignore[misc]
                client.wire.pauseProducing()
                accepted |= server.connections
                waiting = [unsent(one.wire) for one in server.connections]
                self.assertLessEqual(sum(waiting), most + len(LARGE), number)
            self.assertLess(len(server.connections), len(clients))
            held = sum(unsent(one.wire) for one in accepted)
            self.assertLessEqual(held, most + len(LARGE), "nothing waits for the garbage collector")
            clients[-1].wire.resumeProducing()
            await self.until(lambda: clients[-1].size > len(LARGE))  # noqa: B023

    async def test_stalled_server(self) -> None:
        """
        A server that does not read an upload stops its client, and nothing is lost when it does.
        """
        client = await self.client()
        client.wire.write(b"PUT /up HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % TOTAL)
        sent = 0

        class Source:
            paused = False

            def pauseProducing(self) -> None:
                self.paused = True

            def resumeProducing(self) -> None:
                self.paused = False

            def stopProducing(self) -> None:
                self.paused = True

        source = Source()
        client.wire.registerProducer(source, True)
        still = 0
        while still < 50:
            still = still + 1 if source.paused else 0
            if not source.paused and sent < TOTAL:
                client.wire.write(PIECE)
                sent += len(PIECE)
            await deferLater(reactor, 0)
        self.assertLess(sent, TOTAL)
        meter, held = self.uploads[0]
        held.resume()
        while sent < TOTAL:
            if not source.paused:
                client.wire.write(PIECE)
                sent += len(PIECE)
            await deferLater(reactor, 0)
        client.wire.unregisterProducer()
        await self.until(lambda: meter.finished)
        self.assertEqual(meter.size, TOTAL)

    async def test_half_close(self) -> None:
        """
        A client that ends its direction after the request gets the answer.
        """
        client = await self.client()
        client.wire.write(get())
        client.wire.loseWriteConnection()
        await client.lost
        self.assertTrue(client.data.endswith(b"hello"))

    async def test_hang_up(self) -> None:
        """
        A client that leaves ends the response at its source.
        """
        client = await self.client()
        client.wire.write(get(b"/flood"))
        await self.until(lambda: client.size)
        client.wire.abortConnection()
        await self.until(lambda: self.floods[0].lost)

    async def test_upgrade(self) -> None:
        """
        An upgraded connection carries bytes both ways, early ones too, and ends when its client ends it.
        """
        client = await self.client()
        client.wire.write(get(b"/exec", b"Connection: Upgrade", b"Upgrade: echo") + b"early ")
        client.wire.write(b"late")
        await self.until(lambda: client.data.endswith(b"early late"))
        self.assertIn(b"HTTP/1.1 101 Switching Protocols\r\n", client.data)
        client.wire.loseWriteConnection()
        await client.lost

    async def test_client_certificate(self) -> None:
        """
        An application behind TLS sees the certificate that its client showed, over all requests of a connection; none where there
        was none, and none on plain TCP.
        """
        ca = certs.make_ca()
        names: list[str | None] = []

        def note(request: IncomingRequest) -> None:
            shown = request.client_certificate
            names.append(None if shown is None else shown.subject.rfc4514_string())
            request.respond(200, [], b"seen")

        server, node = certs.issue(ca, "server", ips=["127.0.0.1"]), certs.issue(ca, "edge-1", ["nodes"])
        tls = ServerTLS(Credentials(ca_data=ca.cert_pem, cert_data=server.cert_pem, key_data=server.key_pem))
        factory = HTTPServerFactory(reactor, Application(note))
        port = await self.listen(TLSMemoryBIOFactory(tls, False, factory))  # type: ignore[arg-type]
        plain_port = await self.listen(factory)
        self.addCleanup(factory.drain, 1)
        named = Credentials(ca_data=ca.cert_pem, cert_data=node.cert_pem, key_data=node.key_pem)
        for url, credentials in (
            (f"https://127.0.0.1:{port}", named),
            (f"https://127.0.0.1:{port}", Credentials(ca_data=ca.cert_pem)),
            (f"http://127.0.0.1:{plain_port}", named),
        ):
            upstream = HTTPUpstream(reactor, url, ClientTLS(credentials))
            self.addCleanup(upstream.close_connections, "the test is over")
            for _ in range(2):
                await fetch(reactor, upstream, b"GET", b"/", [], timeout=10)
        self.assertEqual(names, ["CN=edge-1,O=nodes"] * 2 + [None] * 4)

    async def test_dialled_name(self) -> None:
        """
        An application behind TLS is told the name that its client dialled, and none of an address, or on plain TCP.
        """
        ca = certs.make_ca()
        names: list[str] = []

        def note(request: IncomingRequest) -> None:
            names.append(request.server_name)
            request.respond(200, [], b"seen")

        server = certs.issue(ca, "server", dns=["localhost"], ips=["127.0.0.1"])
        tls = ServerTLS(Credentials(ca_data=ca.cert_pem, cert_data=server.cert_pem, key_data=server.key_pem))
        factory = HTTPServerFactory(reactor, Application(note))
        port = await self.listen(TLSMemoryBIOFactory(tls, False, factory))  # type: ignore[arg-type]
        plain_port = await self.listen(factory)
        self.addCleanup(factory.drain, 1)
        for url in (f"https://localhost:{port}", f"https://127.0.0.1:{port}", f"http://localhost:{plain_port}"):
            upstream = HTTPUpstream(reactor, url, ClientTLS(Credentials(ca_data=ca.cert_pem)))
            self.addCleanup(upstream.close_connections, "the test is over")
            await fetch(reactor, upstream, b"GET", b"/", [], timeout=10)
        self.assertEqual(names, ["localhost", "", ""])

    async def test_refused_request_is_read(self) -> None:
        """
        A malformed request with much behind it still gets its 400.
        """
        client = await self.client()
        client.wire.write(b"BAD\r\n\r\n" + bytes(500_000))
        await self.until(lambda: b"HTTP/1.1 400 " in client.data)
        client.wire.loseConnection()
