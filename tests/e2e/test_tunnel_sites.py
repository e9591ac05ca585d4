"""
Several nodes, several servers, and agents that are not what they claim.
"""

from __future__ import annotations

import json
import signal
import time

from tests.certs import issue, make_ca
from yurt.tunnel.server import registry

from .curl import curl
from .node import Node
from .pods import pod
from .process import PATIENCE, Process, wait_for
from .tunnel import AGENT, EDGE_LABEL, TALKER, WEB
from .tunnel_case import TunnelCase, numbers

SHELL = "sleep 100000"


class CertificateTests(TunnelCase):
    """
    Who may be a node's agent.
    """

    def spawn_agent(self, *options: str, certificate: str) -> Process:
        """
        An agent of the node with another certificate, in the place of the ordinary one; nobody waits for its connection.
        """
        node = self.cluster.node
        return node.spawn(AGENT, self.tunnel.agent_command(node, *options, certificate=certificate))

    def assert_stays_out(self, *words: str) -> None:
        """
        The agent says why it may not come in; its node is not connected.
        """
        log = self.cluster.node.folder / f"{AGENT}.log"
        start = self._starts[log]

        def told() -> bool:
            said = log.read_bytes()[start:].decode()
            return all(word in said for word in words)

        wait_for(f"{words} in the agent's log", told)
        self.assertEqual(self.tunnel.server.connected(), set())

    def test_another_nodes_certificate(self) -> None:
        """
        An agent does not become a node by saying its name: it does not even start with the certificate of another, and with that
        it is the other node, which the cluster may not have.
        """
        node = self.cluster.node
        self.cluster.plane.authority.issue("stranger", "system:node:stranger", ("system:nodes",))
        agent = self.spawn_agent(certificate="stranger")
        wait_for("the end of the agent", lambda: agent.status is not None)
        self.assert_stays_out("it is for node stranger, not for edge-1")
        self.spawn_agent("--node-name", "stranger", certificate="stranger")
        self.assert_stays_out("the certificate is for node stranger, and the cluster has no Node of this name")
        self.tunnel.refused("exec", WEB, "--", "true")
        self.tunnel.start_agent(node)
        self.assertEqual(self.tunnel.kubectl("exec", WEB, "--", "hostname"), "web\n")

    def test_no_nodes_certificate(self) -> None:
        """
        Whoever is no node is refused at the agents' port, though the certificate is one of the cluster's; without a certificate
        there is not even an answer.
        """
        keys, server = self.cluster.plane.authority, self.tunnel.server
        extra = ["--cacert", keys.file("ca.crt"), "-H", "Connection: Upgrade", "-H", "Upgrade: yurt-tunnel/1"]
        shown = ["--cert", keys.file("kubelet-client.crt"), "--key", keys.file("kubelet-client.key")]
        url, namespace = f"https://{server.address}:10262/v1/tunnel", self.cluster.cloud_namespace
        answer = curl(namespace, url, agent="test", extra=[*extra, *shown])
        self.assertEqual((answer.status, answer.json["reason"]), (403, "Forbidden"))
        self.assertEqual(curl(namespace, url, agent="test", extra=extra).status, 0)

    def test_foreign_authority(self) -> None:
        """
        A certificate of another CA is refused, whatever it says.
        """
        node, keys = self.cluster.node, self.cluster.plane.authority
        foreign = issue(make_ca("kubernetes"), f"system:node:{node.name}", ["system:nodes"])
        (keys.folder / "foreign.crt").write_bytes(foreign.cert_pem)
        (keys.folder / "foreign.key").write_bytes(foreign.key_pem)
        self.spawn_agent(certificate="foreign")
        self.assert_stays_out("no connection", "TLS")


class TwoNodesTests(TunnelCase):
    """
    Two nodes with an agent each.
    """

    def second(self) -> Node:
        """
        The second node, behind NAT as the first, with its agent.
        """
        node = self.cluster.start_second_node()
        self.addCleanup(self.cluster.stop_second_node)
        self.cluster.kubectl("label", "node", node.name, "--overwrite", f"{EDGE_LABEL}=true")
        self.tunnel.hide(node)
        self.addCleanup(self.tunnel.show, node)
        self.tunnel.start_agent(node)
        return node

    def test_each_call_reaches_its_node(self) -> None:
        """
        Calls reach the node that they are for; the loss of one agent is no matter to the other.
        """
        node = self.second()
        self.make_pods(pod("over-there", node.name, SHELL), pod("here", self.cluster.node.name, SHELL))
        for name in ("over-there", "here") * 3:
            self.assertEqual(self.tunnel.kubectl("exec", name, "--", "hostname"), f"{name}\n")
        follower = self.follow(self.tunnel.kubectl_command("logs", "-f", TALKER))
        wait_for("a line", lambda: numbers(follower.text))
        node.stop(AGENT, signal.SIGKILL)
        self.tunnel.refused("exec", "over-there", "--", "true")
        self.assertEqual(self.tunnel.kubectl("exec", "here", "--", "hostname"), "here\n")
        self.assertFalse(follower.ended)
        self.tunnel.start_agent(node)
        self.assertEqual(self.tunnel.kubectl("exec", "over-there", "--", "hostname"), "over-there\n")


