"""
What the hub counts: plain numbers on the hot path, turned into Prometheus families when somebody scrapes.

Names that OpenYurt has are OpenYurt's (prefix ``node_yurthub_``); those of its counters lack the ending ``_total``, so
they go out as untyped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, UntypedMetricFamily

from yurt.hub.filters.choice import NAMES
from yurt.hub.swept import Swept

PREFIX = "node_yurthub"
MAX_SERIES = 2000
"""Combinations of client, verb, resource and subresource that are counted apart; all further ones are one series, "other"."""
MAX_CLIENTS = 50
"""Clients, other than the cached agents, that are counted by name: a User-Agent costs nothing to make up."""
OTHER = "other"

Source = Literal["cloud", "cache", "hub"]

_LABEL = re.compile(r"[a-z0-9._-]{0,63}")


class Series:
    """
    The requests of one client for one resource with one verb.  The data path adds to these numbers directly.

    ``received`` and ``sent`` are body bytes from and to the cloud, ``local`` body bytes answered without it.  Latencies
    are the last ones, in seconds, None before the first: until the response head of the cloud, and until the end of the
    response.
    """

    __slots__ = (
        "client", "verb", "resource", "subresource", "in_flight", "from_cloud", "from_cache", "from_hub",
        "received", "sent", "local", "hits", "misses", "cloud_latency", "full_latency",
    )  # fmt: skip

    def __init__(self, client: str, verb: str, resource: str, subresource: str) -> None:
        self.client = client
        self.verb = verb
        self.resource = resource
        self.subresource = subresource
        self.in_flight = 0
        self.from_cloud = self.from_cache = self.from_hub = 0
        self.received = self.sent = self.local = 0
        self.hits = self.misses = 0
        self.cloud_latency: float | None = None
        self.full_latency: float | None = None

    @property
    def labels(self) -> list[str]:
        """
        The values of LABELS.
        """
        return [self.client, self.verb, self.resource, self.subresource]


LABELS = ["client", "verb", "resource", "subresources"]


@dataclass(frozen=True)
class ServerFigures:
    """
    One server of the cloud: alive or not, and the connections open to it.
    """

    healthy: bool
    connections: int


@dataclass(frozen=True)
class LedFigures:
    """
    Connections to the API server's ClusterIP that were led to the hub: open, come, and not passed on.
    """

    open: int = 0
    taken: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Figures:
    """
    What other parts of the hub know at the moment of a scrape; times in seconds, sizes in bytes.
    """

    servers: Mapping[str, ServerFigures] = field(default_factory=dict)
    cloud_reachable: bool = False
    offline_seconds: float = 0.0
    certificate_expires_in: float | None = None
    serving_certificate_expires_in: float | None = None
    led: LedFigures = field(default_factory=LedFigures)
    cache_objects: int = 0
    cache_bytes: int = 0
    cache_commits: int = 0
    cache_write_errors: int = 0
    cache_corrupt_records: int = 0
    cache_dropped: int = 0
    cache_locked_records: int = 0
    cache_quota: int = 0
    cache_refused: int = 0
    swept: Swept = field(default_factory=Swept)
    journal_length: int = 0
    journal_dropped: int = 0
    filters_unfiltered: Mapping[str, int] = field(default_factory=dict)
    filters_degraded: Collection[str] = ()


class HubMetrics:
    """
    The numbers of one hub, and the collector that shows them.  ``read`` may be replaced once the parts it asks exist;
    ``agents`` are the clients that always have a label of their own.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        version: str,
        read: Callable[[], Figures] = Figures,
        agents: Collection[str] = (),
    ) -> None:
        self.version = version
        self.read = read
        self.rejected = 0
        """Requests answered 429 because too many were in flight."""
        self._agents = frozenset(agents)
        self._clients: set[str] = set()
        self._series: dict[tuple[str, str, str, str], Series] = {}
        registry.register(self)

    def series(self, client: str, verb: str, resource: str, subresource: str = "") -> Series:
        """
        The series of these labels, the same object each time; "other" stands for clients beyond MAX_CLIENTS and for names that
        are none of Kubernetes, and for all of it beyond MAX_SERIES.
        """
        key = (client, verb, resource, subresource)
        found = self._series.get(key)
        if found is not None:
            return found
        key = (self._client_label(client), _label(verb), _label(resource), _label(subresource))
        if key not in self._series and len(self._series) >= MAX_SERIES:
            key = (OTHER, OTHER, OTHER, "")
        if key not in self._series:
            self._series[key] = Series(*key)
        return self._series[key]

    def _client_label(self, client: str) -> str:
        label = _label(client)
        if label in self._agents or label in self._clients:
            return label
        if len(self._clients) >= MAX_CLIENTS:
            return OTHER
        self._clients.add(label)
        return label

    def collect(self) -> Iterator[Metric]:
        """
        All families; called by the registry.
        """
        every = list(self._series.values())
        figures = self.read()
        yield from _requests(every)
        yield from _traffic(every)
        yield from _latencies(every)
        yield _plain(UntypedMetricFamily, "rejected_requests_counter", "Requests answered 429: too many in flight", self.rejected)
        yield from _cloud(figures)
        yield from _led(figures.led)
        yield from _store(figures)
        yield from _filters(figures)
        yield from self._sweeps(figures)
        build = GaugeMetricFamily(f"{PREFIX}_build_info", "Version of the hub; always 1", labels=["version"])
        build.add_metric([self.version], 1)
        yield build

    def _sweeps(self, figures: Figures) -> Iterator[Metric]:
        swept = figures.swept
        yield _plain(GaugeMetricFamily, "cache_quota_bytes", "Bytes of objects that the cache may hold", figures.cache_quota)
        text = "Bytes that the component's views held at the last look"
        held = GaugeMetricFamily(f"{PREFIX}_cache_component_bytes", text, labels=["client"])
        sums: dict[str, int] = {}
        for component, size in swept.usage.items():
            label = self._client_label(component)
            sums[label] = sums.get(label, 0) + size
        for label, size in sums.items():
            held.add_metric([label], size)
        yield held
        text = "Lists not kept, being larger than their component's quota"
        yield _plain(CounterMetricFamily, "cache_refused_lists", text, figures.cache_refused)
        yield _plain(CounterMetricFamily, "gc_sweeps", "Sweeps of the cache", swept.sweeps)
        removed = CounterMetricFamily(f"{PREFIX}_gc_removed", "What sweeps removed from the cache", labels=["what"])
        for what, number in swept.removed.items():
            removed.add_metric([what], number)
        yield removed
        text = "Sweeps that spared the pods, as the cloud had none of them"
        yield _plain(CounterMetricFamily, "gc_refused", text, swept.refused)


