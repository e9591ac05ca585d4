"""
Tests for :mod:`yurt.kube.authority`.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.api import ApiError
from yurt.kube.authority import PERIOD, AuthorityFollower


class FollowerTests(SynchronousTestCase):
    """
    Tests of AuthorityFollower.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.looks: list[Deferred[None]] = []
        self.follower = AuthorityFollower(self.clock, self.look)
        self.follower.startService()
        self.addCleanup(self.follower.stopService)

    async def look(self) -> None:
        self.looks.append(Deferred())
        await self.looks[-1]

    def test_now_and_then(self) -> None:
        """
        It looks after a period, and not again before that look is over and another period has passed, whatever it met.
        """
        self.clock.advance(PERIOD - 1)
        self.assertEqual(self.looks, [])
        self.clock.advance(PERIOD)
        self.clock.advance(5 * PERIOD)
        self.assertEqual(len(self.looks), 1)
        self.looks[0].errback(ApiError(0, "Unreachable", "nobody answers"))
        self.clock.advance(2 * PERIOD)
        self.assertEqual(len(self.looks), 2)

    def test_look_now(self) -> None:
        """
        Who asks for a look gets it at once, and once.
        """
        for _ in range(3):
            self.follower.look_now()
            self.clock.advance(0)
        self.assertEqual(len(self.looks), 1)

    def test_stop(self) -> None:
        """
        A stop ends a look, and leaves nothing behind.
        """
        self.follower.look_now()
        self.clock.advance(0)
        self.follower.stopService()
        self.assertTrue(self.looks[0].called)
        self.assertEqual(self.clock.getDelayedCalls(), [])
