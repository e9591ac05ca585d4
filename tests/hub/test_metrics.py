"""
Tests of what the hub counts.
"""

from prometheus_client import CollectorRegistry, generate_latest
from twisted.trial.unittest import SynchronousTestCase

from yurt.hub.metrics import MAX_CLIENTS, MAX_SERIES, Figures, HubMetrics, ServerFigures


class HubMetricsTests(SynchronousTestCase):
    """
    Tests of HubMetrics.
    """

    def setUp(self) -> None:
        self.registry = CollectorRegistry()
        self.figures = Figures()
        self.metrics = HubMetrics(self.registry, "1.2.3", lambda: self.figures)

    def value(self, name: str, **labels: str) -> float | None:
        """
        A sample, its name without prefix.
        """
        return self.registry.get_sample_value(f"node_yurthub_{name}", labels)

    def test_series(self) -> None:
        """
        The same labels give the same series, and what is added to it shows.
        """
        pods = self.metrics.series("kubelet", "list", "pods")
        self.assertIs(self.metrics.series("kubelet", "list", "pods"), pods)
        pods.in_flight += 2
        pods.from_cache += 3
        labels = {"client": "kubelet", "verb": "list", "resource": "pods", "subresources": ""}
        self.assertEqual(self.value("in_flight_requests_collector", **labels), 2)
        self.assertEqual(self.value("in_flight_requests_total"), 2)
        self.assertEqual(self.value("requests_total", source="cache", **labels), 3)

    def test_bytes(self) -> None:
        """
        Bytes are summed by client, resource and direction; OpenYurt's figure is what came from the cloud.
        """
        for verb in ("list", "watch"):
            series = self.metrics.series("kubelet", verb, "pods")
            series.received, series.sent, series.local = 100, 10, 1
        pair = {"client": "kubelet", "resource": "pods"}
        self.assertEqual([self.value("bytes_total", direction=way, **pair) for way in ("down", "up", "local")], [200, 20, 2])
        self.assertEqual(self.value("proxy_traffic_collector", verb="list", subresources="", **pair), 100)

    def test_hits(self) -> None:
        """
        Hits and misses of the cache are summed by client and resource.
        """
        series = self.metrics.series("coredns", "get", "services", "status")
        series.hits, series.misses = 5, 2
        pair = {"client": "coredns", "resource": "services"}
        self.assertEqual((self.value("cache_hits_total", **pair), self.value("cache_misses_total", **pair)), (5, 2))

    def test_latency(self) -> None:
        """
        Latencies show in milliseconds once there is one.
        """
        series = self.metrics.series("kubelet", "get", "nodes")
        labels = {"client": "kubelet", "verb": "get", "resource": "nodes", "subresources": ""}
        self.assertIsNone(self.value("proxy_latency_collector", type="apiserver_latency", **labels))
        series.cloud_latency = 0.25
        self.assertEqual(self.value("proxy_latency_collector", type="apiserver_latency", **labels), 250)

    def test_bounded(self) -> None:
        """
        A client that asks for ever new resources fills the table once; the rest is counted as other.
        """
        for number in range(MAX_SERIES + 50):
            self.metrics.series("client", "get", f"pods-{number}").from_cloud += 1
        text = generate_latest(self.registry)
        self.assertEqual(text.count(b"node_yurthub_requests_total{"), MAX_SERIES + 1)
        labels = {"client": "other", "verb": "other", "resource": "other", "subresources": ""}
        self.assertEqual(self.value("requests_total", source="cloud", **labels), 50)

    def test_clients_bounded(self) -> None:
        """
        Ever new clients are counted as other after the first few, but a cached agent always under its own name.
        """
        metrics = HubMetrics(CollectorRegistry(), "1.2.3", agents=("kubelet",))
        for number in range(MAX_CLIENTS + 50):
            metrics.series(f"client-{number}", "get", "pods")
        self.assertEqual(metrics.series("client-0", "list", "pods").client, "client-0")
        self.assertEqual(metrics.series("late", "get", "pods").client, "other")
        self.assertEqual(metrics.series("kubelet", "get", "pods").client, "kubelet")

    def test_strange_names(self) -> None:
        """
        What no client, method or resource of Kubernetes is called is counted as other, however long.
        """
        series = self.metrics.series("kubelet", "X!", "a b", "p" * 64)
        self.assertEqual(series.labels, ["kubelet", "other", "other", "other"])

    def test_other_parts(self) -> None:
        """
        What other parts know is read at the scrape, and servers show from the beginning.
        """
        self.figures = Figures(
            servers={"https://a:6443": ServerFigures(True, 2), "https://b:6443": ServerFigures(False, 0)},
            cloud_reachable=True, offline_seconds=7.5, cache_objects=3, cache_bytes=4, cache_commits=5, cache_write_errors=6,
            cache_corrupt_records=7, cache_dropped=8, journal_length=9, journal_dropped=10,
        )  # fmt: skip
        self.assertEqual(self.value("server_healthy_status", server="https://a:6443"), 1)
        self.assertEqual(self.value("server_healthy_status", server="https://b:6443"), 0)
        self.assertEqual(self.value("closable_conns_collector", server="https://a:6443"), 2)
        for name, expected in (
            ("cloud_reachable", 1), ("offline_seconds_total", 7.5), ("cache_objects", 3), ("cache_bytes", 4),
            ("cache_commits_total", 5), ("cache_write_errors_total", 6), ("cache_corrupt_records_total", 7),
            ("cache_dropped_total", 8), ("journal_length", 9), ("journal_dropped_total", 10),
        ):  # fmt: skip
            self.assertEqual(self.value(name), expected, name)

    def test_rejected_and_build(self) -> None:
        """
        Refused requests are counted under OpenYurt's name, and the version is told.
        """
        self.metrics.rejected += 4
        self.assertEqual(self.value("rejected_requests_counter"), 4)
        self.assertEqual(self.value("build_info", version="1.2.3"), 1)
