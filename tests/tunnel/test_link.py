"""
Tests of :mod:`yurt.tunnel.link`: both ends over TLS on loopback.
"""

from __future__ import annotations

import socket
import ssl
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Client
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

import yurt.tunnel.link as link_module
from tests import certs
from tests.tunnel.links import AUTHORITY, NAME, NODE, LinkCase, Said, client_tls, reactor, server_tls, until
from yurt.http.dial import Build
from yurt.mux.connection import MuxConnection, MuxLimits
from yurt.tls import TLS1_2, TLS1_3, ClientTLS, Credentials, ServerTLS, peer_certificate
from yurt.tunnel.connect import ConnectRefused
from yurt.tunnel.hello import AgentHello, Refusal, ServerHello
from yurt.tunnel.link import HELLO_TIMEOUT, AcceptingLink, LinkError, LinkInfo, close_link, dial_link
from yurt.tunnel.opening import StreamEndpoint
from yurt.tunnel.records import LinkTransport


class Case(LinkCase):
    """
    One dialling side.
    """

    def setUp(self) -> None:
        self.lost: list[str] = []
        self.streams: list[Any] = []

    def make(self, _: ServerHello) -> MuxConnection:
        """
        The dialling side's mux.
        """
        return MuxConnection(reactor, client=True, accept=self.streams.append, lost=lambda why: self.lost.append(str(why)))

    async def dial(self, port: int, tls: ClientTLS | None = None, host: str = NAME, **how: Any) -> LinkInfo:
        """
        A link, that is gone after the test.
        """
        how = {"address": "127.0.0.1", **how}
        info = await dial_link(reactor, host, port, tls or client_tls(), AgentHello(f"{host}:{port}"), make=self.make, **how)
        self.addCleanup(lambda: info.mux.abort("the test is over"))
        return info

    async def refused(self, port: int, tls: ClientTLS | None = None, host: str = NAME, **how: Any) -> LinkError:
        """
        Why there is no link.
        """
        try:
            await self.dial(port, tls, host, **how)
        except LinkError as error:
            self.assertNotIn("\n", str(error))
            self.assertIn(f"{host}:{port}", str(error))
            return error
        self.fail("there is a link")


