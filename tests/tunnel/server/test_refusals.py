"""
Tests of what is told of refusals.
"""

from __future__ import annotations

from typing import cast

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from yurt.tunnel.server.metrics import ServerMetrics
from yurt.tunnel.server.refusals import LOG_INTERVAL, MAX_LINES, Refusals


class RefusalsTests(SynchronousTestCase):
    """
    Tests of Refusals.
    """

    def setUp(self) -> None:
        self.lines: list[str] = []
        observer = cast(ILogObserver, self.observe)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.registry = CollectorRegistry()
        self.clock = Clock()
        self.refusals = Refusals(self.clock, ServerMetrics(self.registry, "1"))

    def observe(self, event: LogEvent) -> None:
        """
        Keep a line of the log.
        """
        self.lines.append(formatEvent(event))

    def test_all_counted(self) -> None:
        """
        Each refusal is counted, but the log gets a bounded number of lines, and then how many it did not get.
        """
        for number in range(MAX_LINES + 7):
            self.refusals.refuse("refused" if number % 2 else "timeout", f"node edge-{number}: nobody listens")
        count = sum(
            self.registry.get_sample_value("yurttunnel_server_refused_total", {"reason": word}) or 0
            for word in ("refused", "timeout")
        )
        self.assertEqual((count, len(self.lines)), (MAX_LINES + 7, MAX_LINES))
        self.assertEqual(self.lines[0], "refused (timeout): node edge-0: nobody listens")
        self.clock.advance(LOG_INTERVAL)
        self.refusals.refuse("refused", "once more")
        self.assertEqual(
            self.lines[MAX_LINES:],
            ["refused or broken in the meantime, without a line each: 3 × refused, 4 × timeout", "refused (refused): once more"],
        )

    def test_broken(self) -> None:
        """
        The answers that a lost link breaks off fill no disk either, and are no refusals.
        """
        for number in range(MAX_LINES + 7):
            self.refusals.broke(f"GET '/containerLogs/default/web-{number}' from 10.0.0.1: the answer of node edge-1 broke off")
        self.assertEqual(len(self.lines), MAX_LINES)
        self.clock.advance(LOG_INTERVAL)
        self.refusals.refuse("not-connected", "edge-1")
        untold = "refused or broken in the meantime, without a line each: 7 × broken connections"
        self.assertEqual(self.lines[MAX_LINES:], [untold, "refused (not-connected): edge-1"])
