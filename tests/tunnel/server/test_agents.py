"""
Tests of the agents' port, over real TLS on loopback.
"""

from __future__ import annotations

import time
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.certs import issue, make_ca
from tests.tunnel.server.site import LOOPBACK, Agent, Client, Echo, Site, until
from yurt.http.dial import Build, tcp_endpoint, tls_factory
from yurt.tls import ClientTLS, Credentials
from yurt.tunnel.hello import SERVER_NAME
from yurt.tunnel.link import LinkError
from yurt.tunnel.server import agents as agents_module


class AgentsTests(TestCase):
    """
    Tests of Agents.
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

    async def refusal(self, identity: Any = None, **how: Any) -> str:
        """
        How a link is refused.
        """
        with self.assertRaises(LinkError) as caught:
            await self.site.agent(self.server, identity=identity, **how)
        return str(caught.exception)

    async def test_named_by_its_certificate(self) -> None:
        """
        The node's name is the certificate's, of either kind; what the agent says of itself is kept for people.
        """
        await self.site.agent(self.server, "edge-1", addresses=("10.0.0.8", "fd00::8"))
        other = issue(self.site.ca, "tunnel-agent-client", ["openyurt:yurttunnel"], dns=["edge-2"], ips=["10.0.0.9"])
        await self.site.agent(self.server, identity=other)
        self.assertEqual(set(self.server.registry.nodes()), {"edge-1", "edge-2"})
        agent = self.server.registry.newest("edge-1")
        assert agent is not None
        self.assertEqual((agent.addresses, agent.peer), (("10.0.0.8", "fd00::8"), LOOPBACK))
        self.assertApproximates(agent.valid_until, time.time() + 86400, 600)
        self.assertTrue(agent.version.startswith("yurt-tunnel-agent/"))
        self.assertEqual(self.value("agents"), 2)

    async def test_refused_certificates(self) -> None:
        """
        Certificates of another CA fail in the hand-shake; those of callers and of servers are no agent's, and the
        refusal says so.
        """
        stranger = make_ca()
        identity = issue(stranger, "system:node:edge-1", ["system:nodes"])
        tls = Credentials(ca_data=self.site.ca.cert_pem, cert_data=identity.cert_pem, key_data=identity.key_pem)
        self.patch(self.site, "credentials", lambda _: tls)
        self.assertIn("TLS", await self.refusal())
        self.patch(self.site, "credentials", Site.credentials.__get__(self.site))
        self.assertIn("that of an agent is for", await self.refusal(issue(self.site.ca, "prometheus")))
        self.assertIn("that of an agent is for", await self.refusal(issue(self.site.ca, SERVER_NAME)))
        self.assertIn("no tunnel server", await self.refusal(issue(self.site.ca, "system:node:edge-1"), path="/v1/peer"))
        self.assertEqual(len(self.server.registry), 0)
        await until(self.reactor, lambda: self.value("refused_total", reason="handshake") == 1)
        self.assertEqual(self.value("refused_total", reason="forbidden"), 3)

    async def test_certificate_is_required(self) -> None:
        """
        Without a certificate nobody gets as far as the hello.
        """
        bare = ClientTLS(Credentials(ca_data=self.site.ca.cert_pem))
        client = Client()
        factory = tls_factory(bare.creator(LOOPBACK), True, cast(IProtocolFactory, Build(lambda _: client)))
        await tcp_endpoint(self.reactor, LOOPBACK, self.server.config.tunnel_agent_connect_port, 5).connect(factory)
        await until(self.reactor, lambda: client.lost)
        self.assertEqual(bytes(client.data), b"")
        self.assertEqual(len(self.server.agents.pending), 0)

    async def test_unknown_path(self) -> None:
        """
        A hello for another path is answered 404.
        """
        self.assertIn("agents ask for /v1/tunnel", await self.refusal(path="/metrics"))
        self.assertEqual(self.value("refused_total", reason="malformed"), 1)

    async def test_no_node_of_the_cluster(self) -> None:
        """
        When the cluster's nodes are known a certificate for none of them is refused, and the agent reads why.
        """
        self.patch(type(self.server.nodes), "of_cluster", True)
        self.assertIn("the cluster has no Node of this name", await self.refusal())
        self.assertEqual(self.value("refused_total", reason="unknown-node"), 1)

    async def test_full(self) -> None:
        """
        Beyond the bound agents are told to come again later.
        """
        self.server.agents.max_agents = 1
        await self.site.agent(self.server, "edge-1")
        with self.assertRaises(LinkError) as caught:
            await self.site.agent(self.server, "edge-2")
        self.assertEqual(caught.exception.retry_after, agents_module.RETRY_FULL)
        self.assertEqual(self.value("refused_total", reason="full"), 1)

    async def test_takeover(self) -> None:
        """
        A newer connection of a node gets its new streams; what runs over the older one goes on to its end.
        """
        echo = self.site.listen(Echo)
        first = await self.site.agent(self.server, target=echo)
        running = await self.site.connect(self.server.config.secure_port, ("10.0.0.8", 10250))
        running.wire.write(b"one")
        await running.receives(b"one")
        second = await self.site.agent(self.server, target=echo)
        fresh = await self.site.connect(self.server.config.secure_port, ("10.0.0.8", 10250))
        fresh.wire.write(b"x")
        await fresh.receives(b"x")
        running.wire.write(b" two")
        await running.receives(b"one two")
        self.assertEqual((len(first.asked), len(second.asked)), (1, 1))
        self.assertEqual(self.value("reconnects_total", reason="replaced"), 1)
        first.mux.abort("the old one goes")
        await until(self.reactor, lambda: running.lost)
        self.assertTrue(self.server.registry.connected("edge-1"))

    async def test_older_connections_are_bounded(self) -> None:
        """
        Of many connections of one node the oldest are cut.
        """
        agents = [await self.site.agent(self.server) for _ in range(agents_module.MAX_OLD_CONNECTIONS + 2)]
        await until(self.reactor, lambda: agents[0].ended)
        self.assertEqual([bool(agent.ended) for agent in agents], [True] + [False] * (len(agents) - 1))
        self.assertEqual(self.value("agent_endings_total", reason="replaced"), 1)
        self.assertEqual(self.server.agents.connections, len(agents) - 1)

    async def test_leaving(self) -> None:
        """
        An agent that said go away gets no new streams; its end is told as such, and its return by the reason it was gone.
        """
        agent = await self.site.agent(self.server)
        agent.mux.go_away()
        await until(self.reactor, lambda: self.server.registry.newest("edge-1") is None)
        agent.mux.abort("gone")
        await until(self.reactor, lambda: not self.server.registry.connected("edge-1"))
        self.assertEqual(self.value("agent_endings_total", reason="drained"), 1)
        await self.site.agent(self.server)
        self.assertEqual(self.value("reconnects_total", reason="drained"), 1)

    async def test_agents_open_no_streams(self) -> None:
        """
        A stream that an agent opens is reset, and nothing else happens to its link.
        """
        agent = await self.site.agent(self.server)
        client = Client()
        agent.mux.open().attach(client)
        await until(self.reactor, lambda: client.lost)
        self.assertTrue(self.server.registry.newest("edge-1"))

    async def test_broken_yamux(self) -> None:
        """
        An agent that breaks yamux is cut off, and the reason is remembered.
        """
        agent = await self.site.agent(self.server)
        cast(Any, agent.mux.transport).write(b"\xff" * 12)
        await until(self.reactor, lambda: not self.server.registry.connected("edge-1"))
        self.assertEqual(self.value("agent_endings_total", reason="protocol"), 1)
        last = self.server.registry.last_seen("edge-1")
        assert last is not None
        self.assertIn("yamux", last.why)

    async def test_half_open_handshakes_are_bounded(self) -> None:
        """
        Of too many connections that do not say hello the oldest are dropped, so that those that do are still served.
        """
        self.server.agents.max_handshakes = 3
        self.patch(agents_module, "HOLD", 0.01)
        idle = [await self.site.connect(self.server.config.tunnel_agent_connect_port) for _ in range(5)]
        await until(self.reactor, lambda: idle[0].lost and idle[1].lost)
        self.assertEqual(len(self.server.agents.pending), 3)
        await self.site.agent(self.server)
        self.assertTrue(self.server.registry.newest("edge-1"))

    async def test_silent_ones_hold_nobody_up(self) -> None:
        """
        While many connections say nothing further ones are accepted after a moment.
        """
        self.patch(agents_module, "WAVE", 2)
        self.patch(agents_module, "HOLD", 0.01)
        for _ in range(5):
            await self.site.connect(self.server.config.tunnel_agent_connect_port)
        await until(self.reactor, lambda: len(self.server.agents.pending) == 5)
        await self.site.agent(self.server)

    async def test_waves(self) -> None:
        """
        When the hellos of a wave are over the next one is accepted at once.
        """
        self.patch(agents_module, "WAVE", 2)
        self.patch(agents_module, "HOLD", 3600.0)
        agents = [Deferred.fromCoroutine(self.site.agent(self.server, f"edge-{number}")) for number in range(8)]
        await gatherResults(agents)
        self.assertEqual(len(self.server.registry), 8)

    def test_growing_waves(self) -> None:
        """
        Of those who say nothing ever more are taken at a time: whoever comes behind thousands of them is not kept waiting.
        """
        self.patch(agents_module, "WAVE", 2)
        agents = self.server.agents
        clock = Clock()
        self.patch(agents, "reactor", clock)
        self.patch(agents, "listeners", [])
        taken = []
        for _ in range(5):
            before = len(agents.pending)
            while not clock.getDelayedCalls():
                agents.buildProtocol(None)
            taken.append(len(agents.pending) - before)
            clock.advance(agents_module.HOLD)
        self.assertEqual(taken, [2, 2, 4, 8, 16])
        agents.pending.clear()

    async def test_all_at_once(self) -> None:
        """
        Agents that come all at once are all taken.
        """
        identities = [issue(self.site.ca, f"system:node:edge-{number}") for number in range(60)]
        coming = [
            Deferred.fromCoroutine(self.site.agent(self.server, identity=identity, addresses=())) for identity in identities
        ]
        agents: list[Agent] = await gatherResults(coming)
        self.assertEqual(len(self.server.registry), len(agents))
        self.assertEqual(self.value("refused_total", reason="full"), None)


class DrainTests(TestCase):
    """
    Tests of the server's stop.
    """

    def setUp(self) -> None:
        self.reactor: Any = reactor
        self.site = Site(self, reactor)

    async def test_drain(self) -> None:
        """
        At a stop the doors close and the agents are told; a connection that runs may end by itself, and the server waits for it.
        """
        server = self.site.server(drain_timeout=30.0)
        agent = await self.site.agent(server, target=self.site.listen(Echo))
        client = await self.site.connect(server.config.secure_port, ("10.0.0.8", 10250))
        client.wire.write(b"x")
        await client.receives(b"x")
        stopped = server.stopService()
        await until(self.reactor, lambda: agent.mux.peer_going_away)
        refused = tcp_endpoint(self.reactor, LOOPBACK, server.config.secure_port, 5).connect(
            cast(IProtocolFactory, Factory.forProtocol(Protocol))
        )
        await self.assertFailure(refused, ConnectionRefusedError)
        client.wire.write(b"y")
        await client.receives(b"xy")
        self.assertFalse(stopped.called)
        self.assertEqual(server.readiness(), ["the server is stopping"])
        client.wire.loseWriteConnection()
        await stopped
        await until(self.reactor, lambda: agent.ended)

    async def test_drain_is_bounded(self) -> None:
        """
        What does not end by itself is reset when the time is up.
        """
        server = self.site.server(drain_timeout=0.05)
        agent = await self.site.agent(server, target=self.site.listen(Echo))
        client = await self.site.connect(server.config.secure_port, ("10.0.0.8", 10250))
        client.wire.write(b"x")
        await client.receives(b"x")
        await server.stopService()
        await client.is_lost()
        await until(self.reactor, lambda: agent.ended)