class DiallingTests(Case):
    """
    Tests of links that come about, and of those that do not.
    """

    async def test_link(self) -> None:
        """
        The server learns the node from the certificate, the agent learns the server's id; streams can be opened at once.
        """
        server = self.serve("id-1")
        info = await self.dial(server.port)
        self.assertEqual((info.server_id, info.features), ("id-1", frozenset({"drain"})))
        self.assertTrue(info.server.startswith("yurt-tunnel-server/"))
        self.assertEqual(server.nodes, ["edge-1"])
        self.assertEqual(server.hellos[0].addresses, ("127.0.0.1",))
        dialling = StreamEndpoint(server.mux, "a", 1, reactor=reactor).connect(Build(lambda _: Said()))
        await until(lambda: self.streams)
        self.streams[0].abortConnection()
        await self.assertFailure(dialling, ConnectRefused)

    async def test_both_certificates(self) -> None:
        """
        TLS 1.3 is spoken, and each side has verified the other one's certificate.
        """
        server = self.serve()
        info = await self.dial(server.port)
        for transport, name in ((info.mux.transport, "tunnel-server"), (server.mux.transport, "edge-1")):
            certificate = peer_certificate(transport)
            assert certificate is not None
            self.assertIn(name, certificate.subject.rfc4514_string())
            handle: SSL.Connection = transport.getHandle()  # type: ignore[union-attr]
            self.assertEqual(handle.get_protocol_version_name(), "TLSv1.3")

    async def test_name_looked_up(self) -> None:
        """
        Without an address the name itself is dialled.
        """
        server = self.serve()
        info = await self.dial(server.port, host="localhost", address=None)
        self.assertEqual(info.server_id, "server-1")

    async def test_whole_name(self) -> None:
        """
        A name with a dot behind it, which no search domain is to be added to, is the same name to certificates.
        """
        server = self.serve()
        info = await self.dial(server.port, host=f"{NAME}.")
        self.assertEqual(info.server_id, "server-1")

    async def test_close(self) -> None:
        """
        A link is closed in order, and both sides hear of it.
        """
        server = self.serve()
        info = await self.dial(server.port)
        close_link(info.mux)
        await until(lambda: self.lost and server.lost)
        self.assertEqual(server.muxes, [])

    async def test_other_name(self) -> None:
        """
        A server whose certificate is for another name is refused.
        """
        error = await self.refused(self.serve().port, host="other.test")
        self.assertEqual((error.word, error.answered), ("tls", True))
        self.assertIn("another name", str(error))

    async def test_other_authority(self) -> None:
        """
        So is one of another CA, and an agent of another CA is refused by the server; neither gets a hello.
        """
        server = self.serve()
        other = certs.make_ca("other")
        stranger = certs.issue(other, "system:node:edge-1")
        misled = Credentials(ca_data=other.cert_pem, cert_data=NODE.cert_pem, key_data=NODE.key_pem)
        for tls, why in (
            (ClientTLS(misled), "verify failed"),
            (client_tls(stranger), "unknown ca: the server does not take this side's certificate"),
            (ClientTLS(Credentials(ca_data=AUTHORITY.cert_pem)), "certificate required: the server wants a certificate"),
        ):
            error = await self.refused(server.port, tls)
            self.assertEqual((error.word, error.answered), ("tls", True), str(error))
            self.assertIn(why, str(error))
        self.assertEqual(server.hellos, [])

    async def test_old_versions(self) -> None:
        """
        A server that speaks nothing newer than TLS 1.2 is refused.
        """
        tls = server_tls(minimum=TLS1_2)
        tls._source.context.set_max_proto_version(SSL.TLS1_2_VERSION)
        error = await self.refused(self.serve(tls=tls).port)
        self.assertEqual(error.word, "tls")

    async def test_no_certificate_yet(self) -> None:
        """
        Of a server that waits for its certificate the agent hears no more than an alert, and says what that may mean.
        """
        bare = ServerTLS(Credentials(ca_data=AUTHORITY.cert_pem), require_client_certificate=True, minimum=TLS1_3)
        error = await self.refused(self.serve(tls=bare).port)
        self.assertEqual((error.word, error.answered), ("tls", True))
        self.assertIn("has no certificate to show yet; its /v1/readyz tells", str(error))

    async def test_refusal(self) -> None:
        """
        A server's refusal arrives with its message and with when to come again.
        """
        server = self.serve()
        server.refusal = Refusal(503, "ServiceUnavailable", "this server is stopping", 7)
        error = await self.refused(server.port)
        self.assertEqual((error.word, error.answered, error.retry_after), ("rejected", True, 7.0))
        self.assertIn("this server is stopping", str(error))

    async def test_nobody_listens(self) -> None:
        """
        A closed port is told apart from a server that answers.
        """
        server = self.serve()
        await server.stop_listening()
        error = await self.refused(server.port)
        self.assertEqual((error.word, error.answered), ("refused", False))
        self.assertIn("(127.0.0.1): connection refused", str(error))

    async def test_unknown_name(self) -> None:
        """
        So is a name that nobody knows.
        """
        error = await self.refused(1, host="nowhere.invalid", address=None)
        self.assertEqual(error.word, "name-unknown")

    async def test_silence(self) -> None:
        """
        A port that takes the connection and then says nothing is given up.
        """
        told: list[float] = []
        silent = partial(told.append, 0.01)
        error = await self.refused(self.listen(Protocol), timeout=0.05, connect_timeout=0.01, silent=silent)
        self.assertEqual((error.word, error.answered, error.silent, told), ("timeout", False, True, [0.01]))

    async def test_something_said(self) -> None:
        """
        A server that has begun to answer, and is slow, is not silent.
        """
        heard: list[Said] = []

        class Slow(Said):
            def connectionMade(self) -> None:
                heard.append(self)
                self.write(b"\x16\x03\x03\x00")

        told: list[int] = []
        how: dict[str, Any] = {"timeout": 0.2, "connect_timeout": 0.1, "silent": partial(told.append, 1)}
        error = await self.refused(self.listen(Slow), **how)
        self.assertEqual((error.word, error.silent, told, len(heard)), ("timeout", False, [], 1))

    async def test_no_answer_to_tcp(self) -> None:
        """
        So is one that does not even take it.
        """
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            with socket.create_connection(full.getsockname()):
                error = await self.refused(full.getsockname()[1], connect_timeout=0.05)
        self.assertEqual(error.word, "timeout")
        self.assertIn("nobody answered within 0.05 s", str(error))

    async def test_cut_within_the_hello(self) -> None:
        """
        Bytes that nobody acknowledges end an attempt as soon as silence to its first packet does, and a link after more time.
        """

        def gives_up_after(port: int) -> float:
            (wire,) = (one for one in reactor.getReaders() if isinstance(one, Client) and one.getPeer().port == port)
            handle: socket.socket = wire.getHandle()
            return handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) / 1000

        silent = self.listen(Protocol)
        dialling = Deferred.fromCoroutine(self.refused(silent, timeout=0.5, connect_timeout=3.3))
        await until(lambda: any(isinstance(one, Client) and one.connected for one in reactor.getReaders()))
        self.assertEqual(gives_up_after(silent), 3.3)
        await dialling
        server = self.serve()
        await self.dial(server.port, connect_timeout=3.3)
        self.assertEqual(gives_up_after(server.port), MuxLimits().dead_after)

    async def test_silent_proxy(self) -> None:
        """
        A proxy that takes the connection and never answers is given up, too, and before is silent as a server may be; its
        password is shown to nobody.
        """
        proxy = f"http://user:secret@127.0.0.1:{self.listen(Protocol)}"
        told: list[int] = []
        how: dict[str, Any] = {"timeout": 0.05, "connect_timeout": 0.01, "silent": partial(told.append, 1)}
        error = await self.refused(10262, proxy=proxy, **how)
        self.assertEqual((error.word, error.answered, error.silent, told), ("timeout", False, True, [1]))
        self.assertIn("by proxy 127.0.0.1:", str(error))
        self.assertNotIn("secret", str(error))

    async def test_closed(self) -> None:
        """
        A server that closes before its answer is no server that refuses.
        """

        class Close(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.loseConnection()

        error = await self.refused(self.listen(Close))
        self.assertEqual((error.word, error.answered), ("closed", False))

    async def test_no_server_of_ours(self) -> None:
        """
        A TLS server that speaks something else is named.
        """

        class Foreign(Protocol):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.write(b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")

        factory = TLSMemoryBIOFactory(server_tls(), False, Build(lambda _: Foreign()))
        listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        error = await self.refused(listening.getHost().port)
        self.assertEqual((error.word, error.answered), ("malformed", True))

    async def test_cancel(self) -> None:
        """
        Giving up closes the connection.
        """
        heard: list[Said] = []

        def build() -> Said:
            heard.append(Said())
            return heard[-1]

        dialling = Deferred.fromCoroutine(self.dial(self.listen(build)))
        await until(lambda: heard and heard[0].data)
        dialling.cancel()
        await self.assertFailure(dialling, CancelledError)
        await until(lambda: heard[0].lost)

    async def test_cancel_before(self) -> None:
        """
        So does giving up before there is one.
        """
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            with socket.create_connection(full.getsockname()):
                dialling = Deferred.fromCoroutine(self.dial(full.getsockname()[1]))
                dialling.cancel()
                await self.assertFailure(dialling, CancelledError)


class AcceptingTests(Case):
    """
    Tests of the server's end with callers that are no agents.
    """

    async def test_plain_caller(self) -> None:
        """
        Somebody who speaks no TLS is dropped.
        """
        server = self.serve()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", server.port)
        caller: Said = await connectProtocol(endpoint, Said())
        caller.write(b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: caller.lost)
        self.assertEqual(server.hellos, [])

    async def test_other_request(self) -> None:
        """
        Somebody with a certificate who asks for something else gets an HTTP answer and is closed.
        """
        server = self.serve()
        caller = Said()
        factory = TLSMemoryBIOFactory(client_tls().creator(NAME), True, Build(lambda _: caller))
        await TCP4ClientEndpoint(reactor, "127.0.0.1", server.port).connect(factory)
        caller.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: caller.lost)
        self.assertTrue(caller.data.startswith(b"HTTP/1.1 404 Not Found\r\n"), caller.data)
        self.assertEqual(server.hellos, [])

    async def test_given_up_before_it_was_accepted(self) -> None:
        """
        A caller that is gone when the server takes its connection costs no hand-shake, though its first bytes are there.
        """
        server, said = self.serve(), ssl.MemoryBIO()
        caller = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), said, server_hostname=NAME)
        self.assertRaises(ssl.SSLWantReadError, caller.do_handshake)
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(said.read())
        await until(lambda: server.links)
        link = server.links[0]
        await until(lambda: not link.connected)
        self.assertEqual((link.over, cast(LinkTransport, link.transport).heard), (True, False))


