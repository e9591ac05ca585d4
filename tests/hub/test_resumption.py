"""
Tests of :mod:`yurt.hub.resumption`.
"""

from __future__ import annotations

import random
from typing import cast

from twisted.trial.unittest import SynchronousTestCase

from yurt.hub.cloud import FAILOVER_SPREAD, Cloud, Server
from yurt.hub.resumption import MAX_RESUME_PAUSE, REFUSED_FOR, RESUME_JITTER, RESUME_PAUSE, Resumption


class Servers:
    """
    What a watch knows of the cloud: which servers are there, all of them healthy.
    """

    def __init__(self, *names: str) -> None:
        self.servers = names
        self.reachable = True
        self.failover_spread = FAILOVER_SPREAD

    def other(self, tried: list[str]) -> str | None:
        """
        A server that is none of those ``tried``.
        """
        return next((server for server in self.servers if server not in tried), None)

    def pick(self) -> str | None:
        """
        Any server.
        """
        return self.servers[0] if self.reachable else None


class ResumptionTests(SynchronousTestCase):
    """
    When and where a watch goes on.
    """

    def make(self, *names: str) -> tuple[Resumption, Servers]:
        """
        A watch whose cloud has these servers, and what stands for that cloud.
        """
        servers = Servers(*names)
        return Resumption(cast(Cloud, servers)), servers

    def after_failure(self, resumption: Resumption, server: str) -> float | None:
        """
        An attempt at ``server`` fails; returns the delay of the next.
        """
        resumption.failed(cast("Server", server))
        return resumption.next_delay()

    def test_another_server_at_once(self) -> None:
        """
        While a server is left that has not failed the watch goes there soon; after the last one it starts again with the first,
        later.
        """
        resumption, _ = self.make("a", "b")
        delay = self.after_failure(resumption, "a")
        assert delay is not None
        self.assertLessEqual(delay, FAILOVER_SPREAD)
        self.assertEqual(resumption.choose(), "b")
        self.after_failure(resumption, "b")
        self.assertEqual((resumption.tried, resumption.choose()), ([], "a"))

    def test_pauses_grow(self) -> None:
        """
        Attempts without fruit come further apart, up to a bound; a good one, or the cloud's return, brings them close again.
        """
        resumption, _ = self.make("a")
        self.patch(random, "uniform", lambda low, high: high)
        delays = [self.after_failure(resumption, "a") for _ in range(6)]
        self.assertEqual(delays, [RESUME_PAUSE, 2.0, 4.0, 8.0, MAX_RESUME_PAUSE, MAX_RESUME_PAUSE])
        resumption.bore_fruit()
        self.assertEqual(self.after_failure(resumption, "a"), RESUME_PAUSE)
        self.assertEqual(resumption.delay_after_return(), RESUME_JITTER)
        self.assertEqual(resumption.tried, [])

    def test_waits_for_the_cloud(self) -> None:
        """
        Nothing is tried while the cloud is not reachable.
        """
        resumption, servers = self.make("a")
        servers.reachable = False
        self.assertIsNone(self.after_failure(resumption, "a"))
        resumption.bore_fruit()
        resumption.failed(cast(Server, "a"))
        self.assertIsNone(resumption.choose())

    def test_refused_for_good(self) -> None:
        """
        A 4xx counts once it has come for REFUSED_FOR seconds without another answer between; what may pass never does.
        """
        resumption, _ = self.make("a")
        self.assertFalse(resumption.is_refused_for_good(403, 100.0))
        self.assertFalse(resumption.is_refused_for_good(403, 100.0 + REFUSED_FOR - 1.0))
        self.assertTrue(resumption.is_refused_for_good(404, 100.0 + REFUSED_FOR))
        for status in (429, 503):
            self.assertFalse(resumption.is_refused_for_good(status, 200.0))
            self.assertFalse(resumption.is_refused_for_good(403, 200.0))
        resumption.accepted()
        self.assertFalse(resumption.is_refused_for_good(403, 300.0))
