"""
Tests of :mod:`yurt.mux.connection`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.mux.links import End, HalfCloseable, Link, Memory, Stalled
from tests.mux.test_session import frames
from yurt.mux.connection import CLOSE_PATIENCE, COMPANY, MEASURE_EVERY, STEP, MuxConnection, MuxLimits, MuxStream, why_lost
from yurt.mux.frames import ACK, DATA, GO_AWAY, PING, SYN, WINDOW_UPDATE, MuxClosed, head
from yurt.mux.limits import BATCH


class Alone:
    """
    A server's connection whose peer is the test.
    """

    def __init__(self, limits: MuxLimits = MuxLimits()) -> None:
        self.clock = Clock()
        self.end = End(self.clock, client=False, limits=limits)
        self.mux = self.end.mux
        self.transport = StringTransport()
        self.mux.makeConnection(self.transport)

    def sent(self) -> list[tuple[int, int, int, int]]:
        """
        The frames that were sent since the last call.
        """
        data = self.transport.value()
        self.transport.clear()
        return frames(data)

    def pass_time(self, seconds: float, step: float = 0.5) -> None:
        """
        Let time pass as it does: in small steps.
        """
        for _ in range(int(seconds / step)):
            self.clock.advance(step)


class LifeTests(SynchronousTestCase):
    """
    Tests of a connection's life.
    """

    def test_before_it_is_made(self) -> None:
        """
        No stream can be opened before there is a transport; an abort then still tells the owner.
        """
        end = End(Clock(), client=True, limits=MuxLimits())
        self.assertRaises(MuxClosed, end.mux.open)
        end.mux.abort("no longer wanted")
        self.assertEqual(end.lost, ["no longer wanted"])

    def test_bytes_behind_the_hello(self) -> None:
        """
        What came behind the hello is taken as if it had come later.
        """
        alone = Alone()
        alone.mux.dataReceived(head(WINDOW_UPDATE, SYN, 1, 0))
        self.assertEqual(alone.mux.streams, 1)

    def test_abort(self) -> None:
        """
        All streams and the transport end; both owners hear why, once.
        """
        link, here, there = Link(), Memory(), HalfCloseable()
        link.open(here, there)
        link.server.mux.abort("replaced by a newer connection")
        link.server.mux.abort("again")
        link.flush()
        self.assertEqual((here.ends, there.ends), (["ConnectionLost"], ["ConnectionLost"]))
        self.assertEqual(link.server.lost, ["replaced by a newer connection"])
        self.assertEqual(link.client.lost, ["the peer closed the connection"])
        self.assertTrue(link.server.mux.closing)
        self.assertRaises(MuxClosed, link.server.mux.open)
        self.assertEqual(link.clock.getDelayedCalls(), [])

    def test_transport_lost(self) -> None:
        """
        The owner hears what the transport said; what comes afterwards is ignored.
        """
        alone = Alone()
        alone.mux.connectionLost(Failure(ConnectionLost("cable cut")))
        alone.mux.dataReceived(b"noise")
        self.assertEqual(alone.end.lost, ["cable cut"])
        self.assertEqual(alone.clock.getDelayedCalls(), [])

    def test_why_lost(self) -> None:
        """
        People are told what happened, in words of their own where the transport has none.
        """
        for error, why in (
            (ConnectionLost(), "reset by the peer, or cut"),
            (ConnectionLost("Connection lost"), "reset by the peer, or cut"),
            (ConnectionLost("no sign of life for 13.5 s"), "no sign of life for 13.5 s"),
            (ConnectionDone(), "the peer closed"),
            (ConnectionAborted(), "cut by this side"),
            (OSError("disk"), "connection lost: disk"),
        ):
            self.assertIn(why, why_lost(Failure(error)))
            self.assertNotIn("non-clean", why_lost(Failure(error)))

    def test_attach_after_the_end(self) -> None:
        """
        A stream that was accepted, but not attached when the session ended, tells whoever attaches.
        """
        link, there = Link(), Memory()
        _, peer = link.open(Memory())
        link.client.mux.abort("over")
        peer.attach(there)
        link.flush()
        self.assertEqual(there.ends, ["ConnectionLost"])

    def test_accept_fails(self) -> None:
        """
        A stream that cannot be accepted is reset; the others go on.
        """

        def refuse(stream: MuxStream) -> None:
            raise ZeroDivisionError

        mux = MuxConnection(Clock(), client=False, accept=refuse, lost=lambda reason: None)
        transport = StringTransport()
        mux.makeConnection(transport)
        mux.dataReceived(head(WINDOW_UPDATE, SYN, 1, 0))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(mux.streams, 0)

    def test_peer_breaks_yamux(self) -> None:
        """
        The peer is told before the connection closes; if it does not listen, that is cut soon.
        """
        alone, memory = Alone(), Memory()
        alone.mux.open().attach(memory)
        alone.sent()
        alone.mux.dataReceived(b"GET / HTTP/1.1\r\n")
        self.assertEqual(alone.sent(), [(GO_AWAY, 0, 0, 1)])
        self.assertEqual(alone.end.lost, ["the peer broke yamux: version 71"])
        self.assertEqual(memory.ends, ["ConnectionLost"])
        self.assertTrue(alone.transport.disconnecting)
        self.assertFalse(alone.transport.disconnected)
        alone.clock.advance(CLOSE_PATIENCE)
        self.assertTrue(alone.transport.disconnected)

    def test_peer_closes_after_our_error(self) -> None:
        """
        When the peer closes in time nothing remains to be done.
        """
        alone = Alone()
        alone.mux.dataReceived(b"GET / HTTP/1.1\r\n")
        alone.mux.connectionLost()
        self.assertEqual(alone.clock.getDelayedCalls(), [])
        self.assertEqual(len(alone.end.lost), 1)

    def test_peer_fails(self) -> None:
        """
        A peer that ends the session with an error is believed.
        """
        alone = Alone()
        alone.mux.dataReceived(head(GO_AWAY, 0, 0, 2))
        self.assertEqual(alone.end.lost, ["the peer ended the session: internal error"])
        self.assertTrue(alone.transport.disconnected)


class DrainTests(SynchronousTestCase):
    """
    Tests of going away.
    """

    def test_go_away(self) -> None:
        """
        The peer is told once, opens nothing more, and running streams go on.
        """
        link, there, told = Link(), Memory(), []
        link.server.mux.on_go_away = lambda: told.append(True)
        stream, _ = link.open(Memory(), there)
        link.client.mux.go_away()
        link.client.mux.go_away()
        link.flush()
        stream.write(b"still")
        link.flush()
        self.assertEqual((told, there.data), ([True], b"still"))
        self.assertTrue(link.server.mux.peer_going_away and link.client.mux.closing)
        self.assertFalse(link.server.mux.closing)
        for end in (link.server, link.client):
            self.assertRaises(MuxClosed, end.mux.open)

    def test_idle(self) -> None:
        """
        Idle is when the last stream has ended on both sides.
        """
        link = Link()
        self.successResultOf(self.idle(link, link.server))
        stream, peer = link.open(Memory(), HalfCloseable())
        idle = self.idle(link, link.server)
        cancelled = self.idle(link, link.server)
        stream.loseConnection()
        link.flush()
        self.assertNoResult(idle)
        cancelled.cancel()
        self.failureResultOf(cancelled)
        peer.loseConnection()
        link.flush()
        self.successResultOf(idle)

    def test_idle_waits_for_readers(self) -> None:
        """
        A stream that was not yet read to its end is not over.
        """
        link = Link()
        stream, peer = link.open(Memory(), Stalled())
        stream.write(b"last words")
        peer.loseWriteConnection()
        stream.loseConnection()
        link.flush()
        idle = self.idle(link, link.client)
        self.assertNoResult(idle)
        peer.resumeProducing()
        link.flush()
        self.successResultOf(idle)

    def idle(self, link: Link, end: End) -> Any:
        """
        The Deferred, after a turn.
        """
        deferred = end.mux.when_idle()
        link.clock.advance(0)
        return deferred


class Says(Memory):
    """
    Says something at once.
    """

    def __init__(self, words: bytes) -> None:
        super().__init__()
        self._words = words

    def connectionMade(self) -> None:
        super().connectionMade()
        cast(Any, self.transport).write(self._words)


class TransportBufferTests(SynchronousTestCase):
    """
    Tests of what is handed to the transport.
    """

    def writes_of(self, alone: Alone) -> list[bytes]:
        """
        What leaves in one piece each from now on.
        """
        writes: list[bytes] = []
        self.patch(alone.transport, "write", writes.append)
        self.patch(alone.transport, "writeSequence", lambda pieces: writes.append(b"".join(pieces)))
        return writes

    def test_full_transport_gets_nothing(self) -> None:
        """
        While the transport does not drain it is given nothing; then frames without data go first, and all in one write.
        """
        alone = Alone()
        stream = alone.mux.open()
        stream.attach(Memory())
        alone.sent()
        alone.mux.pauseProducing()
        stream.write(b"data")
        alone.mux.dataReceived(head(PING, SYN, 0, 3))
        self.assertEqual(alone.sent(), [])
        writes = self.writes_of(alone)
        alone.mux.resumeProducing()
        self.assertEqual([kind for kind, *_ in frames(writes[0])], [PING, DATA])
        self.assertEqual(len(writes), 1)

    def test_first_words(self) -> None:
        """
        A stream is opened and told its first words in one write; one that says nothing is opened when it is attached.
        """
        for first in (b"head", b""):
            alone = Alone()
            alone.sent()
            writes = self.writes_of(alone)
            stream = alone.mux.open()
            self.assertEqual(writes, [])
            stream.attach(Says(first))
            self.assertEqual([kind for kind, *_ in frames(b"".join(writes))], [WINDOW_UPDATE, DATA] if first else [WINDOW_UPDATE])
            self.assertEqual(len(writes), 1)

    def test_bounded(self) -> None:
        """
        What the transport gets in one piece is bounded, so that it can say that it is full.
        """
        alone = Alone()
        stream = alone.mux.open()
        alone.mux.dataReceived(head(WINDOW_UPDATE, ACK, 2, 10_000_000))
        writes: list[bytes] = []

        def write(pieces: list[bytes]) -> None:
            writes.append(b"".join(pieces))
            alone.mux.pauseProducing()

        self.patch(alone.transport, "writeSequence", write)
        stream.write(bytes(5_000_000))
        self.assertEqual(len(writes), 1)
        self.assertLessEqual(len(writes[0]), BATCH + alone.mux.limits.max_frame)

    def test_interactive_stream_goes_first(self) -> None:
        """
        A stream that has little to say waits for no other; one that has much waits for its turn.
        """
        alone = Alone()
        bulk = [alone.mux.open() for _ in range(4)]
        keys = alone.mux.open()
        alone.mux.pauseProducing()
        for stream in bulk:
            stream.write(bytes(200_000))
        keys.write(b"k")
        alone.sent()
        alone.mux.resumeProducing()
        order = [number for kind, _, number, _ in alone.sent() if kind == DATA]
        self.assertEqual(order[:6], [10, 2, 4, 6, 8, 2])

    def test_answers_share_a_write(self) -> None:
        """
        All that one read makes us say leaves in one write.
        """
        alone = Alone()
        writes = self.writes_of(alone)
        alone.mux.dataReceived(head(PING, SYN, 0, 1) + head(WINDOW_UPDATE, SYN, 1, 0) + head(PING, SYN, 0, 2))
        self.assertEqual([len(frames(data)) for data in writes], [3])


class KeepAliveTests(SynchronousTestCase):
    """
    Tests of pings.
    """

    def answer(self, alone: Alone) -> None:
        """
        Answer the pings that were sent.
        """
        for kind, flags, _, value in alone.sent():
            if kind == PING and flags == SYN:
                alone.mux.dataReceived(head(PING, ACK, 0, value))

    def test_round_trip_at_once(self) -> None:
        """
        The round trip is measured when the connection is made.
        """
        alone = Alone()
        alone.clock.advance(0.125)
        self.answer(alone)
        self.assertEqual(alone.mux.rtt, 0.125)

    def test_dead_peer(self) -> None:
        """
        Silence is noticed within 15 s, with time to spare, and said.
        """
        alone, memory = Alone(), Memory()
        alone.mux.open().attach(memory)
        self.answer(alone)
        alone.pass_time(13)
        self.assertEqual(alone.end.lost, [])
        alone.pass_time(1)
        self.assertEqual(len(alone.end.lost), 1)
        self.assertRegex(alone.end.lost[0], r"\Ano sign of life for 13\.\d s\Z")
        self.assertEqual(memory.ends, ["ConnectionLost"])
        self.assertTrue(alone.transport.disconnected)
        self.assertEqual(alone.clock.getDelayedCalls(), [])

    def test_owes_a_sign_of_life(self) -> None:
        """
        A stream that is opened after some silence asks for a sign of life; how long that is owed can be told, until one comes.
        """
        alone = Alone()
        self.answer(alone)
        alone.sent()
        alone.clock.advance(0.5)
        alone.mux.open().attach(Memory())
        self.assertNotIn(PING, [kind for kind, *_ in alone.sent()])
        alone.clock.advance(0.5)
        alone.mux.open().attach(Memory())
        self.assertIn(PING, [kind for kind, *_ in alone.sent()])
        self.assertEqual(alone.mux.silent_for, 0)
        alone.clock.advance(2)
        self.assertEqual(alone.mux.silent_for, 2)
        alone.mux.dataReceived(head(PING, ACK, 0, 2))
        self.assertEqual(alone.mux.silent_for, 0)
        alone.clock.advance(2)
        self.assertEqual(alone.mux.silent_for, 0)

    def test_every_byte_counts(self) -> None:
        """
        A peer that sends anything is alive, even when it does not answer pings.
        """
        alone = Alone()
        for _ in range(20):
            alone.pass_time(10)
            alone.mux.dataReceived(head(WINDOW_UPDATE, SYN, 1, 0)[:1] if alone.mux.streams else b"")
        self.assertEqual(alone.end.lost, [])

    def test_own_stall(self) -> None:
        """
        When this side itself stood still the peer gets another chance.
        """
        alone = Alone()
        self.answer(alone)
        alone.pass_time(7)
        alone.clock.advance(3600)
        self.assertEqual(alone.end.lost, [])
        self.answer(alone)
        alone.pass_time(10)
        self.assertEqual(alone.end.lost, [])

    def test_timers_of_many(self) -> None:
        """
        The links of a server that began in the same quarter of a second wake it twice at most, for as long as they idle.
        """
        clock, ends = Clock(), []
        for _ in range(10):
            clock.advance(STEP / 11)
            end = End(clock, client=False, limits=MuxLimits())
            end.mux.makeConnection(StringTransport())
            end.mux.dataReceived(head(PING, ACK, 0, 1))
            ends.append(end)
        for _ in range(3):
            self.assertLessEqual(len({call.getTime() for call in clock.getDelayedCalls()}), 2)
            clock.advance(min(call.getTime() for call in clock.getDelayedCalls()) - clock.seconds())
            for end in ends:
                end.mux.dataReceived(head(PING, SYN, 0, 7))
        self.assertEqual([end.lost for end in ends], [[]] * 10)

    def test_idle_pair(self) -> None:
        """
        On an idle line one side's pings keep both alive: one in seven seconds, and the round trip is known on both.
        """
        link = Link()
        pings: list[tuple[End, list[tuple[int, int, int, int]]]] = []
        for end in (link.server, link.client):
            self.patch(link.transport(end), "write", partial(self.note, pings, end, link.transport(end).write))
        for _ in range(600):
            link.clock.advance(0.1)
            link.pump.flush()
        asked = [end for end, found in pings for kind, flags, *_ in found if kind == PING and flags == SYN]
        self.assertEqual(set(asked), {link.client})
        self.assertIn(len(asked), (8, 9))
        self.assertEqual((link.server.lost, link.client.lost), ([], []))

    def note(self, pings: list[Any], end: End, write: Callable[[bytes], None], data: bytes) -> None:
        """
        Write, and remember what and who.
        """
        pings.append((end, frames(data)))
        write(data)

    def test_who_only_receives_says_so(self) -> None:
        """
        A side that gets data without sending any gives a sign of life, for its peer's sake.
        """
        alone = Alone()
        alone.mux.dataReceived(head(WINDOW_UPDATE, SYN, 1, 0))
        self.answer(alone)
        for _ in range(20):
            alone.clock.advance(0.5)
            alone.mux.dataReceived(head(DATA, 0, 1, 1) + b"x")
        self.assertIn(PING, [kind for kind, *_ in alone.sent()])

    def test_accepted_without_a_word(self) -> None:
        """
        Whoever accepts a stream and says nothing still acknowledges it, a moment later.
        """
        alone = Alone()
        self.answer(alone)
        alone.mux.dataReceived(head(WINDOW_UPDATE, SYN, 1, 0))
        self.assertEqual(alone.sent(), [])
        alone.clock.advance(COMPANY)
        self.assertEqual([frame[:3] for frame in alone.sent()], [(WINDOW_UPDATE, ACK, 1)])

    def test_busy_line(self) -> None:
        """
        On a busy line the round trip is still measured, once a minute.
        """
        alone = Alone()
        alone.mux.dataReceived(head(WINDOW_UPDATE, SYN, 1, 0))
        self.answer(alone)
        asked = 0
        for _ in range(int(3 * MEASURE_EVERY)):
            alone.clock.advance(1)
            alone.mux.dataReceived(head(DATA, 0, 1, 1) + b"x")
            alone.end.accepted[0].write(b"y")
            data = alone.sent()
            pings = [value for kind, flags, _, value in data if kind == PING and flags == SYN]
            asked += len(pings)
            for value in pings:
                alone.mux.dataReceived(head(PING, ACK, 0, value))
        self.assertIn(asked, (2, 3))
