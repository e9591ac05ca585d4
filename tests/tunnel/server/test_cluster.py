"""
Tests of what the server knows of its cluster.
"""

from __future__ import annotations

import json
from dataclasses import replace

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from yurt.tls import Credentials
from yurt.tunnel.server import cluster as cluster_module
from yurt.tunnel.server.cluster import Cluster, advertised_address, needed_ports, read_service_addresses
from yurt.tunnel.server.config import TunnelServerConfig


class ServiceAddressTests(SynchronousTestCase):
    """
    Tests of read_service_addresses.
    """

    def read(self, name: str, **spec: object) -> frozenset[str] | None:
        """
        The addresses of a Service.
        """
        return read_service_addresses(json.dumps({"metadata": {"name": name}, "spec": spec}).encode())

    def test_of_the_tunnel(self) -> None:
        """
        The addresses of the tunnel's Services are known, those of others are not kept; a headless one has none.
        """
        found = self.read("x-tunnel-server-internal-svc", clusterIP="10.96.0.7", clusterIPs=["10.96.0.7", "FD00::7"])
        self.assertEqual(found, {"10.96.0.7", "fd00::7"})
        self.assertEqual(self.read("x-tunnel-server-svc", clusterIP="None", externalIPs=["192.0.2.9"]), {"192.0.2.9"})
        self.assertIsNone(self.read("kube-dns", clusterIP="10.96.0.10"))

    def test_of_a_load_balancer(self) -> None:
        """
        Addresses of a load balancer count, too; it may have names instead.
        """
        ingress = [{"ip": "192.0.2.10"}, {"hostname": "lb.example.com"}]
        service = {"metadata": {"name": "x-tunnel-server-svc"}, "status": {"loadBalancer": {"ingress": ingress}}}
        self.assertEqual(read_service_addresses(json.dumps(service).encode()), {"192.0.2.10"})


class AdvertisedAddressTests(SynchronousTestCase):
    """
    Tests of advertised_address.
    """

    def setUp(self) -> None:
        self.sources = {"192.0.2.1": "10.0.0.5", "2001:db8::1": "fd00::5", "10.1.1.1": "10.1.1.5"}
        self.patch(cluster_module, "source_towards", self.sources.get)

    def test_bound(self) -> None:
        """
        An address that the server is bound to is where others reach it.
        """
        self.assertEqual(advertised_address(("10.9.9.9",), "https://10.1.1.1:6443"), "10.9.9.9")

    def test_wildcard(self) -> None:
        """
        Otherwise it is the one that leads to the API server, or else out, in a family that is listened to.
        """
        self.assertEqual(advertised_address(("0.0.0.0",), "https://10.1.1.1:6443"), "10.1.1.5")
        self.assertEqual(advertised_address(("0.0.0.0",), "https://api.example.com:6443"), "10.0.0.5")
        del self.sources["192.0.2.1"]
        self.assertEqual(advertised_address(("::",), "https://api.example.com:6443"), "fd00::5")
        self.assertIsNone(advertised_address(("0.0.0.0",), "https://api.example.com:6443"))

    def test_loopback_is_none(self) -> None:
        """
        Nobody is told of a loopback address.
        """
        self.sources = {"192.0.2.1": "127.0.0.1"}
        self.patch(cluster_module, "source_towards", self.sources.get)
        self.assertIsNone(advertised_address(("0.0.0.0",), ""))


class NeededPortTests(SynchronousTestCase):
    """
    Tests of needed_ports.
    """

    def test_with_rules(self) -> None:
        """
        Those of the API server and of other servers; without rules nothing is turned, and so nothing is needed.
        """
        config = TunnelServerConfig(Credentials(), tunnel_agent_connect_port=20262)
        for server, port in (("https://10.1.1.1:6443", 6443), ("https://api.example.com", 443), ("http://[fd00::1]", 80)):
            self.assertEqual(set(needed_ports(config, server)), {20262, port}, server)
        self.assertEqual(needed_ports(replace(config, enable_iptables=False), "https://10.1.1.1:6443"), {})


class WithoutClusterTests(SynchronousTestCase):
    """
    Tests of Cluster without a kubeconfig.
    """

    def test_nothing_is_asked(self) -> None:
        """
        Without a cluster there is nobody to ask and nothing to wait for; which nodes there are cannot be known.
        """
        cluster = Cluster(Clock(), TunnelServerConfig(Credentials()), "id", lambda name: False)
        self.assertEqual((cluster.client, cluster.members, cluster.dns, cluster.pods), (None, None, None, None))
        self.assertEqual((list(cluster.unready()), cluster.problems()), ([], []))
        self.assertIsNone(cluster.is_node("edge-1"))
        self.assertNotIn("10.96.0.7", cluster)