def _label(text: str) -> str:
    return text if _LABEL.fullmatch(text) else OTHER


def _plain(
    family: type[CounterMetricFamily] | type[GaugeMetricFamily] | type[UntypedMetricFamily], name: str, text: str, value: float
) -> Metric:
    return family(f"{PREFIX}_{name}", text, value=value)


def _requests(every: Iterable[Series]) -> Iterator[Metric]:
    flying = GaugeMetricFamily(f"{PREFIX}_in_flight_requests_collector", "Requests in flight, watches among them", labels=LABELS)
    answered = CounterMetricFamily(f"{PREFIX}_requests", "Requests answered, by who answered", labels=[*LABELS, "source"])
    total = 0
    for one in every:
        flying.add_metric(one.labels, one.in_flight)
        total += one.in_flight
        for source, count in (("cloud", one.from_cloud), ("cache", one.from_cache), ("hub", one.from_hub)):
            if count:
                answered.add_metric([*one.labels, source], count)
    yield flying
    yield _plain(GaugeMetricFamily, "in_flight_requests_total", "All requests in flight", total)
    yield answered


def _traffic(every: Iterable[Series]) -> Iterator[Metric]:
    traffic = UntypedMetricFamily(f"{PREFIX}_proxy_traffic_collector", "Body bytes received from the cloud", labels=LABELS)
    sums: dict[tuple[str, str], list[int]] = {}
    for one in every:
        traffic.add_metric(one.labels, one.received)
        into = sums.setdefault((one.client, one.resource), [0, 0, 0, 0, 0])
        for position, value in enumerate((one.received, one.sent, one.local, one.hits, one.misses)):
            into[position] += value
    pair = ["client", "resource"]
    moved = CounterMetricFamily(
        f"{PREFIX}_bytes", "Body bytes: down from the cloud, up to it, local without it", labels=[*pair, "direction"]
    )
    hits = CounterMetricFamily(f"{PREFIX}_cache_hits", "Requests answered from the cache", labels=pair)
    misses = CounterMetricFamily(f"{PREFIX}_cache_misses", "Requests that the cache was asked for in vain", labels=pair)
    for names, (received, sent, local, hit, missed) in sums.items():
        for direction, value in (("down", received), ("up", sent), ("local", local)):
            moved.add_metric([*names, direction], value)
        hits.add_metric(names, hit)
        misses.add_metric(names, missed)
    yield from (traffic, moved, hits, misses)