class MemoryTests(SynchronousTestCase):
    """
    Tests of the server's end in memory.
    """

    def test_hello_in_time(self) -> None:
        """
        Without a hello in time the connection is dropped.
        """

        class Wire(StringTransport):
            aborted = False

            def abortConnection(self) -> None:
                self.aborted = True

        clock, wire = Clock(), Wire()
        link = AcceptingLink(clock, lambda hello, certificate, peer: Refusal(403, "", ""))
        link.makeConnection(wire)
        clock.advance(HELLO_TIMEOUT - 1)
        self.assertFalse(wire.aborted)
        clock.advance(1)
        self.assertTrue(wire.aborted)
        link.dataReceived(b"GET /v1/tunnel HTTP/1.1\r\n\r\n")
        self.assertEqual(wire.value(), b"")

    def test_no_certificate(self) -> None:
        """
        A listener that forgot to demand certificates lets nobody in.
        """
        self.assertIn(b"a client certificate is required", self.refused())

    def refused(self) -> bytes:
        """
        How a hello is refused before anybody was asked.
        """
        wire = StringTransport()
        asked: list[object] = []
        link = AcceptingLink(Clock(), lambda *what: asked.append(what) or Refusal(500, "", ""))  # type: ignore[func-returns-value]
        link.makeConnection(wire)
        link.dataReceived(b"GET /v1/tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: yurt-tunnel/1\r\n\r\n")
        said: bytes = wire.value()
        self.assertTrue(said.startswith(b"HTTP/1.1 403 "))
        self.assertEqual((asked, wire.disconnecting), ([], True))
        return said

    def test_resumed_with_an_expired_certificate(self) -> None:
        """
        A session of TLS that is resumed outlives the certificate that it began with: the link does not.
        """
        expired = x509.load_pem_x509_certificate(NODE.cert_pem).not_valid_after_utc - timedelta(days=2)
        self.patch(link_module, "peer_certificate", lambda transport: SimpleNamespace(not_valid_after_utc=expired))
        self.assertIn(b"the certificate has expired at", self.refused())
