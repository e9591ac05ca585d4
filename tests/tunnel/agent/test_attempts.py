"""
Tests of :mod:`yurt.tunnel.agent.attempts`: with a clock of the test's, and attempts that end as it says.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from yurt.tunnel.agent.attempts import Attempts
from yurt.tunnel.agent.links import Link
from yurt.tunnel.agent.patience import CONNECT_TIMEOUT, FIRST_WAIT
from yurt.tunnel.link import LinkError

RECOVERY = 5.0
"""Seconds in which an agent is to be back."""


class AttemptsTests(SynchronousTestCase):
    """
    Tests of Attempts.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.begun: list[Deferred[Link]] = []
        self.given_up: list[Deferred[Link]] = []
        self.silences: list[Callable[[], object]] = []
        self.attempts = Attempts(self.clock, self.dial, lambda: 1.0)

    async def dial(self, silent: Callable[[], object]) -> Link:
        """
        One attempt.
        """
        attempt: Deferred[Link] = Deferred(self.given_up.append)
        self.begun.append(attempt)
        self.silences.append(silent)
        return await attempt

    def silence(self) -> None:
        """
        The newest attempt hears nothing, and the time passes after which another one begins.
        """
        self.silences[-1]()
        self.clock.advance(FIRST_WAIT)

    def test_answered(self) -> None:
        """
        One attempt is all where it is answered.
        """
        self.begun[0].callback(Link("a"))
        self.assertEqual(self.successResultOf(self.attempts.link).server, "a")
        self.clock.advance(60)
        self.assertEqual((len(self.begun), self.clock.getDelayedCalls()), (1, []))

    def test_failed(self) -> None:
        """
        Nor is another one made beside it where it fails.
        """
        self.begun[0].errback(LinkError("no", word="refused"))
        self.failureResultOf(self.attempts.link, LinkError)
        self.assertEqual((len(self.begun), self.clock.getDelayedCalls()), (1, []))

    def test_beside(self) -> None:
        """
        Others begin beside an attempt that hears nothing, soon enough for a server that has returned; the first that is through
        stays, and the others are given up.
        """
        self.assertLess(CONNECT_TIMEOUT + FIRST_WAIT, RECOVERY)
        self.silence()
        self.silence()
        self.assertEqual((len(self.begun), self.given_up), (3, []))
        self.begun[1].callback(Link("second"))
        self.assertEqual(self.successResultOf(self.attempts.link).server, "second")
        self.assertEqual(self.given_up, [self.begun[0], self.begun[2]])
        self.clock.advance(60)
        self.assertEqual(len(self.begun), 3)

    def test_first_decides(self) -> None:
        """
        The first attempt keeps its turn when another one fails, which is followed by one more; when it fails itself, all is over.
        """
        self.silence()
        self.begun[1].errback(LinkError("no room", word="timeout"))
        self.assertNoResult(self.attempts.link)
        self.clock.advance(FIRST_WAIT)
        self.assertEqual(len(self.begun), 3)
        self.begun[0].errback(LinkError("silent", word="timeout"))
        self.assertIn("silent", str(self.failureResultOf(self.attempts.link, LinkError).value))
        self.assertEqual(self.given_up, [self.begun[2]])

    def test_silent_and_failed(self) -> None:
        """
        An attempt that was silent and then fails is followed by one other, and not by two.
        """
        self.silence()
        self.silences[-1]()
        self.begun[-1].errback(LinkError("no", word="unreachable"))
        self.clock.advance(FIRST_WAIT)
        self.assertEqual(len(self.begun), 3)
        self.begun[0].callback(Link("a"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """
        All are given up together, also what has not begun yet.
        """
        self.silence()
        self.silences[-1]()
        self.attempts.link.cancel()
        self.failureResultOf(self.attempts.link, CancelledError)
        self.assertEqual((self.given_up, self.clock.getDelayedCalls()), (self.begun, []))
