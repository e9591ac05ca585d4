"""
The agents' port: who may connect, and what becomes of a connection.  Other servers come in here, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.host.destination import plain_address
from yurt.http.failures import describe
from yurt.listening import Listen
from yurt.mux.connection import MuxConnection, MuxStream
from yurt.mux.frames import IllegalFrame, PeerWentAway
from yurt.tunnel.hello import FEATURES, PEER_PATH, AgentHello, NotAnAgent, Refusal, is_server, node_of
from yurt.tunnel.link import AcceptingLink, LinkAccepted
from yurt.tunnel.server.nodes import Nodes
from yurt.tunnel.server.outlived import EXPIRED, REMOVED
from yurt.tunnel.server.refusals import Refusals
from yurt.tunnel.server.registry import Agent, Registry

WAVE = 64
"""
Connections whose hello is not over at which no more are accepted for HOLD seconds: of a thousand agents that come at once the
first are through soon, while all together would be through when the first lose patience.  The others wait in the kernel.
"""

HOLD = 0.5
"""
Seconds, at most: those who connect and say nothing must not keep the others out.  When nobody said hello in that time, twice as
many are taken before the next hold.
"""

MAX_HANDSHAKES = 1024
"""
Connections whose hello is not over, unless fewer files may be open; of more the oldest is dropped, as honest ones take no time.
"""

MAX_OLD_CONNECTIONS = 4
"""Connections of one node beside its newest; of more the oldest is cut."""

RETRY_FULL, RETRY_STOPPING = 10.0, 1.0
"""Seconds after which it makes sense to come again."""

REPLACED, STOPPED = "replaced by a newer connection of its node", "the server stopped"

ENDED_HERE = {REPLACED: "replaced", STOPPED: "stopped", EXPIRED: "expired", REMOVED: "removed"}
"""Why this side ends the connection of an agent: for people, and in one of :data:`~yurt.tunnel.server.metrics.ENDINGS`."""


class Agents(Factory):
    """
    Accepts links.  ``peers`` makes the mux of a link that another server dialled, from where it does and with a certificate that
    holds until when; ``moved(node)`` is called when streams of a node had better not wait for more to do: it has another link, or
    its agent wants to leave.
    """

    noisy = False
    log = Logger()

    def __init__(
        self,
        reactor: Any,
        server_id: str,
        registry: Registry,
        nodes: Nodes,
        refusals: Refusals,
        *,
        max_agents: int,
        max_handshakes: int = MAX_HANDSHAKES,
        peers: Callable[[str, float], MuxConnection],
        moved: Callable[[str], None],
    ) -> None:
        self.reactor = reactor
        self.server_id = server_id
        self.registry = registry
        self.nodes = nodes
        self.refusals = refusals
        self.max_agents = max_agents
        self.max_handshakes = max_handshakes
        self.peers = peers
        self.moved = moved
        self.connections = 0
        """Links of agents that are open."""
        self.stopping = False
        self.pending: dict[Link, None] = {}
        """Connections whose hello is not over, the oldest first."""
        self.listeners: list[Listen] = []
        """Where connections come from; they are held while many say hello."""
        self._held: IDelayedCall | None = None
        self._batch = self._room = 0
        """Connections that are taken after a hold before the next one, and how many of these are left."""
        self._greeted = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """
        A connection that is to say hello.
        """
        if len(self.pending) >= self.max_handshakes:
            oldest = next(iter(self.pending))
            del self.pending[oldest]
            self.refusals.refuse("full", f"more than {self.max_handshakes} hand-shakes at once: the oldest is dropped")
            oldest.abort()
        link = Link(self)
        self.pending[link] = None
        self._room -= 1
        if len(self.pending) >= self.wave and self._room <= 0 and self._held is None:
            self._greeted = False
            self._held = self.reactor.callLater(HOLD, self.accept_again)
            for listener in self.listeners:
                if listener.port is not None:
                    cast(Any, listener.port).stopReading()
        return link

    @property
    def wave(self) -> int:
        """
        As WAVE, where so many hand-shakes are allowed.
        """
        return min(WAVE, max(1, self.max_handshakes // 2))

    def hello_over(self, link: Link, *, greeted: bool = False) -> None:
        """
        A connection has said hello, if it is ``greeted``, or is gone.
        """
        self.pending.pop(link, None)
        self._greeted = self._greeted or greeted
        if self._held is not None and len(self.pending) <= self.wave // 2:
            self.accept_again()

    def accept_again(self) -> None:
        """
        Take further connections from the kernel.
        """
        held, self._held = self._held, None
        if held is not None and held.active():
            held.cancel()
        least = max(1, self.wave // 2)
        self._batch = least if self._greeted else min(2 * max(self._batch, least), self.max_handshakes)
        self._room = self._batch
        for listener in self.listeners:
            if listener.port is not None:
                cast(Any, listener.port).startReading()

    # What a link asks

    def accept(self, hello: AgentHello, certificate: x509.Certificate, peer: IAddress) -> LinkAccepted | Refusal:
        """
        Whether to take a link, and what its mux is.
        """
        where = _host_of(peer)
        until = certificate.not_valid_after_utc.timestamp()
        if self.stopping:
            return Refusal(503, "ServiceUnavailable", "this server is stopping", RETRY_STOPPING)
        if hello.path == PEER_PATH:
            if not is_server(certificate):
                return Refusal(403, "Forbidden", "the certificate is that of no tunnel server")
            return LinkAccepted(self.server_id, FEATURES, partial(self.peers, where, until))
        try:
            node = node_of(certificate)
        except NotAnAgent as error:
            return error.refusal
        if self.nodes.of_cluster and self.nodes.synced and self.nodes.by_name(node) is None:
            return Refusal(409, "Conflict", f"the certificate is for node {node}, and the cluster has no Node of this name")
        if self.connections >= self.max_agents:
            return Refusal(503, "ServiceUnavailable", f"this server has its {self.max_agents} agents", RETRY_FULL)
        return LinkAccepted(self.server_id, FEATURES, partial(self._take, node, hello, where, until))

    def refused(self, peer: str, refusal: Refusal) -> None:
        """
        A hello was refused.
        """
        words = {400: "malformed", 403: "forbidden", 404: "malformed", 409: "unknown-node", 426: "version"}
        word = words.get(refusal.status) or ("draining" if self.stopping else "full")
        self.refusals.refuse(word, f"the link from {peer}: {refusal.message}")

    def _take(self, node: str, hello: AgentHello, peer: str, until: float) -> MuxConnection:
        mux = MuxConnection(self.reactor, client=False, accept=reset, lost=lambda why: self._lost(agent, why))
        mux.on_go_away = lambda: self.moved(node)
        agent = Agent(node, mux, peer, hello.addresses, hello.user_agent, time.time(), until)
        before = self.registry.last_seen(node)
        if before is not None:
            self.refusals.metrics.reconnected(before.ending)
        self.connections += 1
        older = self.registry.add(agent)
        if older:
            self.refusals.metrics.reconnected("replaced")
        self.nodes.learn(node, hello.addresses)
        self.moved(node)
        self.log.info("node {node} connected from {peer} ({version})", node=node, peer=peer, version=hello.user_agent)
        if older:
            others = ", ".join(old.peer for old in older)
            self.log.info("node {node} was connected already, from {others}: the newest is used", node=node, others=others)
        for old in older[MAX_OLD_CONNECTIONS:]:
            old.mux.abort(REPLACED)
        return mux

    def _lost(self, agent: Agent, why: Exception) -> None:
        self.connections -= 1
        metrics = self.refusals.metrics
        metrics.bytes_received += agent.mux.bytes_received
        metrics.bytes_sent += agent.mux.bytes_sent
        ending = ending_of(agent, why)
        metrics.ended(ending)
        self.registry.remove(agent, time.time(), str(why), ending)
        self.log.info("the connection of node {node} from {peer} ended: {why}", node=agent.node, peer=agent.peer, why=str(why))

    # The end

    def drain(self) -> None:
        """
        Take no new links, and tell those that are open that this server is about to leave.
        """
        self.stopping = True
        for agent in list(self.registry.agents()):
            agent.mux.go_away()

    def abort(self) -> None:
        """
        Cut all links.
        """
        if self._held is not None and self._held.active():
            self._held.cancel()
        for link in list(self.pending):
            link.abort()
        for agent in list(self.registry.agents()):
            agent.mux.abort(STOPPED)


def _host_of(peer: object) -> str:
    """
    Where a connection comes from, for people: IPv4 as such, though a socket of both families spells it as IPv6.
    """
    host = str(getattr(peer, "host", peer))
    return plain_address(host) or host


def reset(stream: MuxStream) -> None:
    """
    Agents open no streams in version 1 of the protocol.
    """
    stream.abortConnection()


def ending_of(agent: Agent, why: Exception) -> str:
    """
    One of :data:`~yurt.tunnel.server.metrics.ENDINGS` for the end of an agent's connection.
    """
    text = str(why)
    if text in ENDED_HERE:
        return ENDED_HERE[text]
    if isinstance(why, (IllegalFrame, PeerWentAway)):
        return "protocol"
    if agent.mux.peer_going_away:
        return "drained"
    return "silent" if text.startswith("no sign of life") else "lost"


class Link(AcceptingLink):
    """
    A connection to the agents' port.
    """

    def __init__(self, agents: Agents) -> None:
        super().__init__(agents.reactor, agents.accept)
        self._agents = agents

    @property
    def where(self) -> str:
        """
        Where it comes from, for people.
        """
        return _host_of(cast(Any, self.transport).getPeer())

    def hand_over(self, mux: MuxConnection, rest: bytes) -> None:
        """
        See the base.
        """
        super().hand_over(mux, rest)
        self._agents.hello_over(self, greeted=True)

    def refuse(self, refusal: Refusal) -> None:
        """
        See the base.
        """
        self._agents.refused(self.where, refusal)
        super().refuse(refusal)

    def lost_early(self, reason: Failure) -> None:
        """
        See the base.
        """
        if reason.check(SSL.Error):
            self._agents.refusals.refuse("handshake", f"the link from {self.where}: {describe(reason)}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        See the base.
        """
        super().connectionLost(reason)
        self._agents.hello_over(self)
