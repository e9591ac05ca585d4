"""
Tests of diverted connections, over real sockets; where they were going the test says.  The kernel's word on that is tested in
:mod:`tests.kernel.test_diverted`.
"""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tests.tunnel.server.fakes import FakeCarrier
from tests.tunnel.server.site import Client, Echo, Site, until
from tests.tunnel.server.test_ways import FakePeers
from yurt.host.tunnel_rules import Flow
from yurt.mux import connection
from yurt.mux.connection import MuxLimits
from yurt.tunnel.server import registry, ways

KUBELET = ("10.0.0.8", 10250)


class DivertedTests(TestCase):
    """
    Tests of Diverted behind the two doors.
    """

    def setUp(self) -> None:
        self.reactor: Any = reactor
        self.site = Site(self, reactor)
        self.server = self.site.server()

    def value(self, name: str, **labels: str) -> float | None:
        """
        A sample of the server's metrics.
        """
        return self.server.prometheus.get_sample_value(f"yurttunnel_server_{name}", labels)

    async def test_passed_through(self) -> None:
        """
        A diverted connection of either door reaches the node that owns the address, on the port that was dialled; bytes and ends
        pass unchanged.
        """
        agent = await self.site.agent(self.server, target=self.site.listen(Echo))
        for port in (self.server.config.secure_port, self.server.config.insecure_port):
            client = await self.site.connect(port, KUBELET)
            client.wire.write(b"\x16\x03\x01 what looks like TLS")
            await client.receives(b"\x16\x03\x01 what looks like TLS")
            client.wire.loseWriteConnection()
            await client.is_ended()
        await until(self.reactor, lambda: agent.mux.streams == 0 and not self.server.diverted.splices)
        self.assertEqual(agent.asked, ["10.0.0.8:10250"] * 2)
        self.assertEqual(self.value("accepted_total", door="diverted"), 2)
        self.assertEqual((self.value("dial_duration_seconds_count"), self.value("first_byte_seconds_count")), (2, 2))

    async def test_bytes_go_early(self) -> None:
        """
        The client's bytes follow the head of the stream without waiting for the answer.
        """
        agent = await self.site.agent(self.server, target=None)
        client = await self.site.connect(self.server.config.secure_port, KUBELET)
        client.wire.write(b"early")
        await until(self.reactor, lambda: len(agent.streams) == 1)
        received = Client()
        agent.streams[0].attach(received)
        await until(self.reactor, lambda: received.data.endswith(b"\r\n\r\nearly"))
        self.assertTrue(received.data.startswith(b"CONNECT 10.0.0.8:10250 HTTP/1.1\r\n"))
        self.assertEqual(bytes(client.data), b"")

    async def test_cut_link(self) -> None:
        """
        By a link that was cut without a word nothing of the client's goes where another one leads to the node: it goes by that.
        """
        for module in (ways, registry):
            self.patch(module, "SUSPECT_AFTER", 0.02)
        self.patch(ways, "DOUBT_AFTER", 0.1)
        self.patch(connection, "DOUBT_AFTER", 0.01)
        silent = await self.site.agent(self.server, target=None)
        another = self.site.server()
        agent = await self.site.agent(another, target=self.site.listen(Echo))
        peers: Any = FakePeers()
        self.server.ways.peers = peers
        link: Any = another.registry.newest("edge-1")
        peers.links["edge-1"] = link.mux
        transport: Any = silent.mux.transport
        transport.pauseProducing()
        mine: Any = self.server.registry.newest("edge-1")
        await until(self.reactor, lambda: self.reactor.seconds() - mine.mux.heard_at > 0.02)
        client = await self.site.connect(self.server.config.secure_port, KUBELET)
        client.wire.write(b"hello")
        await client.receives(b"hello")
        self.assertEqual((agent.asked, self.value("refused_total", reason="not-connected")), (["10.0.0.8:10250"], None))

    async def test_refused_late(self) -> None:
        """
        A refusal that was waited for resets the connection, too.
        """
        self.patch(ways, "SUSPECT_AFTER", 0.0)
        agent = await self.site.agent(self.server, target=1)
        peers: Any = FakePeers()
        peers.links["edge-1"] = FakeCarrier()
        self.server.ways.peers = peers
        client = await self.site.connect(self.server.config.secure_port, KUBELET)
        await client.is_lost()
        self.assertEqual(self.value("refused_total", reason="refused"), 1)
        await until(self.reactor, lambda: not self.server.diverted.splices and agent.mux.streams == 0)

    async def test_refused(self) -> None:
        """
        When the node's port refuses the connection is reset, and the reason is counted.
        """
        port = self.site.listen(Echo)
        agent = await self.site.agent(self.server, target=port)
        agent.target = 1
        client = await self.site.connect(self.server.config.secure_port, KUBELET)
        client.wire.write(b"hello")
        await client.is_lost()
        self.assertEqual(self.value("refused_total", reason="refused"), 1)
        await until(self.reactor, lambda: not self.server.diverted.splices and agent.mux.streams == 0)

    async def test_nobody_there(self) -> None:
        """
        A connection to an address of no node, and one to a node without agent, are closed at once; each is counted.
        """
        self.server.nodes.learn("edge-2", ("10.0.0.9",))
        for address in ("10.0.0.7", "10.0.0.9"):
            client = await self.site.connect(self.server.config.secure_port, (address, 10250))
            await client.is_lost()
        self.assertEqual(self.value("refused_total", reason="unknown-node"), 2)

    async def test_reset_reaches_the_node(self) -> None:
        """
        A client that resets its connection has its stream reset.
        """
        agent = await self.site.agent(self.server, target=self.site.listen(Echo))
        client = await self.site.connect(self.server.config.secure_port, KUBELET)
        client.wire.write(b"x")
        await client.receives(b"x")
        client.wire.abortConnection()
        await until(self.reactor, lambda: agent.mux.streams == 0 and not self.server.diverted.splices)

    async def test_link_lost(self) -> None:
        """
        The end of the agent's link ends the connections over it at once.
        """
        agent = await self.site.agent(self.server, target=self.site.listen(Echo))
        client = await self.site.connect(self.server.config.secure_port, KUBELET)
        client.wire.write(b"x")
        await client.receives(b"x")
        agent.mux.abort("cut")
        await client.is_lost()
        await until(self.reactor, lambda: not self.server.diverted.splices)

    async def test_another_way(self) -> None:
        """
        Connections to a destination that has another way from now on are reset, in any spelling of it; others go on.
        """
        agent = await self.site.agent(self.server, target=self.site.listen(Echo))
        self.server.nodes.learn("edge-1", ("10.0.0.8", "fd00::8"))
        clients = []
        for going in (KUBELET, ("10.0.0.8", 10255), ("fd00::8", 10250)):
            client = await self.site.connect(self.server.config.secure_port, going)
            client.wire.write(b"x")
            await client.receives(b"x")
            clients.append(client)
        for flow, cut in ((Flow("ipv4", "10.0.0.8", 10250), clients[0]), (Flow("ipv6", "FD00:0::8", 10250), clients[2])):
            self.server.diverted.cut(flow)
            await cut.is_lost()
        clients[1].wire.write(b"y")
        await clients[1].receives(b"xy")
        await until(self.reactor, lambda: agent.mux.streams == 1 == len(self.server.diverted.splices))

    async def test_too_many(self) -> None:
        """
        Beyond the bound connections are reset.
        """
        await self.site.agent(self.server, target=self.site.listen(Echo))
        self.server.diverted.max_connections = 1
        first = await self.site.connect(self.server.config.secure_port, KUBELET)
        first.wire.write(b"x")
        await first.receives(b"x")
        second = await self.site.connect(self.server.config.secure_port, KUBELET)
        await second.is_lost()
        self.assertEqual(self.value("refused_total", reason="full"), 1)
        self.assertIsNone(first.lost)

    async def test_stop(self) -> None:
        """
        A connection that outlasts the time for draining is reset, and no mistake is logged.
        """
        await self.site.agent(self.server, target=self.site.listen(Echo))
        client = await self.site.connect(self.server.config.secure_port, KUBELET)
        client.wire.write(b"x")
        await client.receives(b"x")
        await self.server.stopService()
        await client.is_lost()
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_no_stream_left(self) -> None:
        """
        When the link has no stream left a connection is reset at once, and the reason is counted.
        """
        await self.site.agent(self.server, target=None)
        carrier: Any = self.server.registry.newest("edge-1")
        while carrier.mux.streams < MuxLimits().max_streams:
            carrier.mux.open()
        client = await self.site.connect(self.server.config.secure_port, KUBELET)
        client.wire.write(b"hello")
        await client.is_lost()
        self.assertEqual(self.value("refused_total", reason="exhausted"), 1)
        await until(self.reactor, lambda: not self.server.diverted.splices)

    async def test_half_close_of_the_node(self) -> None:
        """
        A node that ends its direction leaves the other one open.
        """
        servers: list[Client] = []

        class Kubelet(Client):
            def connectionMade(self) -> None:
                servers.append(self)
                self.wire.write(b"all")
                self.wire.loseWriteConnection()

        await self.site.agent(self.server, target=self.site.listen(Kubelet))
        client = await self.site.connect(self.server.config.secure_port, KUBELET)
        await client.is_ended()
        self.assertEqual(bytes(client.data), b"all")
        client.wire.write(b"still heard")
        await until(self.reactor, lambda: servers[0].data == b"still heard")
        client.wire.loseWriteConnection()
        await until(self.reactor, lambda: not self.server.diverted.splices)