def _latencies(every: Iterable[Series]) -> Iterator[Metric]:
    latency = GaugeMetricFamily(
        f"{PREFIX}_proxy_latency_collector", "Latency of the last request in milliseconds", labels=[*LABELS, "type"]
    )
    for one in every:
        for kind, seconds in (("apiserver_latency", one.cloud_latency), ("full_latency", one.full_latency)):
            if seconds is not None:
                latency.add_metric([*one.labels, kind], seconds * 1000)
    yield latency


def _cloud(figures: Figures) -> Iterator[Metric]:
    healthy = GaugeMetricFamily(f"{PREFIX}_server_healthy_status", "1 while the server answers, else 0", labels=["server"])
    connections = GaugeMetricFamily(f"{PREFIX}_closable_conns_collector", "Connections open to the server", labels=["server"])
    for name, server in figures.servers.items():
        healthy.add_metric([name], float(server.healthy))
        connections.add_metric([name], server.connections)
    yield from (healthy, connections)
    yield _plain(GaugeMetricFamily, "cloud_reachable", "1 while any server answers, else 0", float(figures.cloud_reachable))
    yield _plain(CounterMetricFamily, "offline_seconds", "Time without the cloud", figures.offline_seconds)
    if figures.certificate_expires_in is not None:
        text = "Seconds until the node's certificate expires, negative once it has"
        yield _plain(GaugeMetricFamily, "certificate_expiry_seconds", text, figures.certificate_expires_in)
    if figures.serving_certificate_expires_in is not None:
        text = "Seconds until the certificate of the HTTPS doors expires, negative once it has"
        yield _plain(GaugeMetricFamily, "serving_certificate_expiry_seconds", text, figures.serving_certificate_expires_in)


def _led(led: LedFigures) -> Iterator[Metric]:
    text = "Connections to the API server's ClusterIP that are passed on to it now"
    yield _plain(GaugeMetricFamily, "passthrough_connections", text, led.open)
    text = "Connections to the API server's ClusterIP that were led to the hub"
    yield _plain(CounterMetricFamily, "passthrough_accepted", text, led.taken)
    text = "Those that could not be passed on: the cloud was away, or there were too many"
    yield _plain(CounterMetricFamily, "passthrough_failures", text, led.failed)


def _filters(figures: Figures) -> Iterator[Metric]:
    text = "1 while a filter is not, or not wholly, applied because what it depends on is not known"
    degraded = GaugeMetricFamily(f"{PREFIX}_filter_degraded", text, labels=["filter"])
    text = "Answers that a filter was not, or not wholly, applied to"
    unfiltered = CounterMetricFamily(f"{PREFIX}_filter_unfiltered", text, labels=["filter"])
    for name in NAMES:
        degraded.add_metric([name], float(name in figures.filters_degraded))
        unfiltered.add_metric([name], figures.filters_unfiltered.get(name, 0))
    yield from (degraded, unfiltered)


def _store(figures: Figures) -> Iterator[Metric]:
    yield _plain(GaugeMetricFamily, "cache_objects", "Objects in the cache", figures.cache_objects)
    yield _plain(GaugeMetricFamily, "cache_bytes", "Bytes of the objects in the cache", figures.cache_bytes)
    yield _plain(CounterMetricFamily, "cache_commits", "Commits to the disk", figures.cache_commits)
    yield _plain(CounterMetricFamily, "cache_write_errors", "Commits that failed", figures.cache_write_errors)
    yield _plain(CounterMetricFamily, "cache_corrupt_records", "Records with a bad checksum", figures.cache_corrupt_records)
    yield _plain(CounterMetricFamily, "cache_dropped", "Writes given up while the disk was broken", figures.cache_dropped)
    text = "Encrypted records whose key is gone"
    yield _plain(CounterMetricFamily, "cache_locked_records", text, figures.cache_locked_records)
    yield _plain(GaugeMetricFamily, "journal_length", "Offline writes that wait for the cloud", figures.journal_length)
    yield _plain(CounterMetricFamily, "journal_dropped", "Offline writes dropped from a full journal", figures.journal_dropped)
