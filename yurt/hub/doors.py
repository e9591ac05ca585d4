"""
The doors of the proxy, plain and by HTTPS: on loopback, and on the addresses that pods reach; and where pods are sent.

A pod is not a node: only a door on loopback lends the node's identity, whichever way it speaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import ip_address
from typing import Any, cast

from twisted.application.service import IServiceCollection, MultiService
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger

from yurt.http.dial import tls_factory
from yurt.http.interfaces import Application
from yurt.http.limits import LARGE_HEAD_BYTES, ServerLimits
from yurt.http.server import HTTPServerFactory
from yurt.hub.answers import FROM_HUB
from yurt.hub.cloud import Cloud
from yurt.hub.config import HubConfig
from yurt.hub.identity import Door
from yurt.hub.openfiles import share_files
from yurt.hub.passthrough import PassThrough
from yurt.hub.serving import Serving
from yurt.hub.timers import Timers
from yurt.listening import Listen, ListenLater, tcp_endpoint

BIND_RETRY = 5.0
"""Seconds after which a door is tried again whose port somebody else holds."""

FIRST_REQUEST_TIMEOUT = 15.0
"""Seconds in which who connects by HTTPS must ask for something, the hand-shake included."""

PROMISE = 10.0
"""
Seconds after the start for which pods are sent to a door that has a certificate and is not open yet.  A kubelet that starts
together with the hub makes its pods once, of what it reads first.
"""


LINK_GRACE = 30.0
"""Seconds that the link may be away before pods are no longer sent to its address; it is made anew within moments."""


def pod_addresses(config: HubConfig) -> tuple[str, ...]:
    """
    The addresses of the link that pods reach.
    """
    return config.pod_link.dummy_if_ip if config.pod_link.enable_dummy_if else ()


def host_for_pods(config: HubConfig) -> str:
    """
    Where pods are sent: the link's first address, else one of the proxy's that is more than loopback; empty where there is none.
    """
    wide = (one for one in config.bind_proxy_addresses if not (ip_address(one).is_loopback or ip_address(one).is_unspecified))
    return next(iter((*pod_addresses(config), *wide)), "")


class Doors(MultiService):
    """
    All listeners of the proxy.  ``send_pods(host, port)`` is called with where pods are to be sent; an empty host: nowhere.

    A plain door on loopback that cannot be bound ends the start; what cannot be bound of the others is told, and tried again.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        config: HubConfig,
        application: Application,
        serving: Serving | None,
        cloud: Cloud,
        open_files: int,
        send_pods: Callable[[str, int], object],
    ) -> None:
        super().__init__()
        self.factories: list[HTTPServerFactory] = []
        self.listeners: list[Listen] = []
        self._reactor = reactor
        self._config = config
        self._application = application
        self._serving = serving
        self._send_pods = send_pods
        self._timers = Timers(reactor)
        self._later: dict[str, list[ListenLater]] = {}
        self._secure: dict[str, ListenLater] = {}
        self._promised = True
        self._cut_off = False
        self._sent_to: tuple[str, int] = ("", 0)
        pods = pod_addresses(config)
        ports = [port for port in (config.proxy_port, config.proxy_secure_port) if port]
        # What is passed through to the API server counts as one more door.
        pod_doors = len(pods) * len(ports) + (1 if serving is not None and host_for_pods(config) else 0)
        self._shares = share_files(open_files, len(config.bind_proxy_addresses) * len(ports), pod_doors)
        self.passing = PassThrough(reactor, cloud, self._shares.pods)
        for address in config.bind_proxy_addresses:
            self._make(Listen, address, lends=ip_address(address).is_loopback)
        for address in pods:
            self._make(ListenLater, address, lends=False)

    def _make(self, plain: type[Listen], address: str, *, lends: bool) -> None:
        """
        The doors of one address.
        """
        if self._config.proxy_port:
            self.open(plain, address, self._config.proxy_port, lends=lends)
        if self._serving is not None:
            self.open(ListenLater, address, self._config.proxy_secure_port, lends=lends, serving=self._serving)

    def open(self, kind: type[Listen], address: str, port: int, *, lends: bool, serving: Serving | None = None) -> None:
        """
        A door, which is open from the start, or as soon as it can be; by HTTPS where there is a certificate to show.
        """
        door = Door(f"{address}:{port}", lends_node_identity=lends)
        is_for_pods = address in pod_addresses(self._config)
        connections = self._shares.pods if is_for_pods else self._shares.loopback
        first_timeout = None if serving is None else FIRST_REQUEST_TIMEOUT
        limits = ServerLimits(connections, LARGE_HEAD_BYTES, first_timeout=first_timeout)
        factory = HTTPServerFactory(self._reactor, self._application, door, limits, own_headers=[FROM_HUB])
        self.factories.append(factory)
        outer, what = cast(IProtocolFactory, factory), f"the proxy on {door.name}"
        if serving is not None:
            outer, what = tls_factory(serving.tls, False, outer), f"the HTTPS proxy on {door.name}"
            outer = self.passing.before(outer) if address == host_for_pods(self._config) else outer
        listener = kind(tcp_endpoint(self._reactor, address, port), outer, what)
        listener.setServiceParent(IServiceCollection(self))
        self.listeners.append(listener)
        if isinstance(listener, ListenLater):
            self._later.setdefault(address, []).append(listener)
            if serving is not None:
                self._secure[address] = listener

    # Running

    def begin(self) -> None:
        """
        Open what can be opened now, and send pods where the hub will be in a moment.
        """
        self._timers.set("promise", PROMISE, self._end_promise)
        self.look()
        self.bind(address for address in self._config.bind_proxy_addresses if address in self._later)

    def stopService(self) -> Any:
        """
        Take no more connections.
        """
        self._timers.cancel_all()
        self.passing.stop()
        return super().stopService()

    def bind(self, addresses: Iterable[str]) -> None:
        """
        These addresses are there: open their doors.
        """
        addresses = tuple(addresses)
        if not self.running:
            return
        if host_for_pods(self._config) in addresses:
            self._timers.cancel("lost")
            self._cut_off = False
        for address in addresses:
            self._bind(address)

    def _bind(self, address: str) -> None:
        """
        Open the doors of one address, again and again while somebody else holds a port of theirs.
        """
        closed = [one for one in self._later.get(address, []) if not one.start_listening()]
        for one in closed:
            self.log.warn("{problem}; retrying", problem=one.problem)
        if closed:
            self._timers.set(f"bind {address}", BIND_RETRY, partial(self._bind, address))
        self.look()

    def lose(self, left: tuple[str, ...]) -> None:
        """
        Of the link's addresses these are left; what listens on the others works again when they are back.
        """
        if self.running and host_for_pods(self._config) not in left:
            self._timers.set("lost", LINK_GRACE, self._give_up)

    def _give_up(self) -> None:
        self._cut_off = True
        self.look()

    def _end_promise(self) -> None:
        self._promised = False
        self.look()

    def look(self) -> None:
        """
        Find out where pods can be sent now.
        """
        host = host_for_pods(self._config)
        listener, serving = self._secure.get(host), self._serving
        is_there = listener is not None and (listener.port is not None or (self._promised and listener.problem is None))
        is_there = is_there and not self._cut_off and serving is not None and serving.names(host)
        sent_to = (host, self._config.proxy_secure_port) if is_there else ("", 0)
        if sent_to != self._sent_to:
            self._sent_to = sent_to
            self._send_pods(*sent_to)
            said = "pods are sent to {host}, port {port}" if is_there else "pods are no longer sent to {host}, port {port}"
            self.log.info(said, host=host, port=self._config.proxy_secure_port)
