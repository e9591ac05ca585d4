"""
All links of one agent: to every address of every server that it knows, for as long as it runs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.internet.task import deferLater

from yurt.mux.connection import MuxConnection, MuxStream
from yurt.tls import ClientTLS
from yurt.tunnel.agent.allowed import kernel_addresses
from yurt.tunnel.agent.attempts import Attempts
from yurt.tunnel.agent.config import AgentConfig
from yurt.tunnel.agent.links import Link
from yurt.tunnel.agent.metrics import AgentMetrics, Figures
from yurt.tunnel.agent.names import Names
from yurt.tunnel.agent.patience import CONNECT_TIMEOUT
from yurt.tunnel.agent.routes import CONNECTED, CONNECTING, WAITING, Name, Route
from yurt.tunnel.hello import AgentHello, ServerHello
from yurt.tunnel.link import dial_link
from yurt.tunnel.quiet import QuietStreams


class Connector:
    """
    All names of an agent, and the links that there are.  ``accept`` is given each stream that a server opens.
    """

    def __init__(
        self,
        reactor: Any,
        config: AgentConfig,
        tls: ClientTLS,
        names: Names,
        accept: Callable[[MuxStream], None],
        metrics: AgentMetrics,
        chance: Callable[[], float] = random.random,
        own: Callable[[], frozenset[str]] = kernel_addresses,
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._tls = tls
        self._accept = accept
        self.names = names
        self.metrics = metrics
        self.chance = chance
        self._own = own
        self.known = [Name(self, *server, proxied=server in config.proxies) for server in config.servers]
        self.links: set[Link] = set()
        self._received = self._sent = 0

    def now(self) -> float:
        """
        The reactor's time.
        """
        return float(self._reactor.seconds())

    def time_of_day(self) -> float:
        """
        Seconds, by the clock that certificates go by.
        """
        return time.time()

    def own_addresses(self) -> frozenset[str]:
        """
        The addresses that this host has now; none where the kernel does not tell.
        """
        try:
            return self._own()
        except OSError:
            return frozenset()

    async def happens(self, event: Deferred[None], seconds: float) -> bool:
        """
        Wait for an event, at most for some time; whether it has happened.
        """
        try:
            await event.addTimeout(seconds, self._reactor)
        except TimeoutError:
            return False
        return True

    def sleep(self, seconds: float) -> Deferred[None]:
        """
        Fires after some time; may be cancelled.
        """
        return deferLater(self._reactor, seconds, lambda: None)

    @property
    def routes(self) -> list[Route]:
        """
        All addresses of all servers.
        """
        return [route for name in self.known for route in name.routes.values()]

    @property
    def connected(self) -> list[Route]:
        """
        Those with a link that brings new streams.
        """
        return [route for route in self.routes if route.state == CONNECTED]

    @property
    def problems(self) -> list[str]:
        """
        What keeps from being connected to all servers, one sentence each.
        """
        names = [name.problem for name in self.known if name.problem]
        routes = [route.problem or f"{route.server}: connecting" for route in self.routes if route.state in (CONNECTING, WAITING)]
        return names + routes

    # Links

    async def dial(self, route: Route) -> Link:
        """
        A new link.  Raises :exc:`LinkError`.
        """
        link = await Attempts(self._reactor, partial(self._attempt, route), self.chance).link
        link.wear(self.time_of_day(), self.chance())
        link.note_address(self.own_addresses())
        self.links.add(link)
        link.lost.wait().addCallback(self._forget, link)
        return link

    async def _attempt(self, route: Route, silent: Callable[[], object]) -> Link:
        name = route.name
        link = Link(route.server)

        def make(_: ServerHello) -> MuxConnection:
            link.mux = MuxConnection(self._reactor, client=True, accept=self._accept, lost=link.was_lost)
            link.mux.on_go_away = lambda: link.spend("go-away", "the server wants no more of it")
            return link.mux

        link.info = await dial_link(
            self._reactor,
            name.host,
            name.port,
            self._tls,
            AgentHello(name.server, addresses=self._config.node_ips),
            make=make,
            address=route.address,
            connect_timeout=CONNECT_TIMEOUT,
            proxy=self._config.proxies.get((name.host, name.port)),
            silent=silent,
        )
        return link

    def _forget(self, _: None, link: Link) -> None:
        self.links.discard(link)
        if link.mux is not None:
            self._received += link.mux.bytes_received
            self._sent += link.mux.bytes_sent

    def replace_older(self, route: Route, link: Link) -> None:
        """
        ``route`` has the newest link to a server: the one that was there before, by another route, lets its streams end.
        """
        for other in self.connected:
            older = other.link
            if other is not route and older is not None and older.server_id == link.server_id:
                older.successor = route
                older.spend("replaced", f"{route.server} is the same server")
                self.outlast(older)

    def outlast(self, link: Link) -> None:
        """
        Another link has taken the place of ``link``: what runs on it goes on to its end.
        """
        link.let_end(self._reactor, None)

    def let_end(self, link: Link) -> None:
        """
        Let the streams of ``link`` end, as long as at a stop.
        """
        link.let_end(self._reactor, self._config.drain_timeout)

    # Running

    def start(self) -> None:
        """
        Begin to connect.
        """
        for name in self.known:
            name.start()

    def retry(self) -> None:
        """
        Look and try again now, wherever an attempt is waited for.
        """
        for name in self.known:
            name.hurry()

    async def stop(self) -> None:
        """
        Connect no more, let the streams that run end, and leave.
        """
        for name in self.known:
            name.stop()
        patience = self._config.drain_timeout
        quiet = QuietStreams(self._reactor, self.open_streams, at_node=True)
        quiet.start()
        await gatherResults([link.let_end(self._reactor, patience) for link in list(self.links)])
        quiet.stop()

    def open_streams(self) -> list[MuxStream]:
        """
        Those of all links.
        """
        return [stream for link in self.links if link.mux is not None for stream in link.mux.open_streams]

    def figures(self) -> Figures:
        """
        What the metrics ask for at a scrape.
        """
        muxes = [link.mux for link in self.links if link.mux is not None]
        return Figures(
            servers=len(self.connected),
            streams=sum(mux.streams for mux in muxes),
            bytes_received=self._received + sum(mux.bytes_received for mux in muxes),
            bytes_sent=self._sent + sum(mux.bytes_sent for mux in muxes),
        )
