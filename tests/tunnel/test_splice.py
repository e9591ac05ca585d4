"""
Tests of :mod:`yurt.tunnel.splice`: with transports in memory, and over real sockets.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from tests.http.memory import MemoryWire
from tests.mux.links import HalfCloseable, Link
from yurt.http.dial import Build
from yurt.tunnel.splice import Half, Splice

reactor: Any = _reactor


class MemoryTests(SynchronousTestCase):
    """
    Tests with transports in memory.
    """

    def setUp(self) -> None:
        self.splice = Splice()
        self.left, self.right = MemoryWire(), MemoryWire()

    def join(self) -> None:
        """
        Connect both sides.
        """
        self.splice.left.makeConnection(self.left)
        self.splice.right.makeConnection(self.right)

    @property
    def producer(self) -> Any:
        """
        What the right transport holds back.
        """
        return self.right.producer

    def lose(self, half: Half, reason: Exception | None = None) -> None:
        """
        The transport of one side is gone.
        """
        half.connectionLost(connectionDone if reason is None else Failure(reason))

    def test_bytes(self) -> None:
        """
        Bytes go both ways unchanged, and are counted.
        """
        self.join()
        self.splice.left.dataReceived(b"ping")
        self.splice.right.dataReceived(b"pong!")
        self.assertEqual((self.right.value(), self.left.value()), (b"ping", b"pong!"))
        self.assertEqual((self.splice.from_left, self.splice.from_right), (4, 5))

    def test_first_side_waits(self) -> None:
        """
        The side that is connected first is not read until the other one is there; what it had brought already is passed on.
        """
        self.splice.left.makeConnection(self.left)
        self.assertFalse(self.left.reading)
        self.splice.left.dataReceived(b"early")
        self.splice.right.makeConnection(self.right)
        self.assertTrue(self.left.reading and self.right.reading)
        self.assertEqual(self.right.value(), b"early")

    def test_early_end(self) -> None:
        """
        So is its end, behind it.
        """
        self.splice.left.makeConnection(self.left)
        self.splice.left.dataReceived(b"early")
        self.splice.left.readConnectionLost()
        self.splice.right.makeConnection(self.right)
        self.assertEqual((self.right.value(), self.right.write_ended), (b"early", True))
        self.assertFalse(self.left.reading)

    def test_back_pressure(self) -> None:
        """
        A full side holds back the other one, and only that.
        """
        self.join()
        self.producer.pauseProducing()
        self.assertEqual((self.left.reading, self.right.reading), (False, True))
        self.producer.resumeProducing()
        self.assertTrue(self.left.reading)

    def test_half_close(self) -> None:
        """
        The end of one direction ends that direction; the end of both closes.
        """
        self.join()
        self.splice.left.readConnectionLost()
        self.assertEqual((self.right.write_ended, self.left.is_closed), (True, False))
        self.splice.right.dataReceived(b"still")
        self.assertEqual(self.left.value(), b"still")
        self.splice.right.readConnectionLost()
        self.assertTrue(self.left.disconnecting and self.right.disconnecting)
        self.splice.left.writeConnectionLost()
        self.splice.left.readConnectionLost()
        self.lose(self.splice.left)
        self.assertNoResult(self.splice.done)
        self.lose(self.splice.right)
        self.assertIsNone(self.successResultOf(self.splice.done))

    def test_reset(self) -> None:
        """
        A side that is lost resets the other one.
        """
        self.join()
        self.lose(self.splice.left, ConnectionLost("reset"))
        self.assertTrue(self.right.aborted)
        self.lose(self.splice.right, ConnectionLost("aborted"))
        self.successResultOf(self.splice.done)

    def test_lost_after_its_end(self) -> None:
        """
        So does one that had ended its own direction but can no longer be written to.
        """
        self.join()
        self.splice.left.readConnectionLost()
        self.lose(self.splice.left, ConnectionLost("reset"))
        self.assertTrue(self.right.aborted)

    def test_closed(self) -> None:
        """
        A side that cannot half-close, such as TLS, and ended in order closes the other one behind what was written.
        """
        self.join()
        self.splice.left.dataReceived(b"last")
        self.lose(self.splice.left)
        self.assertEqual((self.right.value(), self.right.disconnecting, self.right.aborted), (b"last", True, False))

    def test_producer_stopped(self) -> None:
        """
        A transport that dies stops its producer; that alone does not close the other side in order.
        """
        self.join()
        self.producer.stopProducing()
        self.assertFalse(self.left.is_closed)

    def test_lost_before_joined(self) -> None:
        """
        A side that is lost before the other one is there makes the other one end at once.
        """
        self.splice.left.makeConnection(self.left)
        self.lose(self.splice.left, ConnectionLost("reset"))
        self.successResultOf(self.splice.done)
        self.splice.right.makeConnection(self.right)
        self.assertTrue(self.right.aborted)
        self.lose(self.splice.right, ConnectionLost("aborted"))

    def test_abort(self) -> None:
        """
        Aborting, or cancelling ``done``, resets what is connected; without anything connected it does nothing.
        """
        Splice().abort()
        self.join()
        self.splice.done.addErrback(lambda failure: None)
        self.splice.done.cancel()
        self.assertTrue(self.left.aborted and self.right.aborted)


class MuxTests(SynchronousTestCase):
    """
    Tests with a stream on one side.
    """

    def test_stalled_reader(self) -> None:
        """
        A reader that stops costs the window and the buffers, not all that the source has; then it gets the rest.
        """
        link, splice, outside = Link(), Splice(), HalfCloseable()
        _, peer = link.open(outside)
        wire = MemoryWire()
        splice.left.makeConnection(wire)
        peer.attach(splice.right)
        outside.stream.pauseProducing()
        brought = 0
        while wire.reading and brought < 64 * 1024 * 1024:
            splice.left.dataReceived(bytes(64 * 1024))
            brought += 64 * 1024
            link.flush()
        self.assertLess(brought, 3 * 1024 * 1024)
        outside.stream.resumeProducing()
        for _ in range(10):
            link.flush()
        self.assertTrue(wire.reading)
        self.assertEqual(len(outside.data), brought)

    def test_reset_of_a_stream(self) -> None:
        """
        A reset is passed on as one in both directions.
        """
        link, splice, outside = Link(), Splice(), HalfCloseable()
        _, peer = link.open(outside)
        wire = MemoryWire()
        splice.left.makeConnection(wire)
        peer.attach(splice.right)
        outside.stream.abortConnection()
        link.flush()
        self.assertTrue(wire.aborted)
        outside = HalfCloseable()
        _, peer = link.open(outside)
        splice, wire = Splice(), MemoryWire()
        splice.left.makeConnection(wire)
        peer.attach(splice.right)
        splice.left.connectionLost(Failure(ConnectionLost("reset")))
        link.flush()
        self.assertEqual(outside.ends, ["ConnectionLost"])


@implementer(IHalfCloseableProtocol)
class Caller(Protocol):
    """
    Notes what comes over a socket, and can wait for it.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended: Deferred[None] = Deferred()
        self.lost: Deferred[Failure] = Deferred()
        self._awaited: tuple[int, Deferred[None]] | None = None

    def when(self, length: int) -> Deferred[None]:
        """
        Fires when so many bytes have come.
        """
        self._awaited = (length, Deferred())
        self.dataReceived(b"")
        return self._awaited[1] if self._awaited is not None else Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if self._awaited is not None and len(self.data) >= self._awaited[0] and not self._awaited[1].called:
            self._awaited[1].callback(None)

    def readConnectionLost(self) -> None:
        self.ended.callback(None)

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        lost, self.lost = self.lost, Deferred()
        lost.callback(reason.value)  # type: ignore[arg-type]  # a Failure would make it an error


