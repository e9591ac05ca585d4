"""
What other servers ask of this one over the links that they dialled: streams to agents of its own, and which nodes these are.
docs/tunnel-protocol.md, section 6.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from twisted.application.internet import TimerService
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.http.dial import Build
from yurt.http.heads import get_header
from yurt.mux.connection import MuxConnection, MuxStream
from yurt.tunnel.answering import IncomingConnect, read_connect
from yurt.tunnel.connect import MALFORMED, NODE_HEADER, ConnectRefused
from yurt.tunnel.server.nodelists import NodeListWriter
from yurt.tunnel.server.registry import Registry
from yurt.tunnel.server.ways import Ways
from yurt.tunnel.splice import Splice
from yurt.tunnel.wear import end_within

LOOK = 15.0
"""Seconds between two looks for certificates that have expired."""

STOPPED, EXPIRED = "the server stopped", "the other server's certificate has expired"


@dataclass(slots=True)
class _Dialled:
    """
    Where a link comes from, until when the certificate holds that it shows, and what tells of nodes over it.
    """

    host: str
    valid_until: float
    writer: NodeListWriter | None = None

    def tell_no_more(self) -> None:
        """
        End the list of nodes, if it has begun.
        """
        writer, self.writer = self.writer, None
        if writer is not None:
            writer.end()


class PeerStreams(TimerService):
    """
    Serves the streams of other servers; they go to agents of this one only.

    A link takes no new streams once the other server's certificate has expired; those that run go on for ``patience`` seconds, or
    to their end where another link from there shows a certificate that holds.  ``now`` is the time of day.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, ways: Ways, registry: Registry, patience: float, now: Callable[[], float] = time.time
    ) -> None:
        super().__init__(LOOK, self.look)
        self.clock = self.reactor = reactor
        self.ways = ways
        self.registry = registry
        self.links: dict[MuxConnection, _Dialled] = {}
        self._patience = patience
        self._now = now

    def make(self, host: str, valid_until: float) -> MuxConnection:
        """
        The mux of a link that another server dialled.
        """
        mux = MuxConnection(self.reactor, client=False, accept=self._accept, lost=lambda why: self._lost(mux, why))
        link = self.links[mux] = _Dialled(host, valid_until)
        mux.on_go_away = link.tell_no_more
        self.reactor.callLater(0, self._tell_nodes, mux, link)
        return mux

    def _tell_nodes(self, mux: MuxConnection, link: _Dialled) -> None:
        if mux in self.links and not (mux.closing or mux.peer_going_away):
            link.writer = NodeListWriter(self.registry)
            mux.open().attach(cast(IProtocol, link.writer))

    def _lost(self, mux: MuxConnection, why: Exception) -> None:
        self.links.pop(mux, None)
        self.log.info("the link from another server ended: {why}", why=str(why))

    def look(self) -> None:
        """
        End what has expired.
        """
        now = self._now()
        holding = {link.host for link in self.links.values() if link.valid_until > now}
        for mux, link in list(self.links.items()):
            if link.valid_until <= now and link.host not in holding and not mux.closing:
                self.log.warn("the link of the server at {host} ends: {why}", host=link.host, why=EXPIRED)
                link.tell_no_more()
                end_within(self.reactor, mux, self._patience, EXPIRED)

    def drain(self) -> None:
        """
        Take no new streams, and tell no more of nodes.
        """
        for mux, link in self.links.items():
            mux.go_away()
            link.tell_no_more()

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
