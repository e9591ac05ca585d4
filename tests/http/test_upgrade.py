"""
Connections handed over after a 101, and joined.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.http.memory import MemoryWire, Recorder, ServerSide, get
from tests.http.upstream import Site
from yurt.http.interfaces import ResponseHead
from yurt.http.upgrade import TransportStream, join

OFFER = get(b"/exec", b"Connection: Upgrade", b"Upgrade: SPDY/3.1")
SWITCH = ResponseHead(101, b"Switching Protocols", [(b"Connection", b"Upgrade"), (b"Upgrade", b"SPDY/3.1")])
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"


class ServerTests(SynchronousTestCase):
    """
    The side of the client.
    """

    def test_early_bytes(self) -> None:
        """
        What the client sent early, with the request or before the decision, comes first; nothing is read meanwhile.
        """
        side = ServerSide()
        side.feed(OFFER + b"ea")
        self.assertFalse(side.wire.reading)
        side.feed(b"rly")
        stream = side.requests[0].accept_upgrade(SWITCH)
        self.assertEqual(side.take(), SWITCHED)
        receiver = Recorder()
        stream.attach(receiver, None)
        self.assertEqual(receiver.body, b"early")
        self.assertTrue(side.wire.reading)
        side.feed(b" and later")
        self.assertEqual(receiver.body, b"early and later")
        stream.write(b"back")
        self.assertEqual(side.take(), b"back")

    def test_no_timeouts(self) -> None:
        """
        The time limits of requests do not apply to it.
        """
        side = ServerSide()
        side.feed(OFFER)
        side.requests[0].accept_upgrade(SWITCH).attach(Recorder(), None)
        side.clock.advance(100000)
        self.assertFalse(side.wire.is_closed)

    def test_lost(self) -> None:
        """
        The receiver hears of the end, also when it attaches late; the request's own callback is silent.
        """
        side = ServerSide()
        side.feed(OFFER)
        lost: list[int] = []
        side.requests[0].when_lost(lambda: lost.append(1))
        stream = side.requests[0].accept_upgrade(SWITCH)
        side.lose()
        receiver = Recorder()
        stream.attach(receiver, None)
        self.assertEqual(receiver.events, ["lost"])
        self.assertEqual(lost, [])
        stream.write(b"x")
        stream.finish()
        stream.close()
        stream.abort()

    def test_not_asked(self) -> None:
        """
        A request that did not ask for it cannot be upgraded.
        """
        side = ServerSide()
        side.feed(get())
        self.assertRaises(ValueError, side.requests[0].accept_upgrade, SWITCH)

    def test_drain(self) -> None:
        """
        A drain waits for it, and cuts it in the end.
        """
        side = ServerSide()
        side.feed(OFFER)
        side.requests[0].accept_upgrade(SWITCH)
        drained = side.factory.drain(5)
        self.assertFalse(side.wire.is_closed)
        side.clock.advance(5)
        self.assertTrue(side.wire.aborted)
        side.lose()
        self.successResultOf(drained)


class ClientTests(SynchronousTestCase):
    """
    The side of the server.
    """

    def test_early_bytes(self) -> None:
        """
        What the server sent with its 101 comes first, however the bytes are cut.
        """
        data = SWITCHED + b"early"
        for size in (1, 3, 50, len(data)):
            site = Site()
            _, receiver = site.send(b"POST", upgrade=True)
            site.accept()
            site.receive(*[data[at : at + size] for at in range(0, len(data), size)])
            assert receiver.stream is not None
            self.assertEqual(receiver.head, SWITCH)
            taker = Recorder()
            receiver.stream.attach(taker, None)
            self.assertEqual(taker.body, b"early")
            self.assertEqual(receiver.events, ["upgraded"])

    def test_refused(self) -> None:
        """
        Another answer is a response like any other.
        """
        site = Site()
        _, receiver = site.send(b"POST", upgrade=True)
        site.accept()
        site.receive(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        self.assertEqual(receiver.events, ["head", "data", "finished"])

    def test_close_connections(self) -> None:
        """
        The loss of the server cuts streams too.
        """
        site = Site()
        _, receiver = site.send(b"POST", upgrade=True)
        wire = site.accept()
        site.receive(SWITCHED)
        self.assertEqual(site.upstream.open_connections, 1)
        site.upstream.close_connections("gone")
        self.assertTrue(wire.aborted)
        self.assertEqual(receiver.events, ["upgraded"])


class JoinTests(SynchronousTestCase):
    """
    Two streams become one way.
    """

    def setUp(self) -> None:
        self.left, self.right = MemoryWire(), MemoryWire()
        self.a = TransportStream(self.left, b"early a")
        self.b = TransportStream(self.right, b"early b")
        join(self.a, self.b)

    def test_both_ways(self) -> None:
        """
        Early bytes and later ones cross.
        """
        self.a.received(b" more")
        self.b.received(b" again")
        self.assertEqual((self.right.value(), self.left.value()), (b"early a more", b"early b again"))

    def test_back_pressure(self) -> None:
        """
        Each direction is as fast as its reader, and does not stop the other one.
        """
        self.a.pauseProducing()
        self.assertFalse(self.right.reading)
        self.assertTrue(self.left.reading)
        self.a.resumeProducing()
        self.assertTrue(self.right.reading)

    def test_half_close(self) -> None:
        """
        The end of one direction is passed on, the other one goes on until its own end, and then both close.
        """
        self.a.read_ended()
        self.assertTrue(self.right.write_ended)
        self.assertFalse(self.left.is_closed)
        self.b.received(b"!")
        self.assertEqual(self.left.value(), b"early b!")
        self.b.read_ended()
        self.assertTrue(self.left.disconnecting)
        self.assertTrue(self.right.disconnecting)

    def test_lost(self) -> None:
        """
        The loss of one side closes the other one after what was written.
        """
        self.a.lost()
        self.assertTrue(self.right.disconnecting)
        self.assertFalse(self.right.aborted)
        self.b.lost()
