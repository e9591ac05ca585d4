"""
Links between the servers of a cluster, so that any of them reaches any node: docs/tunnel-protocol.md, section 6.

Each server dials each other one.  Over the link that it dialled it opens streams to the nodes that the other one has; over the
same link the other one tells which nodes those are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt import __version__
from yurt.http.dial import Build
from yurt.http.heads import get_header
from yurt.kube.pause import pause
from yurt.mux.connection import MuxConnection, MuxLimits, MuxStream
from yurt.tls import ClientTLS
from yurt.tunnel.answering import IncomingConnect, read_connect, read_head
from yurt.tunnel.connect import MALFORMED, NODE_HEADER, ConnectRefused, authority
from yurt.tunnel.hello import PEER_PATH, AgentHello
from yurt.tunnel.link import REJECTED, LinkError, dial_link
from yurt.tunnel.server.members import Member
from yurt.tunnel.server.nodelists import NodeListReader, NodeListWriter
from yurt.tunnel.server.registry import Registry, takes_streams
from yurt.tunnel.server.ways import Ways
from yurt.tunnel.splice import Splice

FIRST_RETRY, MAX_RETRY = 1.0, 15.0
"""Seconds within which another server is dialled again after the first failure, and after many."""

LIMITS = MuxLimits(ping_after=1.0, ping_patience=5.0)
"""
Of a link to another server: heard of every second, so that one whose host died is not chosen for longer, while another has the
node; and given up after six.
"""

STOPPED = "the server stopped"


class Peer:
    """
    Another server: the link to it, and the nodes that have an agent there.
    """

    def __init__(self, member: Member) -> None:
        self.member = member
        self.name = f"server {member.id} at {authority(member.host, member.port)}"
        self.wanted = True
        self.mux: MuxConnection | None = None
        self.nodes: set[str] = set()
        self.problem: str | None = "not connected yet"
        """Why there is no link."""
        self.keeping: Deferred[None] | None = None


class PeerLinks(Service):
    """
    Keeps a link to each other server.
    """

    log = Logger()

    def __init__(self, reactor: Any, tls: ClientTLS, draw: Callable[[], float] = random.random) -> None:
        self.reactor = reactor
        self.tls = tls
        self.draw = draw
        self.peers: dict[Member, Peer] = {}

    def update(self, members: Iterable[Member]) -> None:
        """
        These are the other servers now.  A link to one that is none any more is used for as long as it lasts.
        """
        wanted = set(members)
        for peer in list(self.peers.values()):
            peer.wanted = peer.member in wanted
            if not peer.wanted and peer.mux is None:
                self._drop(peer)
        for member in wanted - set(self.peers):
            peer = self.peers[member] = Peer(member)
            if self.running:
                self._keep(peer)

    def startService(self) -> None:
        """
        Begin to dial.
        """
        super().startService()
        for peer in self.peers.values():
            self._keep(peer)

    def stopService(self) -> None:
        """
        Cut all links.
        """
        super().stopService()
        for peer in list(self.peers.values()):
            mux = peer.mux
            self._drop(peer)
            if mux is not None:
                mux.abort(STOPPED)

    def with_node(self, node: str, but: object = None) -> MuxConnection | None:
        """
        A link to a server that has an agent of ``node``, another one than ``but``: of several the one that was heard of last, for
        a server whose host died stays among them until its silence has lasted long enough.
        """
        links = [peer.mux for peer in self.peers.values() if node in peer.nodes and peer.mux is not None]
        usable = [mux for mux in links if takes_streams(mux) and mux is not but]
        return max(usable, key=lambda mux: mux.heard_at, default=None)

    def links(self) -> list[MuxConnection]:
        """
        All links that are up.
        """
        return [peer.mux for peer in self.peers.values() if peer.mux is not None]

    def _drop(self, peer: Peer) -> None:
        del self.peers[peer.member]
        keeping, peer.keeping = peer.keeping, None
        if keeping is not None:
            keeping.cancel()

    def _keep(self, peer: Peer) -> None:
        peer.keeping = Deferred.fromCoroutine(self._keep_for_ever(peer))
        peer.keeping.addErrback(self._kept)

    def _kept(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("a mistake of ours: a server is dialled no more", failure=failure)

    async def _keep_for_ever(self, peer: Peer) -> None:
        patience = FIRST_RETRY
        while True:
            lost: Deferred[str] = Deferred()
            try:
                await self._dial(peer, lost)
            except LinkError as error:
                if str(error) != peer.problem:
                    self.log.warn("{name}: {error}; trying again", name=peer.name, error=error)
                peer.problem = str(error)
            else:
                patience = FIRST_RETRY
                peer.problem = await lost
                self.log.warn("{name}: the link ended: {why}", name=peer.name, why=peer.problem)
                if not peer.wanted:
                    del self.peers[peer.member]
                    return
            await pause(self.reactor, patience * self.draw())
            patience = min(2 * patience, MAX_RETRY)

    async def _dial(self, peer: Peer, lost: Deferred[str]) -> None:
        member = peer.member

        def ended(why: Exception) -> None:
            peer.mux = None
            peer.nodes.clear()
            if not lost.called:
                lost.callback(str(why))

        def make(answer: object) -> MuxConnection:
            accept = partial(self._accept, peer)
            return MuxConnection(self.reactor, client=True, accept=accept, lost=ended, limits=LIMITS)

        hello = AgentHello(authority(member.host, member.port), PEER_PATH, user_agent=f"yurt-tunnel-server/{__version__}")
        link = await dial_link(self.reactor, member.host, member.port, self.tls, hello, make=make)
        if link.server_id != member.id:
            # Its Lease outlives a server that was killed; what listens there now has a Lease of its own, or is this server.
            why = f"another server listens there now: {link.server_id}"
            link.mux.abort(why)
            raise LinkError(why, word=REJECTED, answered=True)
        if not link.mux.closing:
            peer.mux, peer.problem = link.mux, None
            self.log.info("{name}: connected", name=peer.name)

    def _accept(self, peer: Peer, stream: MuxStream) -> None:
        reading = Deferred.fromCoroutine(self._read_nodes(peer, stream))
        reading.addErrback(log_failure, self.log)

    async def _read_nodes(self, peer: Peer, stream: MuxStream) -> None:
        try:
            incoming = await read_head(self.reactor, stream)
        except ConnectRefused:
            return
        if incoming.method != b"POST" or incoming.target != NodeListWriter.TARGET:
            incoming.refuse(400, "BadRequest", MALFORMED, "only the list of nodes is taken here")
            return
        incoming.accept(cast(IProtocol, NodeListReader(peer.nodes)))


class PeerStreams:
    """
    The other end: what servers that dialled this one may ask of it.  Streams go to agents of its own only.
    """

    log = Logger()

    def __init__(self, reactor: Any, ways: Ways, registry: Registry) -> None:
        self.reactor = reactor
        self.ways = ways
        self.registry = registry
        self.links: dict[MuxConnection, NodeListWriter | None] = {}

    def make(self) -> MuxConnection:
        """
        The mux of a link that another server dialled.
        """
        mux = MuxConnection(self.reactor, client=False, accept=self._accept, lost=lambda why: self._lost(mux, why))
        self.links[mux] = None
        self.reactor.callLater(0, self._tell_nodes, mux)
        return mux

    def _tell_nodes(self, mux: MuxConnection) -> None:
        if mux in self.links and not mux.closing:
            writer = self.links[mux] = NodeListWriter(self.registry)
            mux.open().attach(cast(IProtocol, writer))

    def _lost(self, mux: MuxConnection, why: Exception) -> None:
        self.links.pop(mux, None)
        self.log.info("the link from another server ended: {why}", why=str(why))

    def drain(self) -> None:
        """
        Take no new streams, and tell no more of nodes.
        """
        for mux, writer in self.links.items():
            mux.go_away()
            if writer is not None:
                writer.end()

    def when_idle(self, timeout: float) -> Deferred[Any]:
        """
        Fires when no stream is open any more, but within ``timeout`` seconds.
        """
        idle: Deferred[Any] = DeferredList([mux.when_idle() for mux in self.links], consumeErrors=True)
        return idle.addTimeout(timeout, self.reactor)

    def abort(self) -> None:
        """
        Cut all links.
        """
        for mux in list(self.links):
            mux.abort(STOPPED)

    def _accept(self, stream: MuxStream) -> None:
        self.ways.metrics.accepted("peer")
        serving = Deferred.fromCoroutine(self._serve(stream))
        serving.addErrback(log_failure, self.log)

    async def _serve(self, stream: MuxStream) -> None:
        try:
            incoming = await read_connect(self.reactor, stream)
        except ConnectRefused as error:
            self.ways.metrics.refused(error.word)
            return
        node = (get_header(incoming.headers, NODE_HEADER.lower()) or b"").decode("latin-1")
        if not node:
            incoming.refuse(400, "BadRequest", MALFORMED, "the head of a stream between servers names a node: Yurt-Node")
            return
        try:
            await self._join(incoming, node)
        except ConnectRefused as error:
            incoming.refuse(error.status, error.reason, error.word, error.message)
        except CancelledError:  # the stream was reset by the other server, whose client lost interest
            return

    async def _join(self, incoming: IncomingConnect, node: str) -> None:
        way = self.ways.way_to(node, incoming.host, incoming.port, local_only=True)
        splice = Splice()
        connecting = way.connect(cast(IProtocolFactory, Build(lambda _: splice.right)))
        incoming.on_lost = connecting.cancel
        await connecting
        incoming.accept(cast(IProtocol, splice.left))


def log_failure(failure: Failure, log: Logger) -> None:
    """
    The end of a coroutine that must not fail.
    """
    log.failure("a mistake of ours while a stream was served", failure=failure)
