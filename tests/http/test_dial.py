"""
Ways to a server: straight, through a proxy, with TLS, on real sockets on loopback.
"""

from __future__ import annotations

import base64
import socket
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone, DNSLookupError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests import certs
from tests.http.memory import Application, hello
from tests.http.resolver import SlowResolver
from yurt.http.address import parse_address
from yurt.http.client import HTTPUpstream
from yurt.http.dial import Build, ConnectEndpoint, adopt, connect_at_once, tcp_endpoint, tls_factory
from yurt.http.fetch import fetch
from yurt.http.interfaces import UpstreamError
from yurt.http.limits import ClientLimits
from yurt.http.server import HTTPServerFactory
from yurt.tls import ClientTLS, Credentials, ServerTLS

reactor: Any = _reactor


class Pipe(Protocol):
    """
    Bytes to a peer.
    """

    peer: Any = None

    def dataReceived(self, data: bytes) -> None:
        if self.peer is not None:
            self.peer.transport.write(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self.peer is not None:
            self.peer.transport.loseConnection()


class Proxy(Pipe):
    """
    A small CONNECT proxy: notes the request, then answers with what its factory says.
    """

    head = b""

    def dataReceived(self, data: bytes) -> None:
        if self.peer is not None:
            super().dataReceived(data)
            return
        self.head += data
        if not self.head.endswith(b"\r\n\r\n"):
            return
        factory: Any = self.factory
        factory.heads.append(self.head)
        assert self.transport is not None
        if factory.answer is not None:
            self.transport.write(factory.answer)
            return
        back = Pipe()
        back.peer = self

        def connected(_: object) -> None:
            self.peer = back
            assert self.transport is not None
            self.transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

        port = int(self.head.split()[1].rpartition(b":")[2])
        connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), back).addCallback(connected)


class FactoryTests(SynchronousTestCase):
    """
    TLS around a factory.
    """

    def test_unwanted(self) -> None:
        """
        Where the factory beneath takes no further connection there is no TLS either, and the listener closes it.
        """
        identity = certs.issue(certs.make_ca(), "server")
        tls = ServerTLS(Credentials(cert_data=identity.cert_pem, key_data=identity.key_pem))
        nobody: Any = tls_factory(tls, False, cast(IProtocolFactory, Build(lambda _: cast(Any, None))))
        self.assertIsNone(nobody.buildProtocol(None))


