"""
Tests of DNS mode.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import capturedLogs, formatEvent

from tests.miniapi.memory import MemoryAPI, MemoryExchange
from tests.tunnel.server.memory_cluster import ClusterCase
from yurt.kube.api import ApiClient
from yurt.tunnel.server.dns import COALESCE, MAX_PAUSE, RECORDS, RECORDS_KEY, SERVICE, DNSRecords
from yurt.tunnel.server.nodes import Nodes, nodes_informer
from yurt.tunnel.server.ports import NAME, LivePorts, ports_informer

NAMESPACE = "kube-system"
HTTPS = {"name": "https", "port": 10250, "protocol": "TCP", "targetPort": 10263}
HTTP = {"name": "http", "port": 10255, "protocol": "TCP", "targetPort": 10264}


class Servers(ClusterCase):
    """
    Tunnel servers in DNS mode on a clock, before an apiserver in memory.
    """

    def setUp(self) -> None:
        super().setUp()
        self.put_service()
        self.put_node("cloud-1", ("InternalIP", "10.0.0.9"))
        self.put_node("edge-1", ("InternalIP", "192.168.1.2"), is_edge_worker="true")

    def put_service(self, address: str = "10.96.7.7", *ports: dict[str, Any]) -> None:
        metadata = {"name": SERVICE, "namespace": NAMESPACE}
        self.api.put("services", {"metadata": metadata, "spec": {"clusterIP": address, "ports": [HTTPS, HTTP, *ports]}})

    def start(self, identity: str = "one", period: float = 1800.0) -> tuple[DNSRecords, MemoryAPI]:
        """
        A server that does DNS mode, and its own way to the apiserver.
        """
        way = self.another()
        client = ApiClient(self.clock, way)
        informers = nodes_informer(self.clock, client), ports_informer(self.clock, client)
        dns = DNSRecords(
            self.clock,
            client,
            Nodes(informers[0]),
            LivePorts(informers[1]),
            identity,
            secure_port=10263,
            insecure_port=10264,
            period=period,
            draw=lambda: 0.5,
        )
        for informer in informers:
            self.follow(informer)
        self.follow(dns)
        self.advance(2)
        return dns, way

    @property
    def lines(self) -> list[str]:
        text: str = self.api.get("configmaps", RECORDS, NAMESPACE)["data"][RECORDS_KEY]
        return text.split("\n")

    @property
    def ports(self) -> dict[str, int]:
        ports = self.api.get("services", SERVICE, NAMESPACE)["spec"]["ports"]
        return {port["name"]: port["targetPort"] for port in ports}

    def settle(self) -> None:
        self.advance(2 * COALESCE + 0.5)


class FollowTests(Servers):
    """
    Tests of records and ports that follow the cluster.
    """

    def test_first(self) -> None:
        """
        The leader makes the ConfigMap when it is missing.
        """
        dns, _ = self.start()
        self.assertEqual(self.lines, ["10.0.0.9\tcloud-1", "10.96.7.7\tedge-1"])
        self.assertEqual((dns.leading, dns.problem, dns.writes, dns.failures), (True, None, 1, 0))

    def test_nodes(self) -> None:
        """
        Nodes that come, go, change address or become edge nodes are in the records at once, with all else as it was.
        """
        self.start()
        self.put_node("edge-2", is_edge_worker="true")
        self.put_node("cloud-1", ("InternalIP", "10.0.0.10"))
        self.settle()
        self.assertEqual(self.lines, ["10.0.0.10\tcloud-1", "10.96.7.7\tedge-1", "10.96.7.7\tedge-2"])
        self.put_node("cloud-1", ("InternalIP", "10.0.0.10"), is_edge_worker="true")
        self.api.remove("nodes", "edge-1")
        self.settle()
        self.assertEqual(self.lines, ["10.96.7.7\tcloud-1", "10.96.7.7\tedge-2"])

    def test_storm(self) -> None:
        """
        Many changes at once make one write.
        """
        dns, _ = self.start()
        for number in range(200):
            self.put_node(f"edge-{number}", is_edge_worker="true")
        self.settle()
        self.assertEqual(len(self.lines), 201)
        self.assertLessEqual(dns.writes, 3)

    def test_heartbeats(self) -> None:
        """
        Changes of nodes that mean nothing to DNS ask nothing of the apiserver.
        """
        _, way = self.start()
        asked = way.counts["get", "configmaps"]
        self.api.put(
            "nodes",
            {
                "metadata": {"name": "cloud-1", "annotations": {"some": "thing"}},
                "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.9"}], "images": []},
            },
        )
        self.settle()
        self.assertEqual(way.counts["get", "configmaps"], asked)

    def test_ports(self) -> None:
        """
        The Service's ports follow the configured ones, to the last one's end.
        """
        self.start()
        self.put_config(NAME, http_proxy_ports="9100", https_proxy_ports="9443")
        self.settle()
        self.assertEqual(self.ports, {"https": 10263, "http": 10264, "dnat-9100": 10264, "dnat-9443": 10263})
        self.put_config(NAME, https_proxy_ports="9100")
        self.settle()
        self.assertEqual(self.ports, {"https": 10263, "http": 10264, "dnat-9100": 10263})
        self.api.remove("configmaps", NAME, NAMESPACE)
        self.settle()
        self.assertEqual(self.ports, {"https": 10263, "http": 10264})

    def test_others_meddle(self) -> None:
        """
        What others do to the records, to the ConfigMap or to our ports is put right at once; what else they put there stays.
        """
        self.put_config(NAME, http_proxy_ports="9100")
        self.start()
        metadata = {"name": RECORDS, "namespace": NAMESPACE}
        self.api.put("configmaps", {"metadata": metadata, "data": {RECORDS_KEY: "x", "more": "y"}})
        self.put_service("10.96.7.7")
        self.settle()
        self.assertEqual(self.lines, ["10.0.0.9\tcloud-1", "10.96.7.7\tedge-1"])
        self.assertEqual(self.api.get("configmaps", RECORDS, NAMESPACE)["data"]["more"], "y")
        self.api.put("configmaps", {"metadata": metadata, "binaryData": {RECORDS_KEY: "AAEC", "more": "AAEC"}})
        self.settle()
        self.assertEqual(self.lines, ["10.0.0.9\tcloud-1", "10.96.7.7\tedge-1"])
        self.assertEqual(self.api.get("configmaps", RECORDS, NAMESPACE)["binaryData"], {"more": "AAEC"})
        self.assertIn("dnat-9100", self.ports)
        self.api.remove("configmaps", RECORDS, NAMESPACE)
        self.settle()
        self.assertEqual(self.lines, ["10.0.0.9\tcloud-1", "10.96.7.7\tedge-1"])

    def test_service_anew(self) -> None:
        """
        While the Service is missing the records stay, and the log says so once; made anew, its new address is in them.
        """
        dns, _ = self.start()
        self.api.remove("services", SERVICE, NAMESPACE)
        with capturedLogs() as logged:
            self.settle()
            self.put_node("edge-2", is_edge_worker="true")
            self.settle()
            self.api.remove("nodes", "edge-2")
            self.settle()
        self.assertEqual(["is missing" in formatEvent(event) for event in logged].count(True), 1)
        self.assertEqual(self.lines, ["10.0.0.9\tcloud-1", "10.96.7.7\tedge-1"])
        self.assertIn("x-tunnel-server-internal-svc is missing", str(dns.problem))
        self.put_service("10.96.8.8")
        self.settle()
        self.assertEqual((self.lines[1], dns.problem), ("10.96.8.8\tedge-1", None))

    def test_headless(self) -> None:
        """
        A Service without address leaves the records as they are, and its ports are kept all the same.
        """
        self.put_config(NAME, http_proxy_ports="9100")
        self.put_service("None")
        dns, _ = self.start()
        self.assertIn("has no ClusterIP", str(dns.problem))
        self.assertIn("dnat-9100", self.ports)

    def test_periodic(self) -> None:
        """
        Everything is compared now and then, even if nothing is heard.
        """
        _, way = self.start(period=100.0)
        asked = way.counts["get", "configmaps"]
        self.advance(102)
        self.assertEqual(way.counts["get", "configmaps"], asked + 1)


class TroubleTests(Servers):
    """
    Tests of several servers, and of an apiserver that is not well.
    """

    def test_one_leader(self) -> None:
        """
        Only the leader writes; when it stops another goes on.
        """
        one, _ = self.start("one")
        two, _ = self.start("two")
        self.assertEqual((one.leading, two.leading, two.writes, two.problem), (True, False, 0, None))
        stopped = one.stopService()
        self.put_node("edge-2", is_edge_worker="true")
        self.advance(5)
        self.successResultOf(stopped)
        self.assertEqual((two.leading, two.writes), (True, 1))
        self.assertIn("10.96.7.7\tedge-2", self.lines)

    def test_lead_lost(self) -> None:
        """
        A leader that is cut off writes no more, and when it is back and leads again the records are right.
        """
        one, way = self.start("one")
        way.refusing = True
        way.close_connections("cut")
        self.put_node("edge-2", is_edge_worker="true")
        self.advance(20)
        self.assertFalse(one.leading)
        self.assertIn("Lease kube-system/tunnel-dns-controller", str(one.problem))
        way.refusing = False
        self.advance(MAX_PAUSE)
        self.assertEqual((one.leading, one.problem), (True, None))
        self.assertIn("10.96.7.7\tedge-2", self.lines)

    def test_conflict(self) -> None:
        """
        When somebody writes the same object at the same moment nothing of it is lost.
        """
        dns, way = self.start()

        def meddle(exchange: MemoryExchange) -> bool:
            if exchange.method == "PUT" and exchange.path.endswith(RECORDS):
                way.intercept = lambda exchange: False
                found = self.api.get("configmaps", RECORDS, NAMESPACE)
                self.api.put("configmaps", {**found, "data": {**found["data"], "more": "y"}})
            return False

        way.intercept = meddle
        self.put_node("edge-2", is_edge_worker="true")
        self.settle()
        data = self.api.get("configmaps", RECORDS, NAMESPACE)["data"]
        self.assertEqual((data["more"], "edge-2" in data[RECORDS_KEY], dns.problem), ("y", True, None))

    def test_forbidden(self) -> None:
        """
        What may not be written is told, and tried again ever more rarely; the other object is kept all the same.
        """
        self.api.permits = lambda user, verb, call, path: (
            not (verb in ("create", "update") and call is not None and call.resource.plural == "configmaps")
        )
        self.put_config(NAME, http_proxy_ports="9100")
        dns, way = self.start()
        self.advance(600)
        self.assertIn("403 Forbidden", str(dns.problem))
        self.assertIn("dnat-9100", self.ports)
        self.assertLess(way.counts["create", "configmaps"], 40)
        self.api.permits = lambda user, verb, call, path: True
        self.advance(MAX_PAUSE)
        self.assertEqual((dns.problem, len(self.lines)), (None, 2))

    def test_lagging(self) -> None:
        """
        A leader that does not know the nodes yet writes nothing: no records are better than wrong ones.
        """
        self.api.permits = lambda user, verb, call, path: not (call is not None and call.resource.plural == "nodes")
        dns, _ = self.start()
        self.advance(30)
        self.assertEqual((dns.leading, dns.writes), (True, 0))
        self.api.permits = lambda user, verb, call, path: True
        self.advance(60)
        self.assertEqual(len(self.lines), 2)

    def test_own_mistake(self) -> None:
        """
        A mistake of ours is logged and told, and is not the end of DNS mode.
        """
        dns, _ = self.start()
        self.patch(dns._nodes, "all", lambda: 1 // 0)
        dns.poke()
        self.settle()
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
        self.assertIn("by zero", str(dns.problem))
        del dns._nodes.all
        self.advance(10)
        self.assertIs(dns.problem, None)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_stop(self) -> None:
        """
        A stop leaves nothing on the clock, and the Lease to others.
        """
        dns, way = self.start()
        stopped = dns.stopService()
        self.advance(0.2)
        self.successResultOf(stopped)
        self.assertNotIn("holderIdentity", self.api.get("leases", "tunnel-dns-controller", NAMESPACE)["spec"])
        self.put_node("edge-2", is_edge_worker="true")
        self.advance(5)
        self.assertEqual(len(self.lines), 2)
