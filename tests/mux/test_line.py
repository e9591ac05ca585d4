"""
Tests of :mod:`yurt.mux.line`.
"""

from __future__ import annotations

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

    def test_base_is_forgotten(self) -> None:
        """
        The shortest round trip counts for some minutes: the way through the net may have changed.
        """
        line = Line(0.0)
        self.assertEqual(line.base, inf)
        line.pong(line.ping(0.0), 0.01)
        for now in (BASE_AGE / 2, BASE_AGE + 1, 2 * BASE_AGE):
            line.pong(line.ping(now), now + 0.05)
            self.assertAlmostEqual(line.base, 0.01)
        line.pong(line.ping(3 * BASE_AGE), 3 * BASE_AGE + 0.05)
        self.assertAlmostEqual(line.base, 0.05)

    def test_credit(self) -> None:
        """
        Credit is returned in smaller parts on a long line.
        """
        self.assertEqual([self.answered(rtt).credit_shift for rtt in (0.001, 0.1)], [1, 2])
