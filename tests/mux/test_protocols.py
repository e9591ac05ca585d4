"""
A stream does for Twisted's own protocols what a TCP connection does: the same tests over both.
"""

from __future__ import annotations

import os
from io import BytesIO
from typing import Any, cast

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.basic import FileSender, LineReceiver
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool, readBody
from twisted.web.iweb import IAgentEndpointFactory
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from yurt.http.dial import Build
from yurt.mux.connection import MuxConnection, MuxStream

reactor: Any = any_reactor
MIB = 1024 * 1024
LINES = 20_000


class Ending(Protocol):
    """
    Collects what comes; ``over`` fires with the reason of the end.
    """

    def __init__(self) -> None:
        self.data = b""
        self.ends = 0
        self.over: Deferred[Any] = Deferred()

    @property
    def wire(self) -> Any:
        """
        The transport.
        """
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ends += 1
        self.wire.loseConnection()  # too late, and no harm
        self.over.callback(reason.value)


class Body(Resource):
    """
    Answers a GET with much, and a POST with what it brought.
    """

    isLeaf = True
    body = os.urandom(2 * MIB)

    def render_GET(self, request: Any) -> bytes:
        return self.body

    def render_POST(self, request: Any) -> bytes:
        return bytes(request.content.read())


class Lines(LineReceiver):
    """
    Takes lines with pauses, then raw bytes until the end.
    """

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.raw = b""
        self.over: Deferred[Any] = Deferred()

    def lineReceived(self, line: bytes) -> None:
        self.lines.append(line)
        if len(self.lines) % 1000 == 0:
            self.pauseProducing()
            reactor.callLater(0, self.resumeProducing)
        if len(self.lines) == LINES:
            self.setRawMode()

    def rawDataReceived(self, data: bytes) -> None:
        self.raw += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over.callback(reason.value)


@implementer(IStreamClientEndpoint)
class MuxEndpoint:
    """
    Opens streams of one connection.
    """

    def __init__(self, mux: MuxConnection) -> None:
        self._mux = mux

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        stream = self._mux.open()
        protocol: Any = protocolFactory.buildProtocol(stream.getPeer())
        stream.attach(protocol)
        return maybeDeferred(lambda: protocol)


@implementer(IAgentEndpointFactory)
class OneEndpoint:
    """
    Leads a web client to one endpoint.
    """

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: object) -> IStreamClientEndpoint:
        return self._endpoint


class ProtocolTests:
    """
    The tests; ``endpoint`` says how protocols meet.
    """

    endpoint: Any
    case: Any

    async def meet(self, near: Any, far: Any) -> None:
        """
        Connect two protocols.
        """
        endpoint = await self.endpoint(Build(lambda _: far))
        await endpoint.connect(Build(lambda _: near))

    async def test_http(self) -> None:
        """
        Web server and client, one request after the other on a connection that is kept, and side by side.
        """
        endpoint = await self.endpoint(Site(Body()))
        pool = HTTPConnectionPool(reactor)
        agent = Agent.usingEndpointFactory(reactor, OneEndpoint(endpoint), pool)
        url = b"http://site.example/"
        for _ in range(3):
            response: Any = await agent.request(b"GET", url)
            self.case.assertEqual(await readBody(response), Body.body)
        bodies = [os.urandom(size) for size in (1, 1000, MIB, 3 * MIB)]
        asked = [agent.request(b"POST", url, bodyProducer=FileBodyProducer(BytesIO(body))) for body in bodies]
        answers: Any = await gatherResults([one.addCallback(readBody) for one in asked])
        self.case.assertEqual([len(answer) for answer in answers], [len(body) for body in bodies])
        self.case.assertEqual(answers, bodies)
        await pool.closeCachedConnections()

    async def test_lines(self) -> None:
        """
        A line protocol may pause within a line's turn, and change to raw bytes.
        """
        far, near, raw = Lines(), Ending(), os.urandom(MIB)
        await self.meet(near, far)
        near.wire.writeSequence([b"line %d\r\n" % number for number in range(LINES)])
        near.wire.write(raw)
        near.wire.loseConnection()
        self.case.assertIsInstance(await far.over, ConnectionDone)
        self.case.assertEqual(far.lines, [b"line %d" % number for number in range(LINES)])
        self.case.assertEqual(far.raw, raw)

    async def test_pull_producer(self) -> None:
        """
        A file is sent piece by piece as there is room, and the end comes behind it.
        """
        far, near, body = Ending(), Ending(), os.urandom(5 * MIB)
        await self.meet(near, far)
        sent: Any = FileSender().beginFileTransfer(BytesIO(body), near.wire)
        near.wire.loseConnection()  # which waits for the producer
        await sent
        self.case.assertIsInstance(await far.over, ConnectionDone)
        self.case.assertIsInstance(await near.over, ConnectionDone)
        self.case.assertTrue(far.data == body)

    async def test_said_in_connection_made(self) -> None:
        """
        What is written before a close within connectionMade arrives.
        """

        class Brief(Ending):
            def connectionMade(self) -> None:
                self.wire.write(b"all I have to say")
                self.wire.loseConnection()

        far, near = Ending(), Brief()
        await self.meet(near, far)
        self.case.assertIsInstance(await far.over, ConnectionDone)
        self.case.assertIsInstance(await near.over, ConnectionDone)
        self.case.assertEqual(far.data, b"all I have to say")

    async def test_abort_while_delivering(self) -> None:
        """
        Nothing is delivered after an abort within dataReceived; the end comes later and once, with the reason on each side.
        """

        class Aborting(Ending):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.wire.abortConnection()
                assert not self.ends

        far, near = Aborting(), Ending()
        await self.meet(near, far)
        near.wire.write(b"x")
        self.case.assertIsInstance(await far.over, ConnectionAborted)
        self.case.assertIsInstance(await near.over, ConnectionLost)
        self.case.assertEqual((far.data, far.ends, near.ends), (b"x", 1, 1))

    async def test_not_bytes(self) -> None:
        """
        Text is refused.
        """
        far, near = Ending(), Ending()
        await self.meet(near, far)
        self.case.assertRaises(TypeError, near.wire.write, "text")
        near.wire.loseConnection()
        await gatherResults([near.over, far.over])


class OverTCPTests(ProtocolTests, TestCase):
    """
    Over TCP, which is what is expected.
    """

    def setUp(self) -> None:
        self.case = self

    async def endpoint(self, factory: Any) -> IStreamClientEndpoint:
        port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        return TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)


class OverStreamsTests(ProtocolTests, TestCase):
    """
    Over streams of one connection.
    """

    def setUp(self) -> None:
        self.case = self

    async def endpoint(self, factory: Any) -> IStreamClientEndpoint:
        gone: list[Deferred[None]] = [Deferred(), Deferred()]

        def accept(stream: MuxStream) -> None:
            stream.attach(cast(Any, factory).buildProtocol(cast(IAddress, stream.getPeer())))

        def lost(reason: Exception) -> None:
            gone[bool(gone[0].called)].callback(None)

        near, far = (MuxConnection(reactor, client=client, accept=accept, lost=lost) for client in (True, False))
        port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Build(lambda _: far))
        await TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(Build(lambda _: near))
        factory.doStart()

        async def end() -> None:
            near.abort("the test is over")
            await gatherResults(gone)
            await maybeDeferred(port.stopListening)
            cast(Factory, factory).doStop()

        self.addCleanup(end)
        return MuxEndpoint(near)
