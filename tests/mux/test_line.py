"""
Tests of :mod:`yurt.mux.line`.
"""

from __future__ import annotations

from collections import deque
from math import inf

from twisted.trial.unittest import SynchronousTestCase

from yurt.mux.line import BASE_AGE, FIRST_FLIGHT, LONE_QUEUE, MAX_FLIGHT, MAX_LONE, MAX_PINGS, MIN_FLIGHT, THIN_FLIGHT, Line


class LineTests(SynchronousTestCase):
    """
    Tests of what pings tell.
    """

    def answered(self, rtt: float = 0.001) -> Line:
        """
        A line that has answered one ping.
        """
        line = Line(0.0)
        line.pong(line.ping(0.0), rtt)
        return line

    def carry(self, line: Line, rtt: float, rounds: int, share: int = 1) -> int:
        """
        Fill the line (or a part of it) again and again; returns what it may hold in the end.
        """
        now = 10.0
        for _ in range(rounds):
            line.sent += line.room // share
            value = line.ping(now)
            now += rtt
            line.pong(value, now)
        return line.room

    def test_answers(self) -> None:
        """
        An answer tells the round trip, and that all sent before the ping was taken.
        """
        line = Line(0.0)
        line.sent = 1000
        value = line.ping(0.0)
        line.sent = 3000
        self.assertTrue(line.awaits_answer)
        line.pong(value, 0.25)
        self.assertEqual((line.rtt, line.acked, line.awaits_answer), (0.25, 1000, False))

    def test_strange_answers(self) -> None:
        """
        An answer to nothing, one given twice, and one that a later answer overtook tell nothing.
        """
        line = Line(0.0)
        first, second = line.ping(0.0), line.ping(0.0)
        line.pong(99, 1.0)
        self.assertIsNone(line.rtt)
        line.pong(second, 2.0)
        for late in (first, second):
            line.pong(late, 3.0)
        self.assertEqual((line.rtt, line.answers), (2.0, 1))

    def test_no_answers(self) -> None:
        """
        A peer that never answers is sent what its windows allow, and not pinged for ever.
        """
        line = Line(0.0)
        for _ in range(1000):
            line.sent += MIN_FLIGHT
            if line.wants_ping:
                line.ping(0.0)
        self.assertEqual((line.room, line.wants_ping, len(line._pings)), (MAX_FLIGHT, False, MAX_PINGS))

    def test_flight_never_locks(self) -> None:
        """
        When no ping is unanswered there is room; when there is no room a ping is unanswered, or wanted.
        """
        for rtt in (0.0005, 0.05):
            line = self.answered(rtt)
            now = 1.0
            for step in range(2000):
                line.sent += max(0, line.room) // (1 + step % 3)
                if line.wants_ping:
                    line.ping(now)
                self.assertTrue(line.room > 0 or line.awaits_answer)
                if step % 2 and line.awaits_answer:
                    now += rtt * (1 + step % 7)
                    line.pong(line._pings[0][0], now)

    def test_flight_follows_a_long_line(self) -> None:
        """
        On a long line that carries all at once the flight grows; it stays when less is sent than it allows.
        """
        line = self.answered(0.1)
        full = self.carry(line, 0.1, 30)
        self.assertGreater(full, 20 * MIN_FLIGHT)
        self.assertEqual(self.carry(line, 0.1, 30, share=10), full)

    def test_flight_follows_a_slow_peer(self) -> None:
        """
        When the round trip grows with what is on its way that becomes less, down to a bound, which is lower on a thin line.
        """
        line = self.answered(0.001)
        self.carry(line, 0.001, 30)
        self.assertEqual(self.carry(line, 0.02, 60), MIN_FLIGHT)
        self.assertEqual(self.carry(line, 1.5, 2), THIN_FLIGHT)
        self.assertEqual(self.carry(line, 0.001, 1), MIN_FLIGHT)

    def test_first_flight(self) -> None:
        """
        Little is on its way until the line's rate is known; a fast line then carries more at once.
        """
        line = self.answered(0.001)
        self.assertEqual(line.room, FIRST_FLIGHT)
        self.assertEqual(self.carry(line, 0.001, 1), MIN_FLIGHT)

    def test_flight_of_a_lone_stream(self) -> None:
        """
        While all that is on its way is one stream's that may be more: what the line carries in some milliseconds, with a bound.
        """
        for rtt in (0.0005, 0.02, 1.0):
            line = self.answered(rtt)
            flight = self.carry(line, rtt, 30)
            line.carry(1, 0)
            more = min(MAX_LONE, int(flight * LONE_QUEUE / rtt), MAX_FLIGHT - flight)
            self.assertLessEqual(line.room, flight + more)
            self.assertGreaterEqual(line.room, flight + 0.75 * more)
            line.carry(1, 100)
            line.carry(3, 1)
            self.assertEqual(line.room, flight - 101)
            line.carry(3, MIN_FLIGHT // 4)
            ping = line.ping(100.0)
            line.pong(ping, 100.0 + rtt)
            self.assertTrue(line._flight < line.flight or line.flight == MAX_FLIGHT)

    def test_flight_has_an_end(self) -> None:
        """
        No line may hold more than the bound.
        """
        self.assertEqual(self.carry(self.answered(1.0), 1.0, 100), MAX_FLIGHT)

    def fill(self, line: Line, now: float, seconds: float, way: float, rate: float, lost: float = inf) -> tuple[float, float]:
        """
        Send all that the line lets for so long, over a way of that round trip and rate on which a packet is lost every ``lost``
        seconds; returns the time and the rate reached.
        """
        begin, taken, free, again = now, line.acked, now, now + lost
        asked: deque[tuple[float, int]] = deque()
        while asked or now < begin + seconds:
            while now < begin + seconds and (line.room > 0 or line.wants_ping):
                size = max(0, min(line.stretch, line.room))
                line.sent += size
                free = max(free, now) + size / rate
                if line.wants_ping:
                    asked.append((free + way, line.ping(now)))
            at, value = asked.popleft()
            if at >= again:  # what came behind it waits until it has come again
                held, again = again + 1.2 * way, again + lost
                asked = deque((max(due, held), value) for due, value in asked)
                at = max(at, held)
            now = at
            line.pong(value, now)
        return now, (line.acked - taken) / (now - begin)

    def test_way_becomes_longer(self) -> None:
        """
        A way that has become five times as long, without an end of the connection, is filled again within seconds, be it full
        meanwhile or idle.
        """
        rate = 12e6
        line = self.answered(0.02)
        now, _ = self.fill(line, 1.0, 5.0, 0.02, rate)
        now, reached = self.fill(line, now, BASE_AGE - 1, 0.1, rate)
        self.assertLess(reached, rate / 2)
        now, _ = self.fill(line, now, 5.0, 0.1, rate)
        self.assertGreater(self.fill(line, now, 5.0, 0.1, rate)[1], 0.9 * rate)
        self.assertAlmostEqual(line.base, 0.1, 1)
        idle = self.answered(0.02)
        for now in (BASE_AGE / 2, BASE_AGE + 1):
            self.assertAlmostEqual(idle.base, 0.02)
            idle.pong(idle.ping(now), now + 0.1)
        self.assertAlmostEqual(idle.base, 0.1)
        idle.pong(idle.ping(now), now + 0.03)
        self.assertAlmostEqual(idle.base, 0.03)

    def test_queue_is_no_way(self) -> None:
        """
        The time that bytes wait behind others is not taken for the way, however long a line is full: no queue grows by that.
        """
        for way, rate in ((0.05, 125e3), (0.02, 2.5e6), (0.1, 12e6), (0.002, 1e8)):
            line = self.answered(way)
            now, reached = self.fill(line, 1.0, 300.0, way, rate)
            self.assertGreater(reached, 0.9 * rate)
            self.assertLess(line.base, 2 * way + 0.1)
            self.assertLess(line.flight / rate, 2 * way + 0.3)

    def test_lost_packets(self) -> None:
        """
        A long line that loses a packet now and then is filled all the same: an answer that waits for it says nothing of its rate.
        """
        for rounds in (3, 4, 6):
            line = self.answered(0.1)
            now, _ = self.fill(line, 1.0, 5.0, 0.1, 12e6, lost=0.1 * rounds)
            self.assertGreater(self.fill(line, now, 20.0, 0.1, 12e6, lost=0.1 * rounds)[1], 0.9 * 12e6)

    def test_rate_is_forgotten(self) -> None:
        """
        A long line that has become slower is not sent more than that for long.
        """
        line = self.answered(0.05)
        now, _ = self.fill(line, 1.0, 5.0, 0.05, 12e6)
        now, _ = self.fill(line, now, 5.0, 0.05, 1e6)
        self.assertLess(line.flight / 1e6, 0.55)

    def test_credit(self) -> None:
        """
        Credit is returned in smaller parts on a long line.
        """
        self.assertEqual([self.answered(rtt).credit_shift for rtt in (0.001, 0.1)], [1, 2])
