"""
:class:`yurt.mux.connection.MuxConnection` over real sockets, TCP and TLS.
"""

from __future__ import annotations

import random
import socket
from hashlib import sha256
from typing import Any, cast

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests.certs import issue, make_ca
from tests.mux.links import Link, Memory
from yurt.mux.connection import TCP_NOTSENT_LOWAT, MuxConnection, MuxStream
from yurt.mux.limits import KERNEL_BUFFER
from yurt.tls import ClientTLS, Credentials, ServerTLS

reactor: Any = any_reactor
MIB = 1024 * 1024


class Sender:
    """
    Writes pieces of a body for as long as it is not paused.
    """

    def __init__(self, stream: MuxStream, body: bytes) -> None:
        self._stream = stream
        self._body = memoryview(body)
        self._paused = False
        stream.registerProducer(self, True)
        reactor.callLater(0, self._go_on)

    def _go_on(self) -> None:
        while self._body and not self._paused:
            piece, self._body = self._body[:100_000], self._body[100_000:]
            self._stream.write(piece)
        if not self._body:
            self._stream.unregisterProducer()
            self._stream.loseWriteConnection()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        reactor.callLater(0, self._go_on)

    def stopProducing(self) -> None:
        self._paused = True


@implementer(IHalfCloseableProtocol)
class Exchange(Protocol):
    """
    Sends a body, and sums up what it gets.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._sum = sha256()
        self.over: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        Sender(cast(MuxStream, self.transport), self._body)

    def dataReceived(self, data: bytes) -> None:
        self._sum.update(data)

    def readConnectionLost(self) -> None:
        """
        What follows is the end of the other direction.
        """

    writeConnectionLost = readConnectionLost

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason is connectionDone:
            self.over.callback(self._sum.digest())
        else:
            self.over.errback(reason)


class Echo(Protocol):
    """
    Sends back what it gets.
    """

    def dataReceived(self, data: bytes) -> None:
        cast(Any, self.transport).write(data)


class Keys(Protocol):
    """
    Sends a byte, and the next one when it has come back.
    """

    def __init__(self, count: int) -> None:
        self._left = count
        self.over: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        cast(Any, self.transport).write(b"k")

    def dataReceived(self, data: bytes) -> None:
        self._left -= 1
        if self._left:
            cast(Any, self.transport).write(b"k")
        else:
            self.over.callback(None)


class Paused(Protocol):
    """
    Reads nothing.
    """

    def connectionMade(self) -> None:
        cast(Any, self.transport).pauseProducing()


class LoopbackTests:
    """
    What must hold over TCP and over TLS.
    """

    timeout = 180

    def wrap(self, factory: Factory, client: bool) -> IProtocolFactory:
        """
        The layer between the socket and the mux.
        """
        raise NotImplementedError

    async def connect(self) -> None:
        """
        Two connections, joined by a socket; the server side accepts streams with what stands in ``accepting``.
        """
        test = cast(TestCase, self)
        self.accepting: list[Protocol] = []
        self.lost: list[Deferred[Exception]] = [Deferred(), Deferred()]
        self.server = MuxConnection(
            reactor, client=False, accept=lambda s: s.attach(self.accepting.pop(0)), lost=self.lost[0].callback
        )
        self.client = MuxConnection(
            reactor, client=True, accept=lambda s: s.attach(self.accepting.pop(0)), lost=self.lost[1].callback
        )
        listening = self.wrap(Factory.forProtocol(lambda: self.server), False)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(listening)
        test.addCleanup(port.stopListening)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        await endpoint.connect(self.wrap(Factory.forProtocol(lambda: self.client), True))
        test.addCleanup(self.close)

    async def close(self) -> None:
        """
        End both sides.
        """
        self.client.abort("the test is over")
        await gatherResults(self.lost)

    async def test_much_both_ways(self) -> None:
        """
        Four streams carry megabytes in both directions at once, unharmed.
        """
        await self.connect()
        bodies = [random.Random(turn).randbytes(6 * MIB + turn) for turn in range(8)]
        here = [Exchange(body) for body in bodies[:4]]
        there = [Exchange(body) for body in bodies[4:]]
        self.accepting += there
        for exchange in here:
            self.client.open().attach(exchange)
        sums = await gatherResults([exchange.over for exchange in [*there, *here]])
        test = cast(TestCase, self)
        test.assertEqual(sums, [sha256(body).digest() for body in bodies])
        await gatherResults([self.client.when_idle(), self.server.when_idle()])
        test.assertEqual(self.client.bytes_sent, sum(map(len, bodies[:4])))

    async def test_stalled_readers(self) -> None:
        """
        Beside streams that nobody reads a keystroke still comes back, and megabytes still arrive.
        """
        await self.connect()
        body = bytes(20 * MIB)
        for _ in range(4):
            self.accepting.append(Paused())
            stalled = self.client.open()
            stalled.attach(Paused())
            stalled.write(body)
        self.accepting += [Echo(), other := Exchange(b"")]
        self.client.open().attach(keys := Keys(50))
        self.client.open().attach(Exchange(body))
        await keys.over
        cast(TestCase, self).assertEqual(await other.over, sha256(body).digest())

    async def test_cut(self) -> None:
        """
        When the connection breaks both owners hear of it, and so does each stream.
        """
        await self.connect()
        self.accepting.append(there := Exchange(bytes(100)))
        stream = self.client.open()
        stream.attach(Echo())
        stream.write(b"x")
        cast(Any, self.client.transport).abortConnection()
        reasons = await gatherResults(self.lost)
        test = cast(TestCase, self)
        test.assertTrue(all(str(reason) for reason in reasons), reasons)
        if there.transport is not None:
            await test.assertFailure(there.over, Exception)
        test.assertEqual((self.client.streams, self.server.streams), (0, 0))

    async def test_kernel_buffer(self) -> None:
        """
        The kernel takes no more than the named bound that it cannot send.
        """
        await self.connect()
        tcp: Any = self.client.transport
        if isinstance(tcp, TLSMemoryBIOProtocol):
            tcp = tcp.transport
        bound = tcp.getHandle().getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT)
        cast(TestCase, self).assertEqual(bound, KERNEL_BUFFER)


class InnerTLSTests(TestCase):
    """
    TLS inside a stream, as to a kubelet through the tunnel.
    """

    def test_tls_inside_a_stream(self) -> None:
        """
        A stream carries TLS like any transport: hand-shake, megabytes both ways, clean end.
        """
        link = Link()
        ca = make_ca()
        identity = issue(ca, "kubelet", ips=["127.0.0.1"])
        server_tls = ServerTLS(Credentials(cert_data=identity.cert_pem, key_data=identity.key_pem))
        creator = ClientTLS(Credentials(ca_data=ca.cert_pem)).creator("127.0.0.1")
        here, there = Memory(), Memory()
        outer: Any = TLSMemoryBIOFactory(creator, True, Factory.forProtocol(lambda: here), link.clock)
        inner: Any = TLSMemoryBIOFactory(cast(Any, server_tls), False, Factory.forProtocol(lambda: there), link.clock)
        link.open(outer.buildProtocol(None), inner.buildProtocol(None))
        body = random.Random(5).randbytes(3 * MIB)
        cast(Any, here.transport).write(body)
        cast(Any, there.transport).write(body[::-1])
        for _ in range(10):
            link.flush()
        self.assertTrue(there.data == body and here.data == body[::-1])
        cast(Any, here.transport).loseConnection()
        for _ in range(3):
            link.flush()
        self.assertEqual((here.ends, there.ends), (["ConnectionDone"], ["ConnectionDone"]))
        self.assertEqual((link.server.mux.streams, link.client.mux.streams), (0, 0))


class TCPTests(LoopbackTests, TestCase):
    """
    Over plain TCP.
    """

    def wrap(self, factory: Factory, client: bool) -> IProtocolFactory:
        """
        Nothing.
        """
        return factory


class TLSTests(LoopbackTests, TestCase):
    """
    Over TLS.
    """

    def setUp(self) -> None:
        ca = make_ca()
        identity = issue(ca, "server", ips=["127.0.0.1"])
        self.tls = ServerTLS(Credentials(cert_data=identity.cert_pem, key_data=identity.key_pem))
        self.client_tls = ClientTLS(Credentials(ca_data=ca.cert_pem))

    def wrap(self, factory: Factory, client: bool) -> IProtocolFactory:
        """
        TLS as the tunnel has it.
        """
        creator: Any = self.client_tls.creator("127.0.0.1") if client else self.tls
        wrapper = TLSMemoryBIOFactory(creator, client, factory)
        wrapper.protocol = TLSMemoryBIOProtocol
        return wrapper
