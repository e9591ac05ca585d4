"""
Tests of several servers: any of them reaches any node.
"""

from __future__ import annotations

from time import time
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

import yurt.tunnel.server.peers
from tests.certs import issue
from tests.tunnel.server.site import LOOPBACK, Client, Echo, Site, until
from yurt.http.interfaces import Headers
from yurt.mux import connection
from yurt.mux.limits import MuxLimits
from yurt.tunnel.connect import NODE_HEADER, ConnectRefused
from yurt.tunnel.hello import SERVER_NAME
from yurt.tunnel.opening import StreamEndpoint
from yurt.tunnel.server import registry, ways
from yurt.tunnel.server.members import Member
from yurt.tunnel.server.peers import CONNECT_TIMEOUT, EXPIRED, LOOK, MAX_RETRY, Peer, PeerLinks
from yurt.tunnel.server.service import TunnelServer


class PeersTests(TestCase):
    """
    Tests of PeerLinks and PeerStreams.
    """

    def setUp(self) -> None:
        self.reactor: Any = reactor
        self.site = Site(self, reactor)
        self.one, self.two = self.site.server(), self.site.server()

    def member(self, server: TunnelServer) -> Member:
        """
        A server as others know it.
        """
        return Member(server.server_id, LOOPBACK, server.config.tunnel_agent_connect_port)

    async def introduce(self) -> None:
        """
        Let the servers know each other, and wait for their links.
        """
        self.one.peers.update([self.member(self.two)])
        self.two.peers.update([self.member(self.one)])
        await until(self.reactor, lambda: self.one.peers.links() and self.two.peers.links())

    async def test_one_hop(self) -> None:
        """
        A node whose agent is connected to another server is reached through that one.
        """
        agent = await self.site.agent(self.two, target=self.site.listen(Echo))
        self.one.nodes.learn("edge-1", ("10.0.0.8",))
        await self.introduce()
        await until(self.reactor, lambda: self.one.peers.with_node("edge-1"))
        client = await self.site.connect(self.one.config.secure_port, ("10.0.0.8", 10250))
        client.wire.write(b"across")
        await client.receives(b"across")
        client.wire.loseWriteConnection()
        await client.is_ended()
        self.assertEqual(agent.asked, ["10.0.0.8:10250"])
        await until(self.reactor, lambda: agent.mux.streams == 0 and not self.one.diverted.splices)
        # What stays open between the servers are the two lists of nodes.
        self.assertEqual([link.streams for link in self.one.peers.links()], [1])

    async def test_nodes_are_told(self) -> None:
        """
        A server hears at once which nodes come and go at another one, and forgets them with the link.
        """
        await self.introduce()
        agent = await self.site.agent(self.two, "edge-7")
        await until(self.reactor, lambda: self.one.peers.with_node("edge-7"))
        agent.mux.abort("gone")
        await until(self.reactor, lambda: self.one.peers.with_node("edge-7") is None)
        await self.site.agent(self.two, "edge-8")
        await until(self.reactor, lambda: self.one.peers.with_node("edge-8"))
        self.two.peer_streams.abort()
        await until(self.reactor, lambda: self.one.peers.with_node("edge-8") is None)

    async def test_link_comes_back(self) -> None:
        """
        A link that was lost is dialled again.
        """
        await self.introduce()
        link = self.one.peers.links()[0]
        link.abort("cut")
        await until(self.reactor, lambda: self.one.peers.links() not in ([], [link]))

    def test_back_in_time(self) -> None:
        """
        A link that was cut without a word is there again within five seconds of its being healed: the kernel's SYN of the third
        second finds a line that was healed before, and the next attempt one healed later.
        """
        self.assertLess(CONNECT_TIMEOUT - 3.0 + MAX_RETRY, 5.0)

    async def test_refusals_cross(self) -> None:
        """
        The reason of a refusal comes back over the hop, and a stream is never forwarded twice.
        """
        agent = await self.site.agent(self.two, target=1)
        await self.introduce()
        self.assertEqual((await self.ask(self.one.peers.links()[0], "edge-1")).word, "refused")
        # The second server knows that the first one has edge-2, and yet does not send the stream back.
        await self.site.agent(self.one, "edge-2")
        await until(self.reactor, lambda: self.two.peers.with_node("edge-2"))
        refused = await self.ask(self.one.peers.links()[0], "edge-2")
        self.assertIn(refused.word, ("not-connected", "unknown-node"))
        self.assertEqual(agent.asked, ["10.0.0.8:10250"])

    async def test_node_must_be_named(self) -> None:
        """
        A stream between servers that names no node is refused.
        """
        await self.introduce()
        self.assertEqual((await self.ask(self.one.peers.links()[0], None)).status, 400)

    async def ask(self, link: Any, node: str | None) -> ConnectRefused:
        """
        How a stream over a link is refused.
        """
        headers: Headers = [] if node is None else [(NODE_HEADER, node.encode())]
        endpoint = StreamEndpoint(link, "10.0.0.8", 10250, headers=headers, reactor=self.reactor)
        try:
            await endpoint.connect(Factory.forProtocol(Client))
        except ConnectRefused as error:
            return error
        self.fail("it was not refused")

    async def test_given_up(self) -> None:
        """
        A client that goes away before the answer has its dial given up at the agent, one hop away.
        """
        agent = await self.site.agent(self.two, target=None)
        self.one.nodes.learn("edge-1", ("10.0.0.8",))
        await self.introduce()
        await until(self.reactor, lambda: self.one.peers.with_node("edge-1"))
        client = await self.site.connect(self.one.config.secure_port, ("10.0.0.8", 10250))
        await until(self.reactor, lambda: agent.mux.streams == 1)
        client.wire.abortConnection()
        await until(self.reactor, lambda: agent.mux.streams == 0 and not self.one.diverted.splices)

    async def test_server_that_leaves(self) -> None:
        """
        A server that is no member any more is not dialled again, while a link that still works is not cut.
        """
        await self.introduce()
        self.one.peers.update([])
        self.assertEqual(len(self.one.peers.links()), 1)
        await self.two.stopService()
        await until(self.reactor, lambda: not self.one.peers.peers)

    def test_silent_server(self) -> None:
        """
        Of several servers that have a node's agent the one is asked that was heard of last: another one's host may have died a
        moment ago.
        """
        links = PeerLinks(self.reactor, self.one.peers_tls, 30.0)
        for number, heard_at in enumerate((3.0, 8.0, 9.0, 5.0)):
            peer = Peer(Member(f"server-{number}", LOOPBACK, number + 1))
            mux = SimpleNamespace(heard_at=heard_at, closing=number == 2, peer_going_away=False)
            peer.link = cast(Any, SimpleNamespace(mux=mux, nodes={"edge-1"}))
            links.peers[peer.member] = peer
        chosen = links.with_node("edge-1")
        assert chosen is not None
        self.assertEqual(chosen.heard_at, 8.0)
        self.assertIsNone(links.with_node("edge-2"))

    async def test_call_to_a_dead_server(self) -> None:
        """
        A call that was sent to a server whose host had just died goes through another one that has the node's agent, once the
        silence tells.
        """
        self.patch(yurt.tunnel.server.peers, "LIMITS", MuxLimits(ping_after=0.1, ping_patience=0.3))
        servers = [self.two, self.site.server()]
        for server in servers:
            await self.site.agent(server, target=self.site.listen(Echo))
        self.one.peers.update(map(self.member, servers))
        await until(self.reactor, lambda: all("edge-1" in peer.nodes for peer in self.one.peers.peers.values()))
        way = self.one.ways.way_to("edge-1", "10.0.0.8", 10250)
        peer = next(peer for peer in self.one.peers.peers.values() if peer.mux is self.one.peers.with_node("edge-1"))
        dead = next(server for server in servers if server.server_id == peer.member.id)
        for mux in dead.peer_streams.links:
            cast(Any, mux.transport).pauseProducing()
        client = cast(Client, await way.connect(Factory.forProtocol(Client)))
        self.assertIn("no sign of life", str(peer.problem))
        client.wire.write(b"across")
        await until(self.reactor, lambda: client.data == b"across")
        client.wire.loseConnection()
        await until(self.reactor, lambda: client.lost)

    async def test_silent_link(self) -> None:
        """
        A call by an agent's link that was cut without a word goes through another server that has the node, long before the link
        is taken for dead; those that follow do so at once.
        """
        for module in (ways, connection):
            self.patch(module, "DOUBT_AFTER", 0.1)
        for module in (ways, registry):
            self.patch(module, "SUSPECT_AFTER", 0.1)
        echo = self.site.listen(Echo)
        cut = await self.site.agent(self.one, target=echo)
        await self.site.agent(self.two, target=echo)
        await self.introduce()
        await until(self.reactor, lambda: self.one.peers.with_node("edge-1"))
        cast(Any, cut.mux.transport).pauseProducing()
        newest = self.one.registry.newest("edge-1")
        assert newest is not None
        await until(self.reactor, lambda: self.reactor.seconds() - newest.mux.heard_at > 0.1)
        way = self.one.ways.way_to("edge-1", "10.0.0.8", 10250)
        client = cast(Client, await way.connect(Factory.forProtocol(Client)))
        client.wire.write(b"across")
        await until(self.reactor, lambda: client.data == b"across")
        self.assertTrue(way.find()[1])
        self.assertFalse(newest.mux.closing)
        client.wire.loseConnection()
        await until(self.reactor, lambda: client.lost)

    async def test_before_expiry(self) -> None:
        """
        Before a certificate of either side expires a link is followed by another one: what runs on it goes on to its end, and new
        calls find no gap.
        """
        await self.site.agent(self.two, target=self.site.listen(Echo))
        await self.introduce()
        await until(self.reactor, lambda: self.one.peers.with_node("edge-1"))
        (peer,) = self.one.peers.peers.values()
        first = peer.link
        assert first is not None
        running = await self.call(first.mux)
        first.renew_at = 0.0
        self.one.peers.look()
        while peer.link is first or not first.mux.closing:
            self.assertIsNotNone(self.one.peers.with_node("edge-1"))
            await deferLater(self.reactor, 0.001)
        assert peer.link is not None
        self.assertTrue(time() + LOOK < peer.link.renew_at < peer.link.valid_until)
        self.assertEqual(set(self.one.peers.all_links()), {first.mux, peer.link.mux})
        later = await self.call(peer.link.mux)
        for client in (running, later):
            client.wire.write(b"across")
        await until(self.reactor, lambda: running.data == later.data == b"across")
        for client in (running, later):
            client.wire.loseConnection()
        await until(self.reactor, lambda: first.why is not None)
        self.assertEqual(self.one.peers.all_links(), [peer.link.mux])
        await until(self.reactor, lambda: len(self.two.peer_streams.links) == 1)

    async def call(self, link: Any) -> Client:
        """
        A stream to the node over a link.
        """
        endpoint = StreamEndpoint(link, "10.0.0.8", 10250, headers=[(NODE_HEADER, b"edge-1")], reactor=self.reactor)
        return cast(Client, await endpoint.connect(Factory.forProtocol(Client)))

    async def test_not_renewed(self) -> None:
        """
        Where no certificate was renewed a link is not made anew for nothing, and ends with the first of them: at the side that
        dialled, and at the other one.
        """
        await self.introduce()
        (peer,) = self.one.peers.peers.values()
        link = peer.link
        assert link is not None
        await self.two.agents.listeners[0].stop_listening()
        link.renew_at = 0.0
        self.one.peers.look()
        await until(self.reactor, lambda: link.renew_at > time())
        self.assertIs(peer.link, link)
        link.valid_until = time() - 1
        self.one.peers.look()
        await until(self.reactor, lambda: link.why is not None)
        self.assertEqual(link.why, EXPIRED)
        self.assertEqual(self.one.peers.links(), [])

    async def test_expired_at_the_other_side(self) -> None:
        """
        A link that another server dialled ends when its certificate has expired, unless a newer one has come from there.
        """
        await self.introduce()
        (dialled,) = self.two.peer_streams.links.values()
        host, valid_until = dialled.host, dialled.valid_until
        dialled.valid_until = time() - 1
        newer = self.two.peer_streams.links[cast(Any, object())] = type(dialled)(host, valid_until)
        self.two.peer_streams.look()
        (link,) = self.one.peers.links()
        self.assertFalse(link.peer_going_away)
        newer.valid_until = 0.0
        self.two.peer_streams.links.popitem()
        self.two.peer_streams.look()
        await until(self.reactor, lambda: link not in self.one.peers.all_links())

    async def test_unreachable_server(self) -> None:
        """
        A member that cannot be reached is told as such, and forgotten when it leaves.
        """
        self.one.peers.update([Member("x", LOOPBACK, 1)])
        peer = next(iter(self.one.peers.peers.values()))
        await until(self.reactor, lambda: peer.problem != "not connected yet")
        self.assertIn("refused", str(peer.problem))
        self.one.peers.update([])
        self.assertEqual(self.one.peers.peers, {})

    async def test_another_server_there(self) -> None:
        """
        Where a server was that is gone another may listen, or this one itself after a crash: that is not taken for it.
        """
        ports = [there.config.tunnel_agent_connect_port for there in (self.one, self.two)]
        self.one.peers.update([Member("gone", LOOPBACK, port) for port in ports])
        peers = list(self.one.peers.peers.values())
        await until(self.reactor, lambda: all("another server" in (peer.problem or "") for peer in peers))
        self.assertEqual(self.one.peers.links(), [])
        self.one.peers.update([self.member(self.two)])
        await until(self.reactor, self.one.peers.links)
        self.assertEqual(list(self.one.peers.peers), [self.member(self.two)])
        await until(self.reactor, lambda: len(self.two.peer_streams.links) == 1 and not self.one.peer_streams.links)

    async def test_drain_of_a_server(self) -> None:
        """
        A server that stops is asked for nothing new by the others, and does not wait for their lists of nodes.
        """
        two = self.two
        await self.site.agent(two, target=self.site.listen(Echo))
        await self.introduce()
        await until(self.reactor, lambda: self.one.peers.with_node("edge-1"))
        self.patch(two, "config", self.site.config(drain_timeout=60.0))
        stopped = two.stopService()
        await until(self.reactor, lambda: self.one.peers.with_node("edge-1") is None)
        await until(self.reactor, lambda: stopped.called)

    async def test_only_servers_are_peers(self) -> None:
        """
        A server's certificate is needed for the path of servers; it does for that one only.
        """
        identity = issue(self.site.ca, SERVER_NAME, ["system:nodes"])
        link = await self.site.agent(self.one, identity=identity, path="/v1/peer")
        await until(self.reactor, lambda: len(link.streams) == 1)
        received = Client()
        link.streams[0].attach(received)
        await until(self.reactor, lambda: b"{" in received.data)
        self.assertTrue(received.data.startswith(b"POST /v1/nodes HTTP/1.1\r\n"))
        self.assertTrue(received.data.endswith(b'\r\n\r\n{"nodes":[]}\n'))
