"""
Tests of the server as a whole.
"""

from __future__ import annotations

import json
import os
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tests.miniapi import MiniAPI
from tests.tunnel.server.site import LOOPBACK, PATIENCE, Echo, Site, until
from yurt.http.client import HTTPUpstream
from yurt.http.fetch import fetch
from yurt.lifecycle import MAX_OPEN_FILES
from yurt.listening import StartFailed
from yurt.tls import Credentials
from yurt.tunnel.link import LinkError
from yurt.tunnel.server import outlived
from yurt.tunnel.server.service import TunnelServer
from yurt.tunnel.server.shares import share_files

KUBELET = ("10.0.0.8", 10250)


class ServiceTests(TestCase):
    """
    Tests of TunnelServer without a cluster.
    """

    def setUp(self) -> None:
        self.reactor: Any = reactor
        self.site = Site(self, reactor)

    async def page(self, server: TunnelServer, path: str) -> tuple[int, bytes]:
        """
        A meta page: status and body.
        """
        upstream = HTTPUpstream(self.reactor, f"http://{LOOPBACK}:{server.config.meta_port}", None)
        answer = await fetch(self.reactor, upstream, b"GET", path.encode(), [], timeout=PATIENCE)
        upstream.close_connections("read")
        return answer.status, answer.body

    async def test_pages(self) -> None:
        """
        The meta pages tell health, readiness, what is connected, and figures.
        """
        server = self.site.server()
        agent = await self.site.agent(server, target=self.site.listen(Echo))
        client = await self.site.connect(server.config.secure_port, KUBELET)
        client.wire.write(b"four")
        await client.receives(b"four")
        self.assertEqual(await self.page(server, "/v1/healthz"), (200, b"OK"))
        status, body = await self.page(server, "/v1/readyz")
        self.assertEqual((status, json.loads(body)), (200, {"ready": True, "reasons": []}))
        shown = json.loads((await self.page(server, "/v1/status"))[1])
        (node,) = shown["nodes"]
        self.assertEqual((node["node"], node["addresses"], node["from"]), ("edge-1", ["10.0.0.8"], LOOPBACK))
        self.assertEqual((node["streams"], node["leaving"]), (1, False))
        self.assertGreaterEqual(node["bytesFromNode"], 4)
        self.assertEqual(shown["connections"], {"diverted": 1, "tls": 0, "plain": 0})
        self.assertEqual(shown["serverID"], agent.link and agent.link.server_id)
        self.assertIsNone(shown["firewall"])
        metrics = (await self.page(server, "/metrics"))[1].decode()
        for line in ("agents 1.0", "streams 1.0", 'connections{door="diverted"} 1.0', "reactor_lag_max_seconds"):
            self.assertIn(f"yurttunnel_server_{line}", metrics)

    async def test_certificate_files(self) -> None:
        """
        Files that changed and cannot be used are told of before the certificate that is kept expires, and so is when it does.
        """
        config = self.site.config()
        files = {name: self.site.folder / name for name in ("server.crt", "server.key")}
        pems = (config.credentials.cert_data or b"", config.credentials.key_data or b"")
        for path, pem in zip(files.values(), pems, strict=True):
            path.write_bytes(pem)
        certificate, key = (str(path) for path in files.values())
        server = self.site.server(credentials=Credentials(ca_data=self.site.ca.cert_pem, cert_file=certificate, key_file=key))
        self.assertAlmostEqual(server.figures().certificates_expire_in["serving"] / (24 * 3600), 1, 1)
        self.assertEqual(server.status()["problems"], [])
        files["server.crt"].write_bytes(b"half a certif")
        problem = (
            f"changed TLS files cannot be used, the old ones stay in use: certificate file {certificate}: holds no valid PEM"
        )
        self.assertIn(problem, str(server.status()["problems"]))
        await self.site.agent(server)
        files["server.crt"].write_bytes(pems[0])
        self.assertEqual(server.status()["problems"], [])

    async def test_absent_nodes(self) -> None:
        """
        The status page tells which nodes are gone, since when and why, and that bytes of links that ended stay counted.
        """
        server = self.site.server()
        agent = await self.site.agent(server)
        agent.mux.abort("gone")
        await until(self.reactor, lambda: server.registry.last_seen("edge-1"))
        (absent,) = json.loads((await self.page(server, "/v1/status"))[1])["absent"]
        self.assertEqual(absent["node"], "edge-1")
        self.assertTrue(absent["why"])

    async def test_port_that_is_taken(self) -> None:
        """
        A port that cannot be bound ends the start, and says which and why.
        """
        first = self.site.server()
        second = TunnelServer(self.reactor, self.site.config(secure_port=first.config.secure_port))
        error = self.assertRaises(StartFailed, second.privilegedStartService)
        self.assertIn(f"TLS on {LOOPBACK}:{first.config.secure_port}: Address already in use", str(error))
        await second.listeners[0].stopService()

    async def test_ports_left_out(self) -> None:
        """
        Port 0 leaves a listener out.
        """
        server = self.site.server(secure_port=0, insecure_port=0, meta_port=0)
        self.assertEqual(
            [listener.what for listener in server.listeners], [f"agents on {LOOPBACK}:{server.config.tunnel_agent_connect_port}"]
        )

    async def test_egress_socket(self) -> None:
        """
        With a path for it the egress socket listens, for its owner alone, and goes with the stop.
        """
        path = str(self.site.folder / "egress" / "socket")
        server = self.site.server(egress_socket=path)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        await server.stopService()
        self.assertFalse(os.path.exists(path))

    def test_files_are_shared_out(self) -> None:
        """
        All connections that are allowed together, those without a hello among them, are no more than the files that may be open.
        """
        for files in (256, 1024, 4096, 65536):
            shares = share_files(files)
            self.assertLess(shares.agents + shares.handshakes + shares.diverted + 4 * shares.door, files)
            self.assertGreater(min(shares.agents, shares.handshakes, shares.diverted, shares.door), 0)
        self.assertEqual(self.site.server().agents.max_handshakes, share_files(MAX_OPEN_FILES).handshakes)