class LoopbackTests(TestCase):
    """
    Real connections.
    """

    def setUp(self) -> None:
        self.ca = certs.make_ca()
        self.server_identity = certs.issue(self.ca, "server", dns=["localhost"], ips=["127.0.0.1"])
        self.tls = ClientTLS(Credentials(ca_data=self.ca.cert_pem))
        self.upstreams: list[HTTPUpstream] = []
        self.factories: list[HTTPServerFactory] = []

    async def listen(self, factory: Factory) -> int:
        """
        Listen until the test ends.
        """
        port: IListeningPort = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        address: Any = port.getHost()
        return int(address.port)

    async def serve(self, *, tls: bool) -> int:
        """
        An HTTP server that says hello.
        """
        factory = HTTPServerFactory(reactor, Application(hello))
        self.addCleanup(factory.drain, 1)
        if not tls:
            return await self.listen(factory)
        server = ServerTLS(Credentials(cert_data=self.server_identity.cert_pem, key_data=self.server_identity.key_pem))
        return await self.listen(TLSMemoryBIOFactory(server, False, factory))  # type: ignore[arg-type]

    def upstream(self, url: str, proxy: str | None = None, limits: ClientLimits = ClientLimits()) -> HTTPUpstream:
        """
        An upstream that is closed when the test ends.
        """
        upstream = HTTPUpstream(reactor, url, self.tls, proxy, limits)
        self.addCleanup(upstream.close_connections, "the test is over")
        return upstream

    async def failure(self, upstream: HTTPUpstream) -> UpstreamError:
        """
        The error that a request ends in.
        """
        try:
            await fetch(reactor, upstream, b"GET", b"/x", [], timeout=10)
        except UpstreamError as error:
            return error
        raise AssertionError("an answer came")

    async def check(self, upstream: HTTPUpstream) -> None:
        for _ in range(2):
            response = await fetch(reactor, upstream, b"GET", b"/x", [], timeout=10)
            self.assertEqual((response.status, response.body), (200, b"hello"))

    async def test_plain(self) -> None:
        """
        Straight over TCP.
        """
        await self.check(self.upstream(f"http://127.0.0.1:{await self.serve(tls=False)}"))

    async def test_tls(self) -> None:
        """
        Over TLS, by name and by address.
        """
        port = await self.serve(tls=True)
        await self.check(self.upstream(f"https://127.0.0.1:{port}"))
        await self.check(self.upstream(f"https://localhost:{port}"))

    async def proxy(self, answer: bytes | None = None) -> tuple[Any, int]:
        factory: Any = Factory.forProtocol(Proxy)
        factory.heads = []
        factory.answer = answer
        return factory, await self.listen(factory)

    async def test_proxy(self) -> None:
        """
        TLS through an HTTP proxy, which sees the target and its own credentials only.
        """
        factory, proxy = await self.proxy()
        port = await self.serve(tls=True)
        upstream = self.upstream(f"https://localhost:{port}", f"http://user:p%40ss@127.0.0.1:{proxy}")
        await self.check(upstream)
        self.assertEqual(len(factory.heads), 1)
        self.assertTrue(factory.heads[0].startswith(b"CONNECT localhost:%d HTTP/1.1\r\n" % port))
        self.assertIn(b"Proxy-Authorization: Basic " + base64.b64encode(b"user:p@ss"), factory.heads[0])

    async def test_proxy_refuses(self) -> None:
        """
        Its refusal is the reason in the error, without the credentials.
        """
        for answer, reason in (
            (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "answered 407 Proxy Authentication"),
            (b"\x00\x01\x02\x03", "no HTTP"),
        ):
            _, proxy = await self.proxy(answer)
            error = await self.failure(self.upstream("https://localhost:1", f"http://user:secret@127.0.0.1:{proxy}"))
            self.assertIn(reason, str(error))
            self.assertIn("when asked for localhost:1", str(error))
            self.assertNotIn("secret", str(error))
            self.assertFalse(error.sent)

    async def test_proxy_silent(self) -> None:
        """
        A proxy that says nothing costs the connect timeout, no more.
        """
        _, proxy = await self.proxy(b"")
        upstream = self.upstream("https://localhost:1", f"http://127.0.0.1:{proxy}", ClientLimits(connect_timeout=0.1))
        error = await self.failure(upstream)
        self.assertIn(f"no connection by proxy 127.0.0.1:{proxy} within 0.1 s", str(error))
        self.assertFalse(error.sent)

    async def test_proxy_dead(self) -> None:
        """
        A proxy that refuses connections is named, so that nobody looks for the fault at the server.
        """
        error = await self.failure(self.upstream("https://localhost:1", "http://user:secret@127.0.0.1:1"))
        self.assertIn("https://localhost:1: cannot connect by proxy 127.0.0.1:1: ", str(error))
        self.assertNotIn("secret", str(error))
        self.assertFalse(error.sent)

    async def test_server_silent_in_handshake(self) -> None:
        """
        So does a server that accepts and never shakes hands.
        """
        port = await self.listen(Factory.forProtocol(Protocol))
        error = await self.failure(self.upstream(f"https://127.0.0.1:{port}", limits=ClientLimits(connect_timeout=0.1)))
        self.assertIn("no connection within 0.1 s", str(error))

    async def test_refused(self) -> None:
        """
        A refused connection is an error that names the server, and nothing was sent.
        """
        error = await self.failure(self.upstream("http://127.0.0.1:1"))
        self.assertIn("http://127.0.0.1:1: cannot connect", str(error))
        self.assertFalse(error.sent)

    async def test_reset_in_handshake(self) -> None:
        """
        So is a server that hangs up in the hand-shake.
        """

        class Rude(Protocol):
            def dataReceived(self, data: bytes) -> None:
                transport: Any = self.transport
                transport.abortConnection()

        port = await self.listen(Factory.forProtocol(Rude))
        self.assertFalse((await self.failure(self.upstream(f"https://127.0.0.1:{port}"))).sent)

    async def test_cancelled_dial(self) -> None:
        """
        A cancelled dial leaves nothing behind.
        """
        port = await self.listen(Factory.forProtocol(Protocol))
        upstream = self.upstream(f"https://127.0.0.1:{port}")
        fetched = fetch(reactor, upstream, b"GET", b"/", [], timeout=10)
        pause: Deferred[None] = Deferred()
        reactor.callLater(0, pause.callback, None)
        await pause
        fetched.addErrback(lambda failure: None)
        fetched.cancel()
        self.assertEqual(upstream.open_connections, 0)

    def test_addresses(self) -> None:
        """
        Addresses know how Host and CONNECT write them.
        """
        self.assertEqual(parse_address("https://[fd00::1]:6443").authority, "[fd00::1]:6443")
        self.assertEqual(parse_address("https://a").authority, "a")
        self.assertEqual(parse_address("https://a").target, "a:443")
        self.assertEqual(parse_address("http://a:443").authority, "a:443")


