"""
Tests of the nodes as the tunnel server knows them.
"""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from yurt.tunnel.server.nodes import Node, Nodes, read_node


def node_body(name: str = "edge-1", labels: dict[str, str] | None = None, **status: Any) -> bytes:
    """
    A Node as an API server sends it.
    """
    return msgspec.json.encode({"kind": "Node", "metadata": {"name": name, "labels": labels or {}}, "status": status})


def addresses(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"type": kind, "address": address} for kind, address in pairs]


class ReadTests(SynchronousTestCase):
    """
    Tests of what is read of a Node.
    """

    def test_addresses(self) -> None:
        """
        InternalIPs come first, each address is there once in its usual spelling, and host names are kept apart, in lower case.
        """
        node = read_node(
            node_body(
                addresses=addresses(
                    ("Hostname", "Edge-1"),
                    ("ExternalIP", "203.0.113.5"),
                    ("InternalIP", "10.0.0.8"),
                    ("InternalIP", "FD00:0::8"),
                    ("InternalIP", "10.0.0.8"),
                    ("InternalDNS", "edge-1.example.com"),
                    ("InternalIP", "no address"),
                )
            )
        )
        self.assertEqual(node.addresses, ("10.0.0.8", "fd00::8", "203.0.113.5"))
        self.assertEqual((node.internal_ip, node.hostname, node.names), ("10.0.0.8", "Edge-1", ("edge-1", "edge-1.example.com")))

    def test_labels(self) -> None:
        """
        Either of OpenYurt's labels says that a node has an agent; only one of them that it is an edge worker.
        """
        found = []
        for labels in (
            {},
            {"openyurt.io/is-edge-worker": "true"},
            {"openyurt.io/is-edge-worker": "false"},
            {"openyurt.io/edge-enable-reverseTunnel-client": "true"},
        ):
            node = read_node(node_body(labels=labels))
            found.append((node.has_agent, node.edge))
        self.assertEqual(found, [(False, False), (True, True), (False, False), (True, False)])

    def test_kubelet_port(self) -> None:
        """
        The kubelet's port is the one that the node tells, else the usual one.
        """
        told = read_node(node_body(daemonEndpoints={"kubeletEndpoint": {"Port": 10350}}))
        untold = [read_node(node_body()), read_node(node_body(daemonEndpoints={"kubeletEndpoint": {"Port": 0}}))]
        self.assertEqual((told.kubelet_port, [node.kubelet_port for node in untold]), (10350, [10250, 10250]))

    def test_ready(self) -> None:
        """
        A node is ready when its Ready condition is True.
        """
        found = [
            read_node(node_body(conditions=[{"type": kind, "status": status}])).ready
            for kind, status in (("Ready", "True"), ("Ready", "Unknown"), ("MemoryPressure", "True"))
        ]
        self.assertEqual(found, [True, False, False])

    def test_bare(self) -> None:
        """
        A node that has said nothing yet is known by its name.
        """
        self.assertEqual(read_node(b'{"metadata":{"name":"new"}}'), Node("new"))

    def test_no_node(self) -> None:
        """
        What is no Node is refused.
        """
        for body in (b"{}", b"[]", b"x", b'{"metadata":{}}'):
            self.assertRaises(msgspec.DecodeError, read_node, body)


class WithoutClusterTests(SynchronousTestCase):
    """
    Tests of nodes that are known from their agents alone.
    """

    def setUp(self) -> None:
        self.nodes = Nodes()

    def test_learn_and_forget(self) -> None:
        """
        A node is known from its agent's coming to its going, by name, by address in any spelling, and as a host.
        """
        self.nodes.learn("edge-1", ["10.0.0.8", "fd00::8", "junk"])
        expected = Node("edge-1", ("10.0.0.8", "fd00::8"), "10.0.0.8", has_agent=True, edge=True, ready=True)
        found = [
            self.nodes.by_name("edge-1"),
            self.nodes.by_address("10.0.0.8"),
            self.nodes.by_address("::ffff:10.0.0.8"),
            self.nodes.by_host("FD00::0008"),
            self.nodes.by_host("EDGE-1"),
        ]
        self.assertEqual(found, [expected] * 5)
        self.nodes.forget("edge-1")
        self.nodes.forget("edge-1")
        self.assertEqual((self.nodes.by_name("edge-1"), self.nodes.by_address("10.0.0.8"), self.nodes.all()), (None, None, []))

    def test_other_addresses(self) -> None:
        """
        An agent that comes back with other addresses is not found by the old ones.
        """
        self.nodes.learn("edge-1", ["10.0.0.8"])
        self.nodes.learn("edge-1", ["10.0.0.9"])
        self.assertIs(self.nodes.by_address("10.0.0.8"), None)
        self.assertEqual(self.nodes.by_address("10.0.0.9"), self.nodes.by_name("edge-1"))

    def test_shared_address(self) -> None:
        """
        Of two nodes with one address the connected one is meant; when one goes the other stays.
        """
        nodes = Nodes(connected=lambda name: name == "b")
        for name in "abc":
            nodes.learn(name, ["192.168.1.2"])
        self.assertEqual(getattr(nodes.by_address("192.168.1.2"), "name"), "b")
        nodes.forget("b")
        self.assertEqual(getattr(nodes.by_address("192.168.1.2"), "name"), "a")

    def test_subscribers(self) -> None:
        """
        Subscribers hear of each change until they leave, and one that fails keeps nobody from hearing.
        """
        heard: list[tuple[str | None, str | None]] = []

        def fail(old: Node | None, new: Node | None) -> None:
            raise ValueError("mine")

        def hear(old: Node | None, new: Node | None) -> None:
            heard.append((old.name if old else None, new.name if new else None))

        self.nodes.subscribe(fail)
        leave = self.nodes.subscribe(hear)
        self.nodes.learn("a")
        self.nodes.forget("a")
        leave()
        self.nodes.learn("b")
        self.assertEqual(heard, [(None, "a"), ("a", None)])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 3)

    def test_synced(self) -> None:
        """
        Without a cluster there is nothing to wait for.
        """
        self.assertEqual((self.nodes.synced, self.nodes.problem, self.nodes.of_cluster), (True, None, False))
