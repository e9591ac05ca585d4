"""
Tests of :mod:`yurt.hub.patience`.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.hub.fake_upstream import FakeUpstream
from yurt.hub.cloud import Server
from yurt.hub.patience import PATIENCE, PATIENCE_TICK, Patience


class Waiter:
    """
    A request that counts how often it lost its patience.
    """

    def __init__(self, *, awaits_more: bool) -> None:
        self.awaits_more = awaits_more
        self.times = 0
        self.left: list[Server] = []

    def impatient(self) -> None:
        self.times += 1

    def leave(self, server: Server) -> None:
        self.left.append(server)


class PatienceTests(SynchronousTestCase):
    """
    One timer for all who wait.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.patience = Patience(self.clock)

    def let(self, seconds: float) -> None:
        """
        Let time pass in small steps.
        """
        self.clock.pump([PATIENCE_TICK / 2] * round(seconds / PATIENCE_TICK * 2))

    def test_asks_again(self) -> None:
        """
        Who waits for a head asks again and again: a server that was alive a moment ago may be silent now.
        """
        waiter = Waiter(awaits_more=True)
        self.patience.watch(waiter)
        self.let(3 * (PATIENCE + 2 * PATIENCE_TICK))
        self.assertGreaterEqual(waiter.times, 3)
        self.patience.forget(waiter)

    def test_asks_once(self) -> None:
        """
        Who waits for more of a body asks once after each piece: it may be the client that is slow.
        """
        waiter = Waiter(awaits_more=False)
        self.patience.watch(waiter)
        self.let(4 * PATIENCE)
        self.assertEqual(waiter.times, 1)

    def test_each_in_time(self) -> None:
        """
        Beginning a wait anew puts nobody else off.
        """
        first, second = Waiter(awaits_more=False), Waiter(awaits_more=False)
        self.patience.watch(first)
        self.patience.watch(second)
        self.let(PATIENCE / 2)
        self.patience.watch(first)
        self.let(PATIENCE / 2 + 2 * PATIENCE_TICK)
        self.assertEqual((first.times, second.times), (0, 1))

    def test_silence(self) -> None:
        """
        That a server has fallen silent is told to all who wait, and to nobody else.
        """
        waiting, done = Waiter(awaits_more=True), Waiter(awaits_more=True)
        upstream = FakeUpstream(self.clock)
        server = Server("https://a", upstream, upstream)
        for one in (waiting, done):
            self.patience.watch(one)
        self.patience.forget(done)
        self.patience.leave(server)
        self.assertEqual((waiting.left, done.left), ([server], []))
        self.patience.stop()

    def test_leaves_no_timer(self) -> None:
        """
        With nobody waiting there is no timer, nor after a stop.
        """
        waiter = Waiter(awaits_more=True)
        self.patience.watch(waiter)
        self.patience.forget(waiter)
        self.let(1.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.patience.watch(waiter)
        self.patience.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
