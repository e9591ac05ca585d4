"""
What the frame measures of each controller, under the names that controllers written with controller-runtime have.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from yurt import __version__

PREFIX = "yurt_controller_manager"
SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ControllerMetrics:
    """
    The numbers of one controller.  They go on when this process loses the lead and wins it again.
    """

    def __init__(self, metrics: ManagerMetrics, name: str) -> None:
        self._writes = metrics.writes
        self._name = name
        self.depth = metrics.depth.labels(name)
        self.running = metrics.running.labels(name)
        self.failing = metrics.failing.labels(name)
        self.adds = metrics.adds.labels(name)
        self.retries = metrics.retries.labels(name)
        self.errors = metrics.errors.labels(name)
        self.seconds = metrics.seconds.labels(name)

    def wrote(self, what: str) -> None:
        """
        A write was carried out.
        """
        self._writes.labels(self._name, what).inc()


class ManagerMetrics:
    """
    The families of all controllers, and who leads.
    """

    def __init__(self, registry: CollectorRegistry, lease: str) -> None:
        by_name, by_controller = ["name"], ["controller"]
        self.depth = Gauge("workqueue_depth", "Keys that wait to be worked on", by_name, registry=registry)
        self.adds = Counter("workqueue_adds", "Changes that made work", by_name, registry=registry)
        self.retries = Counter("workqueue_retries", "Keys that were put off after a failure", by_name, registry=registry)
        self.running = Gauge("controller_runtime_active_workers", "Keys that are worked on", by_controller, registry=registry)
        self.errors = Counter("controller_runtime_reconcile_errors", "Looks that failed", by_controller, registry=registry)
        self.seconds = Histogram(
            "controller_runtime_reconcile_time_seconds",
            "How long a look at a key and its writes took",
            by_controller,
            buckets=SECONDS,
            registry=registry,
        )
        self.failing = Gauge(f"{PREFIX}_failing_keys", "Keys whose last look failed", by_controller, registry=registry)
        self.writes = Counter(f"{PREFIX}_writes", "Writes carried out", [*by_controller, "what"], registry=registry)
        leader = Gauge("leader_election_master_status", "Whether this process leads", by_name, registry=registry)
        self.leader = leader.labels(lease)
        self.transitions = Counter(f"{PREFIX}_elections_won", "How often this process came to lead", registry=registry)
        build = Gauge(f"{PREFIX}_build_info", "Version; always 1", ["version"], registry=registry)
        build.labels(__version__).set(1)
        self.leader.set(0)