class ClusterTests(TestCase):
    """
    Tests of TunnelServer with an API server.
    """

    def setUp(self) -> None:
        self.reactor: Any = reactor
        self.site = Site(self, reactor)
        self.api = MiniAPI(reactor)
        self.api.start()
        self.addCleanup(self.api.stop)
        self.kubeconfig = self.api.write_kubeconfig(self.site.folder / "kubeconfig", "tunnel", "system:masters")

    def server(self) -> TunnelServer:
        """
        A server with the cluster, without rules.
        """
        return self.site.server(kubeconfig=self.kubeconfig, enable_iptables=False)

    def put_node(self, name: str, address: str) -> None:
        """
        An edge node.
        """
        labels = {"openyurt.io/is-edge-worker": "true"}
        addresses = [{"type": "InternalIP", "address": address}]
        self.api.put("nodes", {"metadata": {"name": name, "labels": labels}, "status": {"addresses": addresses}})

    async def test_ready_with_the_cluster(self) -> None:
        """
        The server is ready when it knows nodes and ports; the cluster's word on addresses counts, not the agent's.
        """
        self.put_node("edge-1", "10.0.0.8")
        server = self.server()
        self.assertEqual(len(server.readiness()), 2)
        await until(self.reactor, lambda: not server.readiness())
        await self.site.agent(server, target=self.site.listen(Echo), addresses=("10.0.0.99",))
        client = await self.site.connect(server.config.secure_port, KUBELET)
        client.wire.write(b"x")
        await client.receives(b"x")
        other = await self.site.connect(server.config.secure_port, ("10.0.0.99", 10250))
        await other.is_lost()

    async def test_no_node_of_this_name(self) -> None:
        """
        An agent whose node the cluster does not have is refused; once the Node is there it is taken.
        """
        server = self.server()
        await until(self.reactor, lambda: not server.readiness())
        with self.assertRaises(LinkError) as caught:
            await self.site.agent(server)
        self.assertIn("the cluster has no Node of this name", str(caught.exception))
        self.put_node("edge-1", "10.0.0.8")
        await until(self.reactor, lambda: server.nodes.by_name("edge-1"))
        await self.site.agent(server)

    async def test_deleted_node(self) -> None:
        """
        The link of a node that is deleted ends, and the agent reads why it is not taken again; other links stay.
        """
        self.patch(outlived, "LOOK", 0.1)
        for name, address in (("edge-1", "10.0.0.8"), ("edge-2", "10.0.0.9")):
            self.put_node(name, address)
        server = self.server()
        await until(self.reactor, lambda: not server.readiness())
        gone, stays = await self.site.agent(server), await self.site.agent(server, "edge-2")
        self.api.remove("nodes", "edge-1", "")
        await until(self.reactor, lambda: gone.ended)
        self.assertEqual(server.status()["absent"][0]["why"], outlived.REMOVED)  # type: ignore[index]
        with self.assertRaises(LinkError) as caught:
            await self.site.agent(server)
        self.assertIn("the cluster has no Node of this name", str(caught.exception))
        self.assertEqual(stays.ended, [])

    async def test_starts_without_the_cloud(self) -> None:
        """
        While the API server cannot be reached the server runs, takes agents, and tells why it is not ready.
        """
        self.api.cut()
        server = self.server()
        await self.site.agent(server)
        self.assertEqual(len(server.readiness()), 2)
        await until(self.reactor, lambda: any("GET /api/v1/nodes" in problem for problem in server.cluster.problems()))
        self.assertRegex(server.readiness()[0], r"^the nodes of the cluster are not known yet: nodes: GET /api/v1/nodes: ")

    async def test_members(self) -> None:
        """
        Servers find each other through the cluster, and any of them reaches any node.
        """
        self.put_node("edge-1", "10.0.0.8")
        one, two = self.server(), self.server()
        await until(self.reactor, lambda: one.peers.links() and two.peers.links())
        await self.site.agent(two, target=self.site.listen(Echo))
        await until(self.reactor, lambda: one.peers.with_node("edge-1") and not one.readiness())
        client = await self.site.connect(one.config.secure_port, KUBELET)
        client.wire.write(b"x")
        await client.receives(b"x")
        (shown,) = json.loads(json.dumps(one.status()))["servers"]
        self.assertEqual((shown["id"], shown["connected"], shown["nodes"]), (two.server_id, True, 1))
