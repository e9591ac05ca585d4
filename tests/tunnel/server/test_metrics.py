"""
Tests of what the server counts.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from twisted.trial.unittest import SynchronousTestCase

from yurt.tunnel.server.metrics import MAX_PATHS, OTHER, Figures, ServerMetrics


class ServerMetricsTests(SynchronousTestCase):
    """
    Tests of ServerMetrics.
    """

    def setUp(self) -> None:
        self.registry = CollectorRegistry()
        self.figures = Figures()
        self.metrics = ServerMetrics(self.registry, "1.2.3", lambda: self.figures)

    def value(self, name: str, **labels: str) -> float | None:
        """
        A sample, its name without prefix.
        """
        return self.registry.get_sample_value(f"yurttunnel_server_{name}", labels)

    def test_names_of_openyurt(self) -> None:
        """
        The metrics that OpenYurt has are there under its names.
        """
        self.figures = Figures(cloud_nodes=3)
        self.metrics.request_started(b"GET", b"/containerLogs/default/web/c")
        self.assertEqual(self.value("in_proxy_requests", verb="get", path="/containerLogs"), 1)
        self.assertEqual(self.value("total_in_proxy_requests"), 1)
        self.assertEqual(self.value("cloud_nodes_counter"), 3)

    def test_requests_end(self) -> None:
        """
        A request that is over is no longer in flight.
        """
        labels = self.metrics.request_started(b"GET", b"/metrics?x=1")
        self.metrics.request_ended(labels)
        self.assertEqual(
            (self.value("in_proxy_requests", verb="get", path="/metrics"), self.value("total_in_proxy_requests")), (0, 0)
        )

    def test_paths_are_bounded(self) -> None:
        """
        What callers make up cannot make more than a bounded number of series.
        """
        for number in range(MAX_PATHS + 5):
            self.metrics.request_started(b"MADEUP", b"/%d/x" % number)
        self.assertEqual(self.value("in_proxy_requests", verb=OTHER, path=OTHER), 5)

    def test_words_are_bounded(self) -> None:
        """
        Reasons from other programs are counted under their word only if it is a known one.
        """
        for word in ("timeout", "what a peer made up"):
            self.metrics.refused(word)
            self.metrics.ended(word)
            self.metrics.reconnected(word)
        self.assertEqual((self.value("refused_total", reason="timeout"), self.value("refused_total", reason=OTHER)), (1, 1))
        self.assertEqual(self.value("agent_endings_total", reason=OTHER), 2)
        self.assertEqual(self.value("reconnects_total", reason=OTHER), 2)

    def test_bytes_of_links_that_ended(self) -> None:
        """
        Bytes of links that have ended stay counted beside those of open ones.
        """
        self.metrics.bytes_received, self.metrics.bytes_sent = 100, 10
        self.figures = Figures(bytes_received=5, bytes_sent=7)
        self.assertEqual(
            (self.value("bytes_total", direction="from_node"), self.value("bytes_total", direction="to_node")), (105, 17)
        )

    def test_scrape(self) -> None:
        """
        All of it can be written down.
        """
        self.figures = Figures(connections={"diverted": 2})
        self.metrics.accepted("diverted")
        self.metrics.dialled(0.02)
        self.metrics.first_byte(0.03)
        text = generate_latest(self.registry).decode()
        for line in (
            'connections{door="diverted"} 2.0',
            'accepted_total{door="diverted"} 1.0',
            'build_info{version="1.2.3"} 1.0',
        ):
            self.assertIn(f"yurttunnel_server_{line}", text)
