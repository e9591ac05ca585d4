"""
What the agent counts: plain numbers on the data path, turned into Prometheus families when somebody scrapes.  All labels
come from small sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

PREFIX = "yurttunnel_agent"

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True, slots=True)
class Figures:
    """
    What the links know at the moment of a scrape; bytes are of all links that ever were.
    """

    servers: int = 0
    streams: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    certificate_expires_in: float | None = None


class AgentMetrics:
    """
    The numbers of one agent, and the collector that shows them.  ``read`` may be replaced once the parts it asks exist.
    """

    def __init__(self, registry: CollectorRegistry, version: str, read: Callable[[], Figures] = Figures) -> None:
        self.read = read
        self._version = version
        self._connects = self._abandoned = 0
        self._failures: Counter[str] = Counter()
        self._endings: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._dial = Histogram(
            f"{PREFIX}_dial_duration_seconds", "Until a port of this node was connected", buckets=SECONDS, registry=registry
        )
        registry.register(self)

    def connected(self) -> None:
        """
        There is a link.
        """
        self._connects += 1

    def connect_failed(self, word: str) -> None:
        """
        There is none, for a reason in one word.
        """
        self._failures[word] += 1

    def ended(self, word: str) -> None:
        """
        A link ended, or takes no new streams.
        """
        self._endings[word] += 1

    def dialled(self, seconds: float) -> None:
        """
        A port of this node was connected.
        """
        self._dial.observe(seconds)

    def refused(self, word: str) -> None:
        """
        A stream was refused.
        """
        self._refusals[word] += 1

    def abandoned(self) -> None:
        """
        The server lost interest before the dial was through.
        """
        self._abandoned += 1

    def collect(self) -> Iterator[Metric]:
        """
        See prometheus_client.registry.Collector.
        """
        figures = self.read()
        yield GaugeMetricFamily(f"{PREFIX}_servers", "Servers that this agent is connected to", figures.servers)
        yield GaugeMetricFamily(f"{PREFIX}_streams", "Streams open now", figures.streams)
        yield CounterMetricFamily(f"{PREFIX}_received_bytes", "Bytes of streams from servers", figures.bytes_received)
        yield CounterMetricFamily(f"{PREFIX}_sent_bytes", "Bytes of streams to servers", figures.bytes_sent)
        yield CounterMetricFamily(f"{PREFIX}_connects", "Links made", self._connects)
        yield CounterMetricFamily(f"{PREFIX}_dials_abandoned", "Dials that the server gave up", self._abandoned)
        for name, text, counts in (
            ("connect_failures", "Attempts to connect that failed, by reason", self._failures),
            ("disconnects", "Links that ended, by reason", self._endings),
            ("refused", "Streams refused, by reason", self._refusals),
        ):
            family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=["reason"])
            for word, count in sorted(counts.items()):
                family.add_metric([word], count)
            yield family
        if figures.certificate_expires_in is not None:
            text = "Seconds until the agent's certificate expires, negative once it has"
            yield GaugeMetricFamily(f"{PREFIX}_certificate_expiry_seconds", text, figures.certificate_expires_in)
        build = GaugeMetricFamily(f"{PREFIX}_build_info", "The version that runs", labels=["version"])
        build.add_metric([self._version], 1)
        yield build