class LoopbackTests(TestCase):
    """
    Tests over TCP: a caller, the splice, and a server.
    """

    timeout = 180

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.splice = Splice()
        self.callee = Caller()
        self.arrived: Deferred[None] = Deferred()
        server = await self.listen(Build(lambda _: self.callee))
        door = await self.listen(Build(lambda _: self.accept(server)))
        self.caller: Caller = await connectProtocol(self.endpoint(door), Caller())
        await self.arrived
        self.addCleanup(self.end)

    async def listen(self, factory: Any) -> int:
        """
        A port of loopback.
        """
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def endpoint(self, port: int) -> TCP4ClientEndpoint:
        """
        To that port.
        """
        return TCP4ClientEndpoint(reactor, "127.0.0.1", port)

    def accept(self, server: int) -> Half:
        """
        Splice a connection.
        """
        dialling = self.endpoint(server).connect(Build(lambda _: self.splice.right))
        dialling.addCallback(lambda _: self.arrived.callback(None))
        return self.splice.left

    async def end(self) -> None:
        """
        Leave no socket.
        """
        self.splice.abort()
        if not self.splice.done.called:
            await self.splice.done

    def write(self, caller: Caller, data: bytes) -> None:
        """
        Send.
        """
        assert caller.transport is not None
        caller.transport.write(data)

    def wire(self, caller: Caller) -> Any:
        """
        The transport.
        """
        return caller.transport

    async def test_request_and_answer(self) -> None:
        """
        A request that ends by a half-close gets its whole answer, then both are closed in order.
        """
        request, answer = os.urandom(3_000_000), os.urandom(5_000_000)
        self.write(self.caller, request)
        self.wire(self.caller).loseWriteConnection()
        await self.callee.ended
        self.assertEqual(self.callee.data, request)
        self.write(self.callee, answer)
        gone = [self.caller.lost, self.callee.lost]
        self.wire(self.callee).loseConnection()
        await self.caller.ended
        self.assertEqual(self.caller.data, answer)
        self.wire(self.caller).loseConnection()
        await self.splice.done
        for lost in gone:
            self.assertIsInstance(await lost, ConnectionDone)
        self.assertEqual((self.splice.from_left, self.splice.from_right), (len(request), len(answer)))

    async def test_reset(self) -> None:
        """
        A reset by either side is one on the other side.
        """
        self.write(self.caller, b"x")
        await self.callee.when(1)
        lost = self.callee.lost
        self.wire(self.caller).abortConnection()
        self.assertIsInstance(await lost, ConnectionLost)
        await self.splice.done

    async def test_stalled(self) -> None:
        """
        While one side does not read, the other one is held, and nothing is lost.
        """
        self.wire(self.callee).pauseProducing()
        data = os.urandom(32 * 1024 * 1024)
        self.write(self.caller, data)
        self.write(self.callee, b"from the other side")
        await self.caller.when(19)
        self.assertLess(self.splice.from_left, len(data))
        self.wire(self.callee).resumeProducing()
        await self.callee.when(len(data))
        self.assertEqual(self.callee.data, data)
