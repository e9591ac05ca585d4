"""
Tests for ``yurt.hub.filters.servicetopology``.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.filters.fixtures import endpoint_slice, is_untouched, nodes_of, shown
from yurt.hub.filters.facts import Facts
from yurt.hub.filters.servicetopology import SERVICE_TOPOLOGY

HOST, POOL, ZONE = "kubernetes.io/hostname", "openyurt.io/nodepool", "kubernetes.io/zone"


def facts(wanted: str, **more: Any) -> Facts:
    """
    The Service default/web asks for a topology, on node n1 of the pool p with n2.
    """
    return Facts("n1", **{"topology": {"default/web": wanted}, "pool": "p", "pool_nodes": frozenset({"n1", "n2"}), **more})


class SliceTests(SynchronousTestCase):
    """
    Tests of EndpointSlices.
    """

    def test_keys(self) -> None:
        """
        hostname keeps this node's endpoints, nodepool and zone those of the pool, anything else all of them.
        """
        cases = [(HOST, ["n1"]), (POOL, ["n1", "n2"]), (ZONE, ["n1", "n2"]), ("kubernetes.io/region", ["n1", "n2", "n3"])]
        for version in ("v1", "v1beta1"):
            for wanted, kept in cases:
                after = shown(SERVICE_TOPOLOGY, endpoint_slice("web", "n1", "n2", "n3", version=version), facts(wanted))
                self.assertEqual(nodes_of(after), kept, (version, wanted))

    def test_no_node(self) -> None:
        """
        An endpoint without a node is near to nobody who asks for topology.
        """
        self.assertEqual(nodes_of(shown(SERVICE_TOPOLOGY, endpoint_slice("web", None, "n1"), facts(HOST))), ["n1"])
        self.assertEqual(nodes_of(shown(SERVICE_TOPOLOGY, endpoint_slice("web", None, "n2"), facts(POOL))), ["n2"])

    def test_empty(self) -> None:
        """
        A slice none of whose endpoints is near is shown empty; one without any stays as it is.
        """
        self.assertEqual(nodes_of(shown(SERVICE_TOPOLOGY, endpoint_slice("web", "n3"), facts(HOST))), [])
        none: list[Any] = [[], None]
        for nothing in none:
            document = endpoint_slice("web", endpoints=nothing)
            self.assertTrue(is_untouched(SERVICE_TOPOLOGY, document, facts(HOST)))

    def test_early_v1beta1(self) -> None:
        """
        v1beta1 named the node among an endpoint's topology.
        """
        endpoints = [{"addresses": [node], "topology": {HOST: node}} for node in ("n1", "n3")]
        after = shown(SERVICE_TOPOLOGY, endpoint_slice("web", version="v1beta1", endpoints=endpoints), facts(HOST))
        self.assertEqual([endpoint["addresses"] for endpoint in after["endpoints"]], [["n1"]])

    def test_other_services(self) -> None:
        """
        Slices of Services that ask for nothing keep their bytes, and so do those of no Service.
        """
        document = endpoint_slice("db", "n1", "n3")
        self.assertTrue(is_untouched(SERVICE_TOPOLOGY, document, facts(HOST)))
        document = endpoint_slice("web", "n1", "n3", namespace="other")
        self.assertTrue(is_untouched(SERVICE_TOPOLOGY, document, facts(HOST)))
        none: list[Any] = [{}, None]
        for labels in none:
            document = endpoint_slice("web", "n3")
            document["metadata"]["labels"] = labels
            self.assertTrue(is_untouched(SERVICE_TOPOLOGY, document, facts(HOST)))

    def test_pools(self) -> None:
        """
        In no pool the node stands for it; a pool that does not exist, or is not known yet, keeps all endpoints.
        """
        cases: list[tuple[dict[str, Any], list[str]]] = [
            ({"pool": "", "pool_nodes": None}, ["n1"]),
            ({"pool": "p", "pool_nodes": None}, ["n1", "n2", "n3"]),
            ({"pool": None, "pool_nodes": None}, ["n1", "n2", "n3"]),
            ({"pool": "p", "pool_nodes": frozenset({"n2"})}, ["n1", "n2"]),
        ]
        for more, kept in cases:
            after = shown(SERVICE_TOPOLOGY, endpoint_slice("web", "n1", "n2", "n3"), facts(POOL, **more))
            self.assertEqual(nodes_of(after), kept, more)

    def test_services_not_known(self) -> None:
        """
        While Services are not known nothing is changed.
        """
        self.assertTrue(is_untouched(SERVICE_TOPOLOGY, endpoint_slice("web", "n3"), facts(HOST, topology=None)))


class EndpointsTests(SynchronousTestCase):
    """
    Tests of Endpoints.
    """

    def shown(self, subsets: Any) -> Any:
        """
        What is left of the subsets for a Service with node topology.
        """
        document = {"kind": "Endpoints", "metadata": {"name": "web", "namespace": "default"}, "subsets": subsets}
        return shown(SERVICE_TOPOLOGY, document, facts(HOST)).get("subsets")

    def test_addresses(self) -> None:
        """
        Addresses are chosen by node, ready or not; a subset that keeps none is dropped.
        """
        near, far, nowhere = {"ip": "1", "nodeName": "n1"}, {"ip": "2", "nodeName": "n2"}, {"ip": "3"}
        ports = [{"port": 80}]
        subsets = [
            {"addresses": [near, far, nowhere], "ports": ports},
            {"addresses": [far], "notReadyAddresses": [near], "ports": ports},
            {"addresses": [far], "notReadyAddresses": [nowhere], "ports": ports},
        ]
        self.assertEqual(
            self.shown(subsets),
            [{"addresses": [near], "ports": ports}, {"addresses": [], "notReadyAddresses": [near], "ports": ports}],
        )

    def test_label(self) -> None:
        """
        Endpoints belong to the Service of their name, also with the label that slices have, which a Service hands on to them.
        """
        metadata = {"name": "web", "namespace": "default", "labels": {"kubernetes.io/service-name": "other"}}
        subsets = [{"addresses": [{"ip": "1", "nodeName": "n1"}, {"ip": "2", "nodeName": "n2"}]}]
        document = {"kind": "Endpoints", "metadata": metadata, "subsets": subsets}
        expected = [{"addresses": [{"ip": "1", "nodeName": "n1"}]}]
        self.assertEqual(shown(SERVICE_TOPOLOGY, document, facts(HOST))["subsets"], expected)

    def test_none(self) -> None:
        """
        Endpoints without subsets stay so.
        """
        self.assertEqual(self.shown([]), [])
        self.assertIsNone(self.shown(None))

    def test_no_subsets_at_all(self) -> None:
        """
        Endpoints that do not even have the field keep their bytes.
        """
        document = {"kind": "Endpoints", "metadata": {"name": "web", "namespace": "default"}}
        self.assertTrue(is_untouched(SERVICE_TOPOLOGY, document, facts(HOST)))
