"""
Tests for :mod:`yurt.tunnel.server.names`.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from yurt.tunnel.server.names import (
    MAX_NODES,
    Named,
    TunnelService,
    read_tunnel_endpoints,
    read_tunnel_service,
    serving_names,
)
from yurt.tunnel.server.node import Node

SERVICE, INTERNAL = "x-tunnel-server-svc", "x-tunnel-server-internal-svc"


def service(name: str = SERVICE, annotations: dict[str, str] | None = None, ingress: Any = None, **spec: Any) -> bytes:
    """
    A Service in JSON.
    """
    metadata = {"name": name, "namespace": "kube-system", "annotations": annotations}
    return json.dumps({"metadata": metadata, "spec": spec, "status": {"loadBalancer": {"ingress": ingress}}}).encode()


def forms(name: str) -> set[str]:
    return {name, f"{name}.kube-system", f"{name}.kube-system.svc", f"{name}.kube-system.svc.cluster.local"}


class ServiceTests(SynchronousTestCase):
    """
    Tests of what is read.
    """

    def hosts(self, body: bytes) -> tuple[str, ...]:
        found = read_tunnel_service(body)
        assert found is not None
        return found.hosts

    def test_types(self) -> None:
        """
        Every type of Service gives its addresses: cluster IPs, those outside, a balancer's, the one written down.
        """
        both = service(clusterIP="10.96.0.7", clusterIPs=["10.96.0.7", "fd00::7"])
        self.assertEqual(self.hosts(both), ("10.96.0.7", "fd00::7", "10.96.0.7"))
        self.assertEqual(self.hosts(service(clusterIP="None")), ())
        balanced = service(type="LoadBalancer", ingress=[{"ip": "1.2.3.4"}, {"hostname": "lb.example"}])
        self.assertEqual(self.hosts(balanced), ("1.2.3.4", "lb.example"))
        for written, host in (("tunnel.example:443", "tunnel.example"), ("1.2.3.4:10262", "1.2.3.4"), ("[::", None)):
            body = service(annotations={"x-tunnel-server-external-addr": written})
            self.assertEqual(self.hosts(body), (host,) if host else (), written)
        self.assertEqual(read_tunnel_service(service(type="NodePort")), TunnelService(SERVICE, True))

    def test_others(self) -> None:
        """
        Other Services and Endpoints are none of ours, and what is no object is an error.
        """
        self.assertIsNone(read_tunnel_service(service("kube-dns", clusterIP="10.96.0.10")))
        self.assertIsNone(read_tunnel_endpoints(b'{"metadata":{"name":"kube-dns"}}'))
        self.assertRaises(msgspec.DecodeError, read_tunnel_service, b"[]")

    def test_endpoints(self) -> None:
        """
        Endpoints count whether they are ready or not: a server without certificate is not.
        """
        subsets = [{"addresses": [{"ip": "10.0.0.1"}], "notReadyAddresses": [{"ip": "10.0.0.2", "hostname": "b"}]}]
        body = json.dumps({"metadata": {"name": SERVICE}, "subsets": subsets}).encode()
        self.assertEqual(read_tunnel_endpoints(body), ("10.0.0.1", "10.0.0.2", "b"))
        self.assertEqual(read_tunnel_endpoints(json.dumps({"metadata": {"name": SERVICE}, "subsets": None}).encode()), ())


class NamesTests(SynchronousTestCase):
    """
    Tests of what the certificate has to name.
    """

    def test_alone(self) -> None:
        """
        Without any Service: loopback, the names of the Service that may come, this host, and what flags add.
        """
        named = serving_names([], [], [], ["10.0.0.10", "tunnel.example", "::ffff:10.0.0.10"])
        self.assertEqual(set(named.dns), forms(SERVICE) | {"tunnel.example"})
        self.assertEqual(named.addresses, ("10.0.0.10", "127.0.0.1", "::1"))

    def test_all(self) -> None:
        """
        Both Services, their endpoints, and with a NodePort the nodes of the cloud; each once, in an order of its own.
        """
        services = [TunnelService(SERVICE, True, ("10.96.0.7",)), TunnelService(INTERNAL, False, ("10.96.0.8", "LB.example"))]
        node = Node("cloud", ("10.0.0.1",), names=("cloud.example",))
        named = serving_names(services, ["10.0.0.1"], [node], [])
        self.assertEqual(set(named.dns), forms(SERVICE) | forms(INTERNAL) | {"lb.example", "cloud.example"})
        self.assertEqual(named.addresses, ("10.0.0.1", "10.96.0.7", "10.96.0.8", "127.0.0.1", "::1"))
        self.assertEqual(serving_names(reversed(services), ["10.0.0.1"], [node], []), named)
        self.assertIsInstance(named, Named)

    def test_many_nodes(self) -> None:
        """
        A large cluster does not make a large certificate, and the same nodes are in it always.
        """
        nodes = [Node(f"n{number:04}", (f"10.1.{number // 250}.{number % 250}",)) for number in range(500)]
        named = serving_names([TunnelService(SERVICE, True)], [], nodes, [])
        self.assertEqual(len(named.addresses), MAX_NODES + 2)
        self.assertEqual(serving_names([TunnelService(SERVICE, True)], [], reversed(nodes), []), named)
        self.assertEqual(len(serving_names([TunnelService(SERVICE)], [], nodes, []).addresses), 2)
