"""
Promises of the HTTP server about its connections together.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.http.memory import ServerSide, get, hello, post
from yurt.http.interfaces import ResponseHead
from yurt.http.limits import ServerLimits
from yurt.http.server import LAST_WORDS_TIMEOUT


class FactoryTests(SynchronousTestCase):
    """
    All connections of a listener.
    """

    def test_too_many(self) -> None:
        """
        While all are busy, one connection too many gets 503 and the end, which the owner hears of; when one leaves, another may.
        """
        side = ServerSide(limits=ServerLimits(max_connections=1))
        turned_away: list[object] = []
        side.factory.turned_away = turned_away.append
        first = side.connection
        side.feed(get())
        side.connect()
        self.assertTrue(side.take().startswith(b"HTTP/1.1 503 "))
        self.assertTrue(side.wire.is_closed)
        side.lose()
        side.connection = first
        side.lose()
        side.connect()
        side.feed(get())
        self.assertEqual((len(side.requests), len(turned_away)), (2, 1))

    def test_far_too_many(self) -> None:
        """
        Of far more than that the first that were told are cut; they take no place of those that come when there is one.
        """
        side = ServerSide(limits=ServerLimits(max_connections=1))
        side.feed(get())
        told = []
        for _ in range(side.factory.SPARE_CONNECTIONS + 10):
            side.connect()
            told.append(side.wire)
        self.assertEqual([wire.aborted for wire in told], [number < 10 for number in range(len(told))])
        self.assertEqual(len(side.factory.connections), 1 + side.factory.SPARE_CONNECTIONS)
        hello(side.requests[0])
        side.connect()
        self.assertFalse(side.connection.refused)

    def test_silent_ones_make_room(self) -> None:
        """
        Whoever holds connections open and asks nothing keeps nobody out: the oldest such goes, never one that has asked.
        """
        side = ServerSide(hello, ServerLimits(max_connections=2))
        side.feed(get())
        asked = side.wire
        side.connect()
        silent = side.wire
        for _ in range(10 * side.factory.SPARE_CONNECTIONS):
            side.connect()
        self.assertEqual((asked.aborted, silent.aborted, side.wire.aborted), (False, True, False))
        self.assertIn(b"hello", side.feed(get()))
        self.assertEqual((len(side.factory.connections), len(side.factory.silent)), (2, 0))

    def test_idle_ones_make_room(self) -> None:
        """
        Whoever has asked once and holds its connection open keeps nobody out either: what has been idle for longest goes, after
        those that have asked nothing; never one whose answer is not given yet, or not read.
        """
        side = ServerSide(limits=ServerLimits(max_connections=4))
        side.feed(get())
        busy = side.wire
        side.connect()
        side.feed(get())
        side.connection.pauseProducing()
        hello(side.requests[1])
        reading, unread = side.connection, side.wire
        idle = []
        for _ in range(2):
            side.connect()
            side.feed(get())
            hello(side.requests[-1])
            idle.append(side.wire)
        side.connect()
        self.assertEqual([wire.aborted for wire in (busy, unread, *idle)], [False, False, True, False])
        silent = side.wire
        side.connect()
        self.assertEqual([wire.aborted for wire in (busy, unread, *idle, silent)], [False, False, True, False, True])
        side.feed(get())
        side.connect()
        self.assertTrue(idle[1].aborted)
        side.feed(b"nonsense")
        refused = side.wire
        side.connect()
        self.assertEqual((refused.aborted, side.connection.refused), (False, False), "who has had its answer takes no place")
        side.feed(get())
        reading.resumeProducing()
        side.connect()
        self.assertEqual((busy.aborted, unread.aborted, side.connection.refused), (False, True, False))

    def test_drain(self) -> None:
        """
        Draining closes idle connections now, others after their answer, and fires when none is left.
        """
        side = ServerSide()
        idle, idle_wire = side.connection, side.wire
        side.connect()
        side.feed(get())
        drained = side.factory.drain(10)
        self.assertTrue(idle_wire.is_closed)
        self.assertFalse(side.wire.is_closed)
        hello(side.requests[0])
        self.assertIn(b"Connection: close", side.take())
        self.assertTrue(side.wire.is_closed)
        side.lose()
        self.assertNoResult(drained)
        side.connection = idle
        side.lose()
        self.assertIsNone(self.successResultOf(drained))
        self.assertFalse(side.clock.getDelayedCalls())

    def test_drain_is_bounded(self) -> None:
        """
        When the time is over, a request that has no answer yet gets 503 and the end, and its client, also one that still sends,
        some time to read it; one under its answer is cut.
        """
        side = ServerSide()
        side.feed(get())
        started, started_wire = side.connection, side.wire
        side.requests[0].start(ResponseHead(200, b"OK"))
        side.connect()
        lost: list[int] = []
        side.feed(post(b"x" * 10000)[:-9000])
        side.requests[1].when_lost(lambda: lost.append(1))
        drained = side.factory.drain(10)
        side.clock.advance(10)
        self.assertTrue(started_wire.aborted)
        answer = side.take()
        self.assertTrue(answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"), answer)
        self.assertIn(b"\r\nConnection: close\r\n", answer)
        self.assertIn(b'"kind": "Status"', answer)
        self.assertEqual((lost, side.wire.write_ended, side.wire.aborted), ([1], True, False))
        side.feed(b"x" * 8000)
        self.assertEqual((side.wire.reading, side.wire.aborted), (True, False))
        side.clock.advance(LAST_WORDS_TIMEOUT)
        self.assertTrue(side.wire.aborted)
        side.lose()
        self.assertNoResult(drained)
        side.connection = started
        side.lose()
        self.successResultOf(drained)
        self.assertFalse(side.clock.getDelayedCalls())

    def test_drained_by_last_words(self) -> None:
        """
        Clients that leave once they have read their 503 are not waited for any longer.
        """
        side = ServerSide()
        side.feed(get())
        drained = side.factory.drain(10)
        side.clock.advance(10)
        self.assertIn(b"503 Service Unavailable", side.take())
        side.lose()
        self.successResultOf(drained)
        self.assertFalse(side.clock.getDelayedCalls())

    def test_drain_of_nothing(self) -> None:
        """
        Without connections it fires at once.
        """
        side = ServerSide()
        side.lose()
        self.successResultOf(side.factory.drain(10))