class TwoServersTests(TunnelCase):
    """
    Two servers.
    """

    def setUp(self) -> None:
        super().setUp()
        self.other = self.tunnel.second_server
        self.other.start("--enable-iptables=false", "--enable-dns-controller=false")
        self.addCleanup(self.other.stop)
        self.addCleanup(self.tunnel.start_agent, self.cluster.node)

    def test_agent_at_one_of_them(self) -> None:
        """
        A server that has no agent of a node forwards to the one that has; without that it says so; an agent at both is reached
        when either dies.
        """
        node, server = self.cluster.node, self.tunnel.server
        self.tunnel.start_agent(node, servers=[self.other])
        self.assertEqual(server.connected(), set())

        def reaches() -> bool:
            return self.tunnel.kubectl("exec", WEB, "--", "hostname") == "web\n"

        wait_for("a call by way of the other server", reaches, every=0.5)
        self.send_there_and_back(20, timeout=PATIENCE)
        self.other.stop(signal.SIGKILL)
        self.tunnel.refused("exec", WEB, "--", "true")
        self.other.restart()
        self.tunnel.start_agent(node, servers=[server, self.other])
        self.assertTrue(reaches())
        self.other.stop(signal.SIGKILL)
        self.assertTrue(reaches())

    def test_cut_from_one_of_them(self) -> None:
        """
        When the node's link to one of its servers is cut without a word, a call by that server goes by the other one: the first
        call already, before the link is known to be dead.
        """
        node, server = self.cluster.node, self.tunnel.server
        self.tunnel.start_agent(node, servers=[server, self.other])
        wait_for("the other server's nodes", lambda: [one["nodes"] for one in server.status["servers"]] == [1])
        for chain, way in (("INPUT", "-s"), ("OUTPUT", "-d")):
            cut = [chain, way, server.address, "-p", "tcp", "-m", "multiport", "--ports", "10262", "-j", "DROP"]
            node.run("iptables", "-w", "-I", *cut)
            self.addCleanup(node.run, "iptables", "-w", "-D", *cut)
        time.sleep(registry.SUSPECT_AFTER + 1)
        before = server.log.stat().st_size
        self.assertEqual(self.tunnel.kubectl("exec", WEB, "--", "hostname"), "web\n")
        self.assertNotIn("refused", server.log.read_text()[before:])  # an API server tries again

    def test_another_on_the_same_host(self) -> None:
        """
        A server that stops beside another one on its host hands the rules over before it closes: no call fails meanwhile.
        """
        node, server = self.cluster.node, self.tunnel.server
        doors = ("--tunnel-agent-connect-port=10272", "--secure-port=10273", "--insecure-port=10274", "--meta-port=10275")
        log = self.cluster.folder / "log/server-beside.log"
        beside = Process("the server beside", server.command(*doors), log, server.namespace)
        self.addCleanup(server.restart)
        self.addCleanup(beside.stop)
        self.tunnel.start_agent(node, "--tunnelserver-addr", f"{server.address}:10272")

        def said(path: str) -> str:
            beside.check()
            return curl(server.namespace, f"http://127.0.0.1:10275{path}", agent="test", timeout=5).body

        wait_for("the agent at the other", lambda: node.name in said("/v1/status"))
        wait_for("the other to wait", lambda: "another yurt-tunnel-server keeps" in said("/v1/readyz"))
        stopping = server.process
        assert stopping
        stopping.send(signal.SIGTERM)
        calls = 0
        while stopping.status is None or calls < 10:
            self.assertEqual(self.tunnel.kubectl("exec", WEB, "--", "hostname"), "web\n")
            calls += 1
        wait_for("a ready server", lambda: json.loads(said("/v1/readyz"))["ready"])
