"""
Promises of a deadline that moves.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from yurt.http.deadline import Deadline


class DeadlineTests(SynchronousTestCase):
    """
    Tests of :class:`Deadline` on a clock.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.came: list[float] = []
        self.deadline = Deadline(self.clock, lambda: self.came.append(self.clock.seconds()))

    def test_comes(self) -> None:
        """
        It comes once, at its moment.
        """
        self.assertFalse(self.deadline.is_set)
        self.deadline.set(5)
        self.assertTrue(self.deadline.is_set)
        self.clock.pump([4.75, 0.25, 10])
        self.assertEqual((self.came, self.clock.getDelayedCalls()), ([5.0], []))

    def test_later(self) -> None:
        """
        A later moment counts alone, and moves no timer: there is one, that of the first moment, until it fires.
        """
        self.deadline.set(5)
        timer = self.clock.getDelayedCalls()[0]
        for _ in range(4):
            self.clock.advance(1)
            self.deadline.set(5)
            self.assertEqual((self.clock.getDelayedCalls(), timer.getTime()), ([timer], 5.0))
        self.clock.pump([1, 3.75])
        self.assertEqual(self.came, [])
        self.clock.advance(0.25)
        self.assertEqual(self.came, [9.0])

    def test_sooner(self) -> None:
        """
        A sooner moment is not missed for the timer of the one before.
        """
        self.deadline.set(60)
        self.deadline.set(2)
        self.clock.advance(2)
        self.assertEqual((self.came, self.clock.getDelayedCalls()), ([2.0], []))

    def test_cleared(self) -> None:
        """
        Without a moment nothing comes; the time that was left, never less than none, can be asked before.
        """
        self.deadline.set(5)
        self.clock.advance(2)
        self.assertEqual(self.deadline.left, 3.0)
        self.deadline.clear()
        self.assertFalse(self.deadline.is_set)
        self.clock.advance(10)
        self.assertEqual((self.came, self.clock.getDelayedCalls()), ([], []))
        self.deadline.set(1)
        self.clock.advance(3)
        self.assertEqual((self.came, self.deadline.left), ([13.0 + 2], 0.0))

    def test_cancelled(self) -> None:
        """
        After the end nothing is scheduled.
        """
        self.deadline.cancel()
        self.deadline.set(5)
        self.deadline.cancel()
        self.assertEqual((self.clock.getDelayedCalls(), self.deadline.is_set), ([], False))
