"""
Links between the servers of a cluster, so that any of them reaches any node: docs/tunnel-protocol.md, section 6.

Each server dials each other one.  Over the link that it dialled it opens streams to the nodes that the other one has; over the
same link the other one tells which nodes those are.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from typing import Any, cast

from twisted.application.internet import TimerService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt import __version__
from yurt.kube.pause import pause
from yurt.mux.connection import MuxConnection, MuxLimits, MuxStream
from yurt.tls import ClientTLS
from yurt.tunnel.answering import read_head
from yurt.tunnel.connect import MALFORMED, ConnectRefused, authority
from yurt.tunnel.hello import PEER_PATH, AgentHello
from yurt.tunnel.link import REJECTED, LinkError, close_link, dial_link
from yurt.tunnel.server.members import Member
from yurt.tunnel.server.nodelists import NodeListReader, NodeListWriter
from yurt.tunnel.server.registry import takes_streams
from yurt.tunnel.wear import end_within, renew_at

FIRST_RETRY, MAX_RETRY = 1.0, 4.0
"""
Seconds within which another server is dialled again after the first failure, and after many: it is reached within five once
a line is healed.
"""
CONNECT_TIMEOUT = 3.3
"""Seconds for TCP: the kernel sends the SYN again after 1 and after 3 seconds."""

LIMITS = MuxLimits(ping_after=1.0, ping_patience=5.0)
"""
Of a link to another server: heard of every second, so that one whose host died is not chosen for longer, while another has the
node; and given up after six.
"""

LOOK = 15.0
"""Seconds between two looks at what is left of a link's certificates; the time of day may have been set."""

STOPPED, EXPIRED = "the server stopped", "a certificate of it, this server's or the other one's, has expired"


class Dialled:
    """
    A link to another server, and the nodes that it told of.
    """

    mux: MuxConnection

    def __init__(self, nodes: Iterable[str]) -> None:
        self.nodes = set(nodes)
        self.valid_until = self.renew_at = inf
        """
        When the first of both sides' certificates expires, and when another link is to take the place of this one, by the time of
        day.
        """
        self.why: str | None = None
        """Why it has ended."""

    def wear(self, now: float, chance: float) -> None:
        """
        Choose when another one is to take its place.
        """
        self.renew_at = renew_at(now, self.valid_until, chance, LOOK)


class Peer:
    """
    Another server: the link to it, and the nodes that have an agent there.
    """

    def __init__(self, member: Member) -> None:
        self.member = member
        self.name = f"server {member.id} at {authority(member.host, member.port)}"
        self.wanted = True
        self.link: Dialled | None = None
        self.problem: str | None = "not connected yet"
        """Why there is no link."""
        self.lost: Deferred[str] | None = None
        """Fires when ``link`` is lost, and none has taken its place."""
        self.keeping: Deferred[None] | None = None
        self.renewing: Deferred[None] | None = None

    @property
    def mux(self) -> MuxConnection | None:
        """
        That of the link, if there is one.
        """
        return None if self.link is None else self.link.mux

    @property
    def nodes(self) -> set[str]:
        """
        The nodes that have an agent there.
        """
        return set() if self.link is None else self.link.nodes


