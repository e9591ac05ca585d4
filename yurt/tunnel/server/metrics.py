"""
What the server counts: plain numbers on the hot path, turned into Prometheus families when somebody scrapes.

Names that OpenYurt has are OpenYurt's (prefix ``yurttunnel_server_``).  All labels come from small sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

PREFIX = "yurttunnel_server"

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

REFUSALS = frozenset(
    {
        "malformed", "forbidden", "refused", "unreachable", "timeout", "name-unknown", "draining", "exhausted", "unknown-node",
        "not-connected", "reset", "cancelled", "unauthenticated", "full", "handshake", "version",
    }
)  # fmt: skip
"""Words for why something was refused: those of the protocol's ``Yurt-Refused``, and the server's own."""

ENDINGS = frozenset({"lost", "silent", "protocol", "drained", "replaced", "stopped", "expired", "removed"})
"""Why connections of agents end."""

VERBS = frozenset({"get", "head", "post", "put", "patch", "delete", "options", "connect"})

MAX_PATHS = 64
"""First words of request paths that are counted apart; the others are one series."""

OTHER = "other"


@dataclass(frozen=True)
class Figures:
    """
    What the parts of the server know at the moment of a scrape.  ``bytes_received`` and ``bytes_sent`` are of all links that are
    open now.
    """

    nodes: int = 0
    agent_connections: int = 0
    streams: int = 0
    peers: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    cloud_nodes: int = 0
    certificates_expire_in: Mapping[str, float] = field(default_factory=dict)
    connections: Mapping[str, int] = field(default_factory=dict)
    """Connections open now, by door."""


class ServerMetrics:
    """
    The numbers of one server, and the collector that shows them.  ``read`` may be replaced once the parts it asks exist.
    """

    def __init__(self, registry: CollectorRegistry, version: str, read: Callable[[], Figures] = Figures) -> None:
        self.version = version
        self.read = read
        self.bytes_received = self.bytes_sent = 0
        """Bytes of links that have ended."""
        self._accepted: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._endings: Counter[str] = Counter()
        self._reconnects: Counter[str] = Counter()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._paths: set[str] = set()
        self._labels: dict[tuple[bytes, bytes], tuple[str, str]] = {}
        """Those of the first methods and paths that came."""
        self._dial = Histogram(
            f"{PREFIX}_dial_duration_seconds", "Until the node's port was connected", buckets=SECONDS, registry=registry
        )
        self._first_byte = Histogram(
            f"{PREFIX}_first_byte_seconds", "From the dial to the first byte of the node", buckets=SECONDS, registry=registry
        )
        registry.register(self)

    # What the data path tells

    def accepted(self, door: str) -> None:
        """
        A connection came in: ``tls`` or ``plain``, ``diverted`` on either port, or a stream by a ``peer``.
        """
        self._accepted[door] += 1

    def dialled(self, seconds: float) -> None:
        """
        A node's port was connected.
        """
        self._dial.observe(seconds)

    def first_byte(self, seconds: float) -> None:
        """
        The first byte of a stream came, so long after its dial began.
        """
        self._first_byte.observe(seconds)

    def refused(self, word: str) -> None:
        """
        Something was refused, or a dial failed, for one of REFUSALS.
        """
        self._refusals[word if word in REFUSALS else OTHER] += 1

    def ended(self, ending: str) -> None:
        """
        A connection of an agent ended for one of ENDINGS.
        """
        self._endings[ending if ending in ENDINGS else OTHER] += 1

    def reconnected(self, ending: str) -> None:
        """
        An agent is back whose connection before ended for one of ENDINGS.
        """
        self._reconnects[ending if ending in ENDINGS else OTHER] += 1

    def request_started(self, method: bytes, path: bytes) -> tuple[str, str]:
        """
        A request is being served; returns the labels to give back to :meth:`request_ended`.
        """
        labels = self._labels.get((method, path)) or self._labels_of(method, path)
        self._requests[labels] += 1
        return labels

    def request_ended(self, labels: tuple[str, str]) -> None:
        """
        That request is over.
        """
        self._requests[labels] -= 1

    def _labels_of(self, method: bytes, path: bytes) -> tuple[str, str]:
        verb = method.decode("latin-1").lower()
        labels = (verb if verb in VERBS else OTHER, self._path_label(path))
        if len(self._labels) < MAX_PATHS:
            self._labels[method, path] = labels
        return labels

    def _path_label(self, path: bytes) -> str:
        first = "/" + path.decode("latin-1").partition("?")[0].strip("/").partition("/")[0][:32]
        if first not in self._paths and len(self._paths) >= MAX_PATHS:
            return OTHER
        self._paths.add(first)
        return first

    # What the scraper sees

    def collect(self) -> Iterator[Metric]:
        """
        All families but the histograms; called by the registry.
        """
        figures = self.read()
        yield from self._requests_now()
        yield _gauge("cloud_nodes_counter", "Addresses that are reached directly", figures.cloud_nodes)
        yield _gauge("agents", "Nodes with an agent connected here", figures.nodes)
        yield _gauge("agent_connections", "Connections of agents", figures.agent_connections)
        yield _gauge("peers", "Other servers connected", figures.peers)
        yield _gauge("streams", "Streams open to agents and other servers", figures.streams)
        if figures.certificates_expire_in:
            text = "Seconds until the certificate expires, negative once it has"
            yield _labelled(GaugeMetricFamily, "certificate_expiry_seconds", text, "certificate", figures.certificates_expire_in)
        yield _labelled(GaugeMetricFamily, "connections", "Connections open, by door", "door", figures.connections)
        yield _labelled(
            CounterMetricFamily,
            "accepted",
            "Connections taken on the two ports, and streams of other servers, by door",
            "door",
            self._accepted,
        )
        yield _labelled(CounterMetricFamily, "refused", "What was refused, by reason", "reason", self._refusals)
        yield _labelled(CounterMetricFamily, "agent_endings", "Ends of agents' connections", "reason", self._endings)
        yield _labelled(
            CounterMetricFamily, "reconnects", "Agents that came back, by why they were gone", "reason", self._reconnects
        )
        bytes_moved = {
            "from_node": self.bytes_received + figures.bytes_received,
            "to_node": self.bytes_sent + figures.bytes_sent,
        }
        yield _labelled(CounterMetricFamily, "bytes", "Payload carried", "direction", bytes_moved)
        build = GaugeMetricFamily(f"{PREFIX}_build_info", "Version of the server; always 1", labels=["version"])
        build.add_metric([self.version], 1)
        yield build

    def _requests_now(self) -> Iterator[Metric]:
        flying = GaugeMetricFamily(f"{PREFIX}_in_proxy_requests", "Requests being served", labels=["verb", "path"])
        for labels, count in self._requests.items():
            flying.add_metric(labels, count)
        yield flying
        yield _gauge("total_in_proxy_requests", "All requests being served", self._requests.total())


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _labelled(
    family: type[CounterMetricFamily] | type[GaugeMetricFamily], name: str, text: str, label: str, values: Mapping[str, float]
) -> Metric:
    made = family(f"{PREFIX}_{name}", text, labels=[label])
    for value, count in sorted(values.items()):
        made.add_metric([value], count)
    return made
