"""
The tunnel server as a Twisted service: its parts wired together, started and stopped in order.

No step of the start waits for the network; a listener that cannot be bound ends the start.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from twisted.application.service import IServiceCollection, MultiService, Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.logger import Logger

from yurt import __version__
from yurt.host.destination import Destination, original_destination
from yurt.host.flows import Flows
from yurt.http.dial import tls_factory
from yurt.http.interfaces import Headers
from yurt.http.limits import LARGE_HEAD_BYTES, ServerLimits
from yurt.http.server import HTTPServerFactory
from yurt.lifecycle import MAX_OPEN_FILES, OnHangup
from yurt.listening import Listen, tcp_endpoint
from yurt.memory import CONNECTION_THRESHOLDS, ReturnMemory
from yurt.metrics import ReactorLag, new_registry
from yurt.mux.connection import MuxConnection
from yurt.sdnotify import Notify, watchdog_interval
from yurt.tls import TLS1_3, ClientTLS, ServerTLS
from yurt.tunnel.hello import is_server
from yurt.tunnel.opening import StreamEndpoint
from yurt.tunnel.quiet import QuietStreams, Talk
from yurt.tunnel.records import link_factory
from yurt.tunnel.server.abandoned import Abandoned, Open
from yurt.tunnel.server.agents import Agents
from yurt.tunnel.server.authentication import Authenticator, Entrance
from yurt.tunnel.server.authorisation import Authoriser
from yurt.tunnel.server.certificates import ServerCertificates
from yurt.tunnel.server.cluster import Cluster
from yurt.tunnel.server.config import TunnelServerConfig
from yurt.tunnel.server.diverted import Diverted
from yurt.tunnel.server.doors import Door
from yurt.tunnel.server.egress import EgressSocket
from yurt.tunnel.server.front import Front
from yurt.tunnel.server.meta import meta_site
from yurt.tunnel.server.metrics import PREFIX, Figures, ServerMetrics
from yurt.tunnel.server.outlived import Outlived
from yurt.tunnel.server.peer_streams import PeerStreams
from yurt.tunnel.server.peers import PeerLinks
from yurt.tunnel.server.redirect import Redirect
from yurt.tunnel.server.refusals import Refusals
from yurt.tunnel.server.registry import Carrier, Registry
from yurt.tunnel.server.rules import Bound
from yurt.tunnel.server.shares import share_files
from yurt.tunnel.server.status import certificates_expire_in, server_status
from yurt.tunnel.server.upstreams import Upstreams
from yurt.tunnel.server.ways import Ways

FIRST_REQUEST_TIMEOUT = 15.0
"""Seconds in which a new connection must begin to ask for something: strangers who say nothing must not fill a door."""


class TunnelServer(MultiService):
    """
    All of ``twistd yurt-tunnel-server``.

    ``original`` reads where a connection was going before a rule turned it here.  Raises
    :exc:`~yurt.kube.kubeconfig.KubeconfigError` and :exc:`~yurt.tls.CredentialsError`.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        config: TunnelServerConfig,
        open_files: int = MAX_OPEN_FILES,
        *,
        original: Callable[[socket.socket], Destination | None] = original_destination,
    ) -> None:
        super().__init__()
        self.reactor = reactor
        self.config = config
        self.original = original
        self.shares = share_files(open_files)
        self.server_id = uuid.uuid4().hex
        self.started_at = 0.0
        self.prometheus = new_registry()
        self.metrics = ServerMetrics(self.prometheus, __version__, self.figures)
        self.refusals = Refusals(reactor, self.metrics)
        self.registry = Registry()
        self.cluster = Cluster(reactor, config, self.server_id, self.registry.connected)
        self.nodes, self.ports = self.cluster.nodes, self.cluster.ports
        self.registry.forget = self.nodes.forget
        self.certificates = self.make_certificates()
        credentials = config.credentials if self.certificates is None else self.certificates.credentials()
        kubelet_credentials = config.kubelet_credentials if self.certificates is None else self.certificates.kubelet_credentials()
        # The signer of serving certificates makes them for servers only; servers show theirs to each other nevertheless.
        self.agents_tls = ServerTLS(credentials, require_client_certificate=True, minimum=TLS1_3, any_purpose=is_server)
        self.callers_tls = ServerTLS(credentials)
        self.peers_tls = ClientTLS(credentials, minimum=TLS1_3)
        self.peers = PeerLinks(reactor, self.peers_tls, config.drain_timeout)
        self.ways = Ways(
            reactor,
            self.registry,
            self.open_stream,
            self.refusals,
            peers=self.peers,
            is_node=self.cluster.is_node,
            wants_agent=self.cluster.wants_agent,
            now=time.time,
        )
        self.peer_streams = PeerStreams(reactor, self.ways, self.registry, config.drain_timeout)
        self.upstreams = Upstreams(reactor, self.ways, kubelet_credentials)
        self.diverted = Diverted(self.ways, self.nodes, self.ports, self.refusals, self.shares.diverted)
        self.front = Front(
            reactor,
            ways=self.ways,
            nodes=self.nodes,
            ports=self.ports,
            pods=self.cluster.pods,
            authenticator=Authenticator(reactor, self.cluster.client),
            authoriser=Authoriser(reactor, self.cluster.client, config.allowed_names),
            upstreams=self.upstreams,
            refusals=self.refusals,
            original=self.original,
        )
        self.agents = Agents(
            reactor,
            self.server_id,
            self.registry,
            self.nodes,
            self.refusals,
            max_agents=self.shares.agents,
            max_handshakes=self.shares.handshakes,
            peers=self.peer_streams.make,
            moved=self.upstreams.drop_idle,
        )
        self.factories: dict[str, HTTPServerFactory] = {}
        self.doors: list[Listen] = []
        self.listeners: list[Listen] = []
        """All listeners; the doors are those that close first."""
        self.redirect: Redirect | None = None
        self.wire()

    # Wiring

    def make_certificates(self) -> ServerCertificates | None:
        """
        What keeps the server's certificates, unless it was given one.
        """
        config, cluster = self.config, self.cluster
        if config.credentials.has_certificate or config.kubeconfig is None or cluster.client is None:
            return None
        return ServerCertificates(
            self.reactor, config, config.kubeconfig, cluster.client, cluster.nodes, cluster.host, self.renew
        )

    def open_stream(
        self, carrier: Carrier, host: str, port: int, *, headers: Headers, early: bool, answered: Callable[[], object]
    ) -> IStreamClientEndpoint:
        """
        See :class:`yurt.tunnel.server.ways.OpenStream`.
        """
        mux = cast(MuxConnection, carrier)
        return StreamEndpoint(mux, host, port, headers=headers, early=early, reactor=self.reactor, answered=answered)

    def wire(self) -> None:
        """
        The child services, in the order of their start.
        """
        config, reactor = self.config, self.reactor
        agents = link_factory(self.agents_tls, False, cast(IProtocolFactory, self.agents))
        tls = self.door(Entrance.TLS, tls_factory(self.callers_tls, False, self.http_factory(Entrance.TLS)))
        plain = self.door(Entrance.PLAIN, self.http_factory(Entrance.PLAIN))
        meta = cast(IProtocolFactory, meta_site(self, self.prometheus))
        outside, inside = config.bind_addresses, config.insecure_bind_addresses
        self.agents.listeners = self.listen(outside, config.tunnel_agent_connect_port, agents, "agents")
        self.doors += self.agents.listeners
        self.doors += self.listen(outside, config.secure_port, tls, "TLS")
        self.doors += self.listen(inside, config.insecure_port, plain, "plain HTTP")
        if config.egress_socket is not None:
            egress = EgressSocket(reactor, config.egress_socket, self.http_factory(Entrance.EGRESS))
            self.doors.append(egress)
            self.add(egress)
        self.listeners = [*self.doors, *self.listen(inside, config.meta_port, meta, "meta pages")]
        self.add(ReturnMemory(reactor, thresholds=CONNECTION_THRESHOLDS))
        self.add(self.cluster)
        if self.certificates is not None:
            self.add(self.certificates)
        self.add(self.peers)
        self.add(self.peer_streams)
        if self.cluster.members is not None:
            self.cluster.members.subscribe(self.peers.update)
        if config.enable_iptables and self.nodes.of_cluster:
            doors = {
                "secure": Bound(config.bind_addresses, config.secure_port),
                "insecure": Bound(config.insecure_bind_addresses, config.insecure_port),
            }
            flows = Flows(reactor, before=self.diverted.cut)
            period = config.iptables_sync_period
            self.redirect = Redirect(reactor, self.nodes, self.ports, cast(Any, doors), period=period, flows=flows)
            self.add(self.redirect)
        self.add(Abandoned(reactor, self.callers, self.refusals.broke))
        self.add(Outlived(reactor, self.registry, self.nodes, config.drain_timeout))
        self.add(ReactorLag(reactor, self.prometheus, PREFIX))
        self.add(OnHangup(reactor, self.reload))
        self.add(Notify(reactor, interval=watchdog_interval()))

    def listen(self, addresses: tuple[str, ...], port: int, factory: IProtocolFactory, what: str) -> list[Listen]:
        """
        Listeners on a port of some addresses; none for port 0.
        """
        made = [
            Listen(tcp_endpoint(self.reactor, address, port), factory, f"{what} on {address}:{port}")
            for address in addresses
            if port
        ]
        for listener in made:
            self.add(listener)
        return made

    def http_factory(self, entrance: Entrance) -> IProtocolFactory:
        """
        The HTTP behind one of the doors.
        """
        limits = ServerLimits(self.shares.door, LARGE_HEAD_BYTES, first_timeout=FIRST_REQUEST_TIMEOUT)
        factory = HTTPServerFactory(
            self.reactor,
            self.front,
            entrance,
            limits,
            takes_connect=True,
            handshake_failed=self.front.handshake_failed,
            crowded_out=self.front.crowded_out,
            turned_away=self.front.turned_away,
        )
        self.factories[entrance.value] = factory
        return cast(IProtocolFactory, factory)

    def door(self, entrance: Entrance, addressed: IProtocolFactory) -> IProtocolFactory:
        """
        One of the two doors that diverted connections come to, too.
        """
        return cast(
            IProtocolFactory,
            Door(entrance.value, self.diverted, addressed, self.metrics, own_addresses=self.cluster, original=self.original),
        )

    def add(self, child: Any) -> None:
        """
        Make ``child`` start and stop with this service.
        """
        cast(Service, child).setServiceParent(IServiceCollection(self))

    # Running

    def startService(self) -> None:
        """
        Listen.
        """
        self.started_at = time.time()
        super().startService()

    def reload(self) -> None:
        """
        Wait no longer for certificates; files need no SIGHUP.
        """
        if self.certificates is not None:
            self.certificates.retry()
        self.log.info("certificates, keys and tokens in files are read again whenever they change")

    def renew(self) -> None:
        """
        Another certificate is there, for connections to come; those that there are go on.
        """
        assert self.certificates is not None
        credentials = self.certificates.credentials()
        for tls in (self.agents_tls, self.callers_tls, self.peers_tls):
            tls.replace(credentials)
        self.upstreams.replace(self.certificates.kubelet_credentials())

    def stopService(self) -> Deferred[None]:
        """
        Take nothing new, let what runs end within ``drain_timeout``, then close.
        """
        return Deferred.fromCoroutine(self.stop())

    async def stop(self) -> None:
        """
        The doors close, agents and servers are told, what runs ends, and the rules that lead here go last; or another server on
        this host has them first.

        With the last DNAT rule of a host the kernel may cease to track connections, and those that were diverted would hang (seen
        with Linux 6.18).  A new call of a node behind NAT is better refused at once, by a closed port, than sent where nobody
        answers.
        """
        if self.redirect is not None:
            await self.redirect.hand_over()
        await DeferredList([door.stop_listening() for door in self.doors], consumeErrors=True)
        self.agents.drain()
        self.peer_streams.drain()
        timeout = self.config.drain_timeout
        drained: list[Deferred[Any]] = [factory.drain(timeout) for factory in self.factories.values()]
        drained += [self.diverted.drain(self.reactor, timeout), self.peer_streams.when_idle(timeout)]
        quiet = QuietStreams(self.reactor, self.outgoing, at_node=False)
        quiet.start()
        await DeferredList(drained)
        quiet.stop()
        self.upstreams.close()
        self.agents.abort()
        self.peer_streams.abort()
        await cast("Deferred[None]", super().stopService())
        self.log.info("the tunnel server has stopped")

    def outgoing(self) -> Iterator[Talk]:
        """
        All by which calls leave this server: streams of links, and what it has dialled itself.
        """
        for agent in self.registry.agents():
            yield from cast(MuxConnection, agent.mux).open_streams
        for link in self.peers.all_links():
            yield from link.open_streams
        yield from self.front.direct()

    # What the meta pages show

    def readiness(self) -> list[str]:
        """
        Why the server is not ready.
        """
        reasons = ["the server is stopping"] if self.agents.stopping else []
        reasons += [listener.problem for listener in self.listeners if listener.problem]
        reasons += self.cluster.unready()
        reasons += [] if self.certificates is None else self.certificates.problems()
        if self.redirect is not None and self.redirect.problem:
            reasons.append(self.redirect.problem)
        return reasons

    def status(self) -> Mapping[str, object]:
        """
        The server's state for people.
        """
        return server_status(self, time.time())

    def callers(self) -> Iterator[Open]:
        """
        The connections of callers.
        """
        yield from self.diverted.callers()
        for factory in self.factories.values():
            yield from (Open(one.wire, one.ended) for one in factory.connections)

    def connections(self) -> dict[str, int]:
        """
        Connections open now, by door.
        """
        return {
            "diverted": len(self.diverted.splices),
            **{name: len(factory.connections) for name, factory in self.factories.items()},
        }

    def figures(self) -> Figures:
        """
        What the metrics ask for at a scrape.
        """
        agents = list(self.registry.agents())
        links = self.peers.links()
        return Figures(
            nodes=len(self.registry),
            agent_connections=len(agents),
            streams=sum(agent.mux.streams for agent in agents) + sum(link.streams for link in links),
            peers=len(links),
            bytes_received=sum(agent.mux.bytes_received for agent in agents),
            bytes_sent=sum(agent.mux.bytes_sent for agent in agents),
            certificates_expire_in=certificates_expire_in(self, time.time()),
            cloud_nodes=0 if self.redirect is None else len(self.redirect.rules.direct),
            connections=self.connections(),
        )