class NameTests(TestCase):
    """
    Names that are looked up.
    """

    async def test_underscore(self) -> None:
        """
        A name with an underscore is one: hosts files and containers have such names.
        """
        port: IListeningPort = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Protocol))
        self.addCleanup(port.stopListening)
        resolver = SlowResolver()
        before = reactor.installNameResolver(resolver)
        self.addCleanup(reactor.installNameResolver, before)
        address: Any = port.getHost()
        connecting = tcp_endpoint(reactor, "my_proxy", address.port, 5.0).connect(cast(Any, Build(lambda _: Protocol())))
        name, receiver = resolver.asked.pop()
        receiver.addressResolved(address)
        receiver.resolutionComplete()
        protocol: Any = await connecting
        self.assertEqual(name, "my_proxy")
        protocol.transport.loseConnection()

    def test_no_name(self) -> None:
        """
        What cannot be looked up is an unknown name.
        """
        for host in ("a..b", "x" * 64):
            connecting = tcp_endpoint(reactor, host, 1, 5.0).connect(cast(Any, Build(lambda _: Protocol())))
            self.assertIn(host, str(self.failureResultOf(connecting, DNSLookupError)))

    async def test_foreign_letters(self) -> None:
        """
        A proxy is asked for a name with letters beyond ASCII as DNS spells it (RFC 5891).
        """
        proxy = SimpleNamespace(heads=[], answer=b"HTTP/1.1 403 Forbidden\r\n\r\n")

        def build(_: object) -> Protocol:
            connection = Proxy()
            connection.factory = cast(Any, proxy)
            return connection

        port: IListeningPort = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(cast(Any, Build(build)))
        self.addCleanup(port.stopListening)
        address: Any = port.getHost()
        way = ConnectEndpoint(reactor, f"http://127.0.0.1:{address.port}", "m\xfcnchen.example:443", 5.0)
        await self.assertFailure(way.connect(cast(Any, Build(lambda _: Protocol()))), UpstreamError)
        self.assertTrue(proxy.heads[0].startswith(b"CONNECT xn--mnchen-3ya.example:443 HTTP/1.1\r\n"))


class AtOnceTests(SynchronousTestCase):
    """
    Tests of :func:`connect_at_once` and :func:`adopt`.
    """

    def connect(self, port: int, host: str = "127.0.0.1") -> Protocol | None:
        """
        What is connected when the call is over.
        """
        handle = connect_at_once(host, port)
        if handle is None:
            return None
        protocol = Protocol()
        adopt(reactor, handle, host, port, protocol, at_once=1)
        self.assertTrue(protocol.connected)
        self.addCleanup(cast(Any, protocol.transport).connectionLost, Failure(ConnectionDone()))
        return protocol

    def test_listening(self) -> None:
        """
        A port that listens is connected without a turn of the reactor, by IPv6, too.
        """
        for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
            with socket.create_server((host, 0), family=family) as listening:
                port = listening.getsockname()[1]
                protocol = self.connect(port, host)
                assert protocol is not None
                peer = cast(Any, protocol.transport).getPeer()
                self.assertEqual((peer.host, peer.port), (host, port))
                accepted, _ = listening.accept()
                accepted.close()

    def test_refused(self) -> None:
        """
        What is refused is left to others, and so is a port whose queue of connections is full.
        """
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
            port = listening.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)):
                self.assertIsNone(self.connect(port))
        self.assertIsNone(self.connect(port))