class PeerLinks(TimerService):
    """
    Keeps a link to each other server, and makes another one in time before a certificate of either side expires: what runs on the
    older one goes on to its end.  Where none was renewed the link ends with it, its streams after ``patience`` seconds.

    ``draw`` gives numbers from 0 to 1, ``now`` the time of day.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        tls: ClientTLS,
        patience: float,
        draw: Callable[[], float] = random.random,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(LOOK, self.look)
        self.clock = self.reactor = reactor
        self.tls = tls
        self.draw = draw
        self.peers: dict[Member, Peer] = {}
        self._patience = patience
        self._now = now
        self._open: set[MuxConnection] = set()

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

    def stopService(self) -> Deferred[None]:
        """
        Cut all links.
        """
        for peer in list(self.peers.values()):
            self._drop(peer)
        for mux in list(self._open):
            mux.abort(STOPPED)
        return cast("Deferred[None]", super().stopService())

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
        The links for new streams.
        """
        return [peer.mux for peer in self.peers.values() if peer.mux is not None]

    def all_links(self) -> list[MuxConnection]:
        """
        Those, and older ones on which something runs.
        """
        return list(self._open)

    def look(self) -> None:
        """
        See what certificates do to the links.
        """
        now = self._now()
        for peer in self.peers.values():
            link = peer.link
            if link is None or link.mux.closing:
                continue
            if link.valid_until <= now:
                self.log.warn("{name}: the link ends: {why}", name=peer.name, why=EXPIRED)
                end_within(self.reactor, link.mux, self._patience, EXPIRED)
            elif link.renew_at <= now and peer.wanted and peer.renewing is None:
                peer.renewing = Deferred.fromCoroutine(self._renew(peer, link))
                peer.renewing.addErrback(self._kept)

    async def _renew(self, peer: Peer, link: Dialled) -> None:
        try:
            newer = await self._dial(peer)
        except LinkError as error:
            self.log.warn("{name}: a certificate of the link expires soon: {error}; trying again", name=peer.name, error=error)
            link.wear(self._now(), self.draw())
            return
        finally:
            peer.renewing = None
        if peer.link is not link or newer.why is not None:
            newer.mux.abort("the link that it was to follow was lost")
            return
        peer.link = newer
        self.log.info("{name}: the link is made anew, as a certificate expires soon", name=peer.name)
        link.mux.go_away()
        await link.mux.when_idle()
        if link.why is None:
            close_link(link.mux)

    def _drop(self, peer: Peer) -> None:
        del self.peers[peer.member]
        doing = peer.keeping, peer.renewing
        peer.keeping = peer.renewing = None
        for one in doing:
            if one is not None:
                one.cancel()

    def _keep(self, peer: Peer) -> None:
        peer.keeping = Deferred.fromCoroutine(self._keep_for_ever(peer))
        peer.keeping.addErrback(self._kept)

    def _kept(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("a mistake of ours: a server is dialled no more", failure=failure)

    async def _keep_for_ever(self, peer: Peer) -> None:
        patience = FIRST_RETRY
        while True:
            try:
                link = await self._dial(peer)
            except LinkError as error:
                if str(error) != peer.problem:
                    self.log.warn("{name}: {error}; trying again", name=peer.name, error=error)
                peer.problem = str(error)
            else:
                patience = FIRST_RETRY
                self.log.info("{name}: connected", name=peer.name)
                peer.problem = await self._use(peer, link)
                self.log.warn("{name}: the link ended: {why}", name=peer.name, why=peer.problem)
                if not peer.wanted:
                    del self.peers[peer.member]
                    return
            await pause(self.reactor, patience * self.draw())
            patience = min(2 * patience, MAX_RETRY)

    async def _use(self, peer: Peer, link: Dialled) -> str:
        """
        Until it, or the one that has taken its place, is lost; answers why.
        """
        if link.why is not None:
            return link.why
        peer.link, peer.problem, peer.lost = link, None, Deferred()
        return await peer.lost

    async def _dial(self, peer: Peer) -> Dialled:
        member, link = peer.member, Dialled(peer.nodes)

        def ended(why: Exception) -> None:
            self._open.discard(link.mux)
            link.why = str(why)
            if peer.link is link:
                peer.link = None
                if peer.lost is not None and not peer.lost.called:
                    peer.lost.callback(link.why)

        def make(answer: object) -> MuxConnection:
            accept = partial(self._accept, link.nodes)
            link.mux = MuxConnection(self.reactor, client=True, accept=accept, lost=ended, limits=LIMITS)
            self._open.add(link.mux)
            return link.mux

        hello = AgentHello(authority(member.host, member.port), PEER_PATH, user_agent=f"yurt-tunnel-server/{__version__}")
        info = await dial_link(
            self.reactor, member.host, member.port, self.tls, hello, make=make, connect_timeout=CONNECT_TIMEOUT
        )
        if info.server_id != member.id:
            # Its Lease outlives a server that was killed; what listens there now has a Lease of its own, or is this server.
            why = f"another server listens there now: {info.server_id}"
            link.mux.abort(why)
            raise LinkError(why, word=REJECTED, answered=True)
        link.valid_until = info.valid_until
        link.wear(self._now(), self.draw())
        return link

    def _accept(self, nodes: set[str], stream: MuxStream) -> None:
        reading = Deferred.fromCoroutine(self._read_nodes(nodes, stream))
        reading.addErrback(log_failure, self.log)

    async def _read_nodes(self, nodes: set[str], stream: MuxStream) -> None:
        try:
            incoming = await read_head(self.reactor, stream)
        except ConnectRefused:
            return
        if incoming.method != b"POST" or incoming.target != NodeListWriter.TARGET:
            incoming.refuse(400, "BadRequest", MALFORMED, "only the list of nodes is taken here")
            return
        incoming.accept(cast(IProtocol, NodeListReader(nodes)))


def log_failure(failure: Failure, log: Logger) -> None:
    """
    The end of a coroutine that must not fail.
    """
    log.failure("a mistake of ours while a stream was served", failure=failure)
