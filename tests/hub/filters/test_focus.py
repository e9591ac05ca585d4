"""
Tests for ``yurt.hub.filters.focus``.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.filters.cluster import POOLS_PATH, Cluster, begin, filtering_site
from tests.hub.memory_site import MemorySite
from yurt.hub.filters.focus import FILTERS_WAIT, FilterSettings
from yurt.hub.filters.sources import BUCKETS_PATH, NODES_PATH, SERVICES_PATH
from yurt.kube.requestinfo import parse_request

SERVICES = parse_request(b"GET", b"/api/v1/services")


class FactsTests(SynchronousTestCase):
    """
    Tests of what is known.
    """

    def test_pool(self) -> None:
        """
        The Node's label names the pool; without it, the pool that has the node; else it is in none.
        """
        site, cluster = filtering_site(self)
        self.assertEqual(site.hub.filters.facts.pool, "")
        cluster.pool("q", "n1", "n7")
        site.run(0.5)
        self.assertEqual((site.hub.filters.facts.pool, site.hub.filters.facts.pool_nodes), ("q", {"n1", "n7"}))
        cluster.pool("a", "n1")
        site.run(0.5)
        self.assertEqual(site.hub.filters.facts.pool, "a")  # of several the first, by name, whichever came first
        cluster.remove("/apis/apps.openyurt.io/v1beta1/nodepools", "a")
        site.run(0.5)
        cluster.node("p")
        site.run(0.5)
        self.assertEqual((site.hub.filters.facts.pool, site.hub.filters.facts.pool_nodes), ("p", None))
        cluster.pool("p", "n2", host_network=True)
        site.run(0.5)
        facts = site.hub.filters.facts
        self.assertEqual((facts.pool, facts.pool_nodes, facts.host_network), ("p", {"n2"}, True))

    def test_flag(self) -> None:
        """
        A pool given by flag is the pool, and the Node need not be read.
        """
        site, cluster = filtering_site(self, filters=FilterSettings(pool_name="p"))
        cluster.pool("q", "n1")
        site.run(0.5)
        self.assertEqual(site.hub.filters.facts.pool, "p")
        self.assertEqual([one.path for one in site.upstream.seen if one.path == NODES_PATH], [])

    def test_buckets(self) -> None:
        """
        The buckets of a pool add up; NodePools are not read then.
        """
        site, cluster = filtering_site(self, filters=FilterSettings(use_buckets=True))
        labels = {"openyurt.io/pool-name": "p"}
        cluster.put(BUCKETS_PATH, "p-1", metadata={"labels": labels}, nodes=[{"name": "n1"}])
        cluster.put(BUCKETS_PATH, "p-2", metadata={"labels": labels}, nodes=[{"name": "n2"}])
        cluster.put(BUCKETS_PATH, "q-1", metadata={"labels": {"openyurt.io/pool-name": "q"}}, nodes=[{"name": "n3"}])
        site.run(0.5)
        self.assertEqual((site.hub.filters.facts.pool, site.hub.filters.facts.pool_nodes), ("p", {"n1", "n2"}))
        self.assertEqual([one.path for one in site.upstream.seen if one.path == POOLS_PATH], [])

    def test_nothing_to_follow(self) -> None:
        """
        Without filters only the ConfigMap is read, and without its namespace nothing.
        """
        for namespace, reads in (("kube-system", 2), ("", 0)):
            site, _ = filtering_site(self, filters=FilterSettings(enabled=False, namespace=namespace))
            self.assertEqual(len(site.upstream.seen), reads)
            self.assertFalse(site.hub.filters.covers("kube-proxy", SERVICES))
            site.stop()

    def test_status(self) -> None:
        """
        People see what is for whom, and what is missing.
        """
        site = MemorySite(self)
        cluster = Cluster(site)
        cluster.refused = {POOLS_PATH: 404}
        cluster.node("p")
        cluster.service("web", "kubernetes.io/zone")
        begin(site)
        described = site.hub.filters.describe()
        self.assertEqual((described["pool"], described["poolNodes"], described["servicesWithTopology"]), ("p", None, 1))
        components = described["components"]
        assert isinstance(components, dict)
        self.assertEqual(components["kube-proxy"]["/v1/services"], ["discardcloudservice", "nodeportisolation"])
        problems = described["problems"]
        assert isinstance(problems, dict)
        self.assertIn("404", problems["NodePools"])
        missing = {name: ["NodePools"] for name in ("nodeportisolation", "servicetopology", "hostnetworkpropagation")}
        self.assertEqual(described["degraded"], missing)


class WaitTests(SynchronousTestCase):
    """
    Tests of the start.
    """

    def waiting(self, agent: str = "kube-proxy") -> bool:
        """
        Whether a request waits while the cloud answers nothing about what filters depend on.
        """
        request = self.site.ask("GET", "/api/v1/services", agent=agent)
        self.site.run(0.5)
        arrived = [one for one in self.site.at_cloud(SERVICES_PATH) if agent.encode() in dict(one.head.headers)[b"User-Agent"]]
        self.assertEqual(request.status, 0)
        return not arrived

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.hub.start_filters()
        self.site.online()

    def test_bounded(self) -> None:
        """
        Reads that may be filtered wait for what that depends on, at the very start, for a short while only; others do not wait.
        """
        self.assertTrue(self.waiting())
        self.assertFalse(self.waiting("curl"))
        self.site.run(FILTERS_WAIT)
        self.assertFalse(self.waiting())
        self.assertEqual(len(self.site.at_cloud(SERVICES_PATH)), 4)

    def test_not_found_before(self) -> None:
        """
        What an earlier run did not find is not waited for: in a cluster without NodePools a node that starts while the cloud is
        silent serves its cache at once.
        """
        cluster = Cluster(self.site)
        cluster.refused = {POOLS_PATH: 404}
        for exchange in list(self.site.upstream.open):
            cluster.asked(exchange)
        self.site.run(5)
        listing = self.site.ask("GET", "/api/v1/services", agent="kube-proxy")
        self.site.run(0.1)
        for exchange in [one for one in self.site.at_cloud(SERVICES_PATH) if "watch" not in one.query]:
            metadata = {"resourceVersion": "200"}
            exchange.answer(200, {"kind": "ServiceList", "apiVersion": "v1", "metadata": metadata, "items": []})
        self.site.run_until(lambda: listing.finished)
        self.site.run(0.1)
        self.site.upstream.on_request = None
        self.site.upstream.frozen = True
        self.site.reboot()
        self.site.hub.start_filters()
        request = self.site.ask("GET", "/api/v1/services", agent="kube-proxy")
        self.site.run(0.3)
        self.assertEqual((request.status, request.header("x-yurt-source")), (200, "cache"))

    def test_stop(self) -> None:
        """
        A hub that is stopped meanwhile leaves nothing behind.
        """
        self.assertTrue(self.waiting())
        self.site.stop()
        self.assertEqual(self.site.clock.getDelayedCalls(), [])

    def test_known(self) -> None:
        """
        Once all is known nobody waits.
        """
        Cluster(self.site)
        for exchange in list(self.site.upstream.open):
            exchange.answer(404, {"kind": "Status", "code": 404})
        self.site.run(0.5)
        self.assertFalse(self.waiting())
