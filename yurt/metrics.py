"""
What every daemon measures of itself.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

LAG_INTERVAL = 0.5
"""Seconds between two measurements of the reactor's lateness."""
LAG_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0)


def new_registry() -> CollectorRegistry:
    """
    A registry of one daemon, with the figures of its process (CPU, memory, open files, start time).
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


class ReactorLag(Service):
    """
    Measure how late the reactor calls what is due: the time by which everything else in this process is late, too.
    """

    def __init__(self, reactor: IReactorTime, registry: CollectorRegistry, prefix: str) -> None:
        self.reactor = reactor
        self.lag = Histogram(
            f"{prefix}_reactor_lag_seconds", "Lateness of the event loop", buckets=LAG_BUCKETS, registry=registry
        )
        self.worst = Gauge(f"{prefix}_reactor_lag_max_seconds", "Greatest lateness since the last scrape", registry=registry)
        self.worst.set_function(self._take_worst)
        self._worst = 0.0
        self._call: IDelayedCall | None = None

    def startService(self) -> None:
        """
        Begin to measure.
        """
        super().startService()
        self._schedule()

    def stopService(self) -> None:
        """
        Measure no more.
        """
        super().stopService()
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def _schedule(self) -> None:
        due = self.reactor.seconds() + LAG_INTERVAL
        self._call = self.reactor.callLater(LAG_INTERVAL, self._measure, due)

    def _measure(self, due: float) -> None:
        late = max(0.0, self.reactor.seconds() - due)
        self.lag.observe(late)
        self._worst = max(self._worst, late)
        self._schedule()

    def _take_worst(self) -> float:
        worst, self._worst = self._worst, 0.0
        return worst
