"""
Tests of the nodes as the tunnel server knows them.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from tests.tunnel.server.memory_cluster import ClusterCase
from tests.tunnel.server.told import ToldInformer
from yurt.tunnel.server.node import Node, read_node, this_boot
from yurt.tunnel.server.nodes import Nodes, nodes_informer


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

    def test_networks_of_pods(self) -> None:
        """
        Those that the cluster assigned are read, and a pod's address, in any spelling, tells its node.
        """
        networks = ["10.244.1.0/24", "fd00:244:0:1::/64"]
        body = msgspec.json.encode({"metadata": {"name": "edge-1"}, "spec": {"podCIDR": networks[0], "podCIDRs": networks}})
        self.assertEqual(read_node(body).pod_networks, tuple(networks))
        informer = ToldInformer[Node]()
        nodes = Nodes(cast(Any, informer))
        informer.tell("edge-1", read_node(body))
        informer.tell("edge-2", Node("edge-2", pod_networks=("nonsense", "10.244.2.0/24")))
        found = {
            text: getattr(nodes.by_pod(text), "name", None)
            for text in ("10.244.1.5", "::ffff:10.244.1.5", "FD00:244:0:1::9", "10.244.2.1", "10.244.3.1", "edge-1")
        }
        self.assertEqual(list(found.values()), ["edge-1", "edge-1", "edge-1", "edge-2", None, None])

    def test_named_by_address(self) -> None:
        """
        A host name that is an address is one of the node's, behind the others.
        """
        pairs = (("Hostname", "10.0.0.9"), ("InternalIP", "10.0.0.8"), ("ExternalIP", "203.0.113.5"))
        self.assertEqual(read_node(node_body(addresses=addresses(*pairs))).addresses, ("10.0.0.8", "203.0.113.5", "10.0.0.9"))
        self.assertEqual(read_node(node_body(addresses=addresses(pairs[0]))).addresses, ("10.0.0.9",))

    def test_odd_addresses(self) -> None:
        """
        A node whose status has no address, none at all, or nonsense, has none; one that has only IPv6 has that.
        """
        nonsense = addresses(("InternalIP", ""), ("New", "10.0.0.1"))
        odd: list[dict[str, Any]] = [{}, {"addresses": None}, {"addresses": []}, {"addresses": nonsense}]
        for status in odd:
            self.assertEqual(read_node(node_body(**status)).addresses, ())
        self.assertEqual(read_node(node_body(addresses=addresses(("InternalIP", "FD00::8")))).addresses, ("fd00::8",))

    def test_this_machine(self) -> None:
        """
        The node whose kubelet names the boot of this machine is this machine, whatever it is called.
        """
        boot = this_boot()
        self.assertRegex(boot, "^[0-9a-f-]{36}$")
        self.assertTrue(read_node(node_body(nodeInfo={"bootID": boot}), boot).here)
        for body, mine in (
            (node_body(nodeInfo={"bootID": "0"}), boot),
            (node_body(), boot),
            (node_body(nodeInfo={"bootID": ""}), ""),
        ):
            self.assertFalse(read_node(body, mine).here)

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


class ClusterTests(ClusterCase):
    """
    Tests of the nodes of a cluster.
    """

    def setUp(self) -> None:
        super().setUp()
        self.informer = nodes_informer(self.clock, self.client)
        self.nodes = Nodes(self.informer)

    def test_follow(self) -> None:
        """
        Nodes come, change and go with those of the cluster, by name and by address.
        """
        self.put_node("cloud-1", ("InternalIP", "10.0.0.9"))
        self.assertEqual((self.nodes.synced, self.nodes.problem), (False, "nodes: not listed yet"))
        self.follow(self.informer)
        self.assertEqual((self.nodes.synced, self.nodes.problem, self.nodes.of_cluster), (True, None, True))
        self.put_node("edge-1", ("InternalIP", "192.168.1.2"), ("Hostname", "Box-1"), is_edge_worker="true")
        edge = self.nodes.by_name("edge-1")
        self.assertEqual([self.nodes.by_address("192.168.1.2"), self.nodes.by_host("box-1")], [edge, edge])
        self.put_node("edge-1", ("InternalIP", "192.168.1.3"), is_edge_worker="true")
        self.assertEqual((self.nodes.by_address("192.168.1.2"), self.nodes.by_host("box-1")), (None, None))
        self.api.remove("nodes", "edge-1")
        self.assertEqual((self.nodes.by_address("192.168.1.3"), len(self.nodes)), (None, 1))

    def test_named_by_its_address(self) -> None:
        """
        A node whose host name is its address changes and goes like any other.
        """
        self.follow(self.informer)
        for address in ("192.168.1.2", "192.168.1.3"):
            self.put_node("n", ("InternalIP", address), ("Hostname", address))
            self.assertEqual(getattr(self.nodes.by_address(address), "name"), "n")
        self.assertIsNone(self.nodes.by_address("192.168.1.2"))
        self.assertEqual(len(self.nodes), 1)

    def test_same_address(self) -> None:
        """
        Of two nodes with one address the connected one is meant, else the one that has it as its InternalIP, else the first
        in the alphabet.
        """
        connected: set[str] = set()
        nodes = Nodes(self.informer, connected.__contains__)
        self.put_node("a", ("InternalIP", "10.0.0.1"), ("ExternalIP", "192.168.1.2"))
        for name in ("c", "b"):
            self.put_node(name, ("InternalIP", "192.168.1.2"))
        self.follow(self.informer)
        found = [getattr(nodes.by_address("192.168.1.2"), "name")]
        connected.update("ac")
        found.append(getattr(nodes.by_address("192.168.1.2"), "name"))
        connected.remove("c")
        found.append(getattr(nodes.by_address("192.168.1.2"), "name"))
        self.assertEqual(found, ["b", "c", "a"])

    def test_agents_say_nothing(self) -> None:
        """
        What agents say of themselves does not count where the cluster says who is who.
        """
        self.put_node("edge-1", ("InternalIP", "192.168.1.2"), is_edge_worker="true")
        self.follow(self.informer)
        self.nodes.learn("edge-1", ["10.0.0.9"])
        self.nodes.learn("stranger", ["10.0.0.10"])
        self.nodes.forget("edge-1")
        self.assertEqual((len(self.nodes), self.nodes.by_address("10.0.0.9")), (1, None))
        self.assertEqual(self.nodes.by_address("192.168.1.2"), self.nodes.by_name("edge-1"))

    def test_heartbeats(self) -> None:
        """
        What a node tells of its images and the like is neither kept nor told.
        """
        self.put_node("edge-1", ("InternalIP", "192.168.1.2"))
        self.follow(self.informer)
        heard: list[Node | None] = []
        self.nodes.subscribe(lambda old, new: heard.append(new))
        node = self.api.get("nodes", "edge-1")
        self.api.put("nodes", {**node, "status": {**node["status"], "images": [{"names": ["x" * 1000]}]}})
        self.assertEqual((heard, self.informer.mirror.events), ([], 1))

    def test_server_away(self) -> None:
        """
        While the apiserver is away all nodes stay, and the problem says why they may be old.
        """
        self.put_node("edge-1", ("InternalIP", "192.168.1.2"))
        self.follow(self.informer)
        self.server.refusing = True
        self.server.close_connections("reset")
        self.advance(2)
        self.assertEqual((len(self.nodes), self.nodes.synced), (1, True))
        self.assertIn("connection refused", str(self.nodes.problem))
