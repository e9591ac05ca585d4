"""
What is addressed to the server itself: HTTP by TLS, by plain text from this host, and by the egress socket.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.python.failure import Failure

from yurt.host.destination import Destination, local_destination, original_destination
from yurt.http.failures import describe
from yurt.http.interfaces import IncomingRequest
from yurt.tunnel.server.authentication import Authenticator
from yurt.tunnel.server.authorisation import Authoriser
from yurt.tunnel.server.egress import Direct, Opened
from yurt.tunnel.server.metrics import ServerMetrics
from yurt.tunnel.server.nodes import Nodes
from yurt.tunnel.server.passage import Passage, answer_refusal
from yurt.tunnel.server.ports import LivePorts
from yurt.tunnel.server.proxied import Proxied
from yurt.tunnel.server.refusals import Refusals
from yurt.tunnel.server.routing import Refused
from yurt.tunnel.server.upstreams import Upstreams
from yurt.tunnel.server.ways import Ways

MAX_REQUESTS = 4096
"""Requests served at once, streams and upgraded connections among them, unless the listeners allow fewer."""


class FindsPods(Protocol):
    """
    The part of :class:`yurt.tunnel.server.pods.Pods` that is needed here.
    """

    def node_of_pod(self, namespace: str, name: str) -> Deferred[str]: ...


class Front:
    """
    The :class:`yurt.http.interfaces.Application` of ports 10263 and 10264 and of the egress socket; ``door`` of the listeners'
    requests is an :class:`Entrance`.  Listeners set ``takes_connect``.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        ways: Ways,
        nodes: Nodes,
        ports: LivePorts,
        pods: FindsPods | None,
        authenticator: Authenticator,
        authoriser: Authoriser,
        upstreams: Upstreams,
        refusals: Refusals,
        max_requests: int = MAX_REQUESTS,
        original: Callable[[socket.socket], Destination | None] = original_destination,
    ) -> None:
        self.reactor = reactor
        self.ways = ways
        self.nodes = nodes
        self.ports = ports
        self.pods = pods
        self.authenticator = authenticator
        self.authoriser = authoriser
        self.upstreams = upstreams
        self.refusals = refusals
        self.max_requests = max_requests
        self.original = original
        self.passages: set[Passage] = set()

    @property
    def metrics(self) -> ServerMetrics:
        """
        Where requests are counted.
        """
        return self.refusals.metrics

    def dialled_port(self, request: IncomingRequest) -> int | None:
        """
        The port that the client dialled, before a Service's address was translated on this host; None when none was.
        """
        connection = request.tcp_socket
        going = None if connection is None else self.original(connection)
        return None if connection is None or going is None or going == local_destination(connection) else going[1]

    def handshake_failed(self, peer: IAddress, reason: Failure) -> None:
        """
        A caller's TLS failed: it gets an alert, and nothing else tells why.
        """
        self.refusals.refuse("handshake", f"a caller from {getattr(peer, 'host', peer)}: {describe(reason)}")

    def crowded_out(self, peer: IAddress) -> None:
        """
        A caller that asked nothing, or nothing more, made room for another one.
        """
        self.refusals.refuse("full", f"a caller from {getattr(peer, 'host', peer)} had nothing to ask, and made room for another")

    def turned_away(self, peer: IAddress | None) -> None:
        """
        A caller found no room, as all connections that the door takes have something asked.
        """
        self.refusals.refuse("full", f"a caller from {getattr(peer, 'host', 'a socket')}: the door has no room for it")

    def handle(self, request: IncomingRequest) -> None:
        """
        See :class:`yurt.http.interfaces.Application`.
        """
        if len(self.passages) >= self.max_requests:
            message = f"{self.max_requests} requests are being served, and no more at once; try again later"
            self.refusals.refuse("full", message)
            answer_refusal(request, Refused(429, "TooManyRequests", "full", message))
            return
        passage = Opened(self, request) if request.head.method == b"CONNECT" else Proxied(self, request)
        self.passages.add(passage)
        passage.begin()

    def direct(self) -> Iterator[Direct]:
        """
        The open connections that this server has made itself, without an agent.
        """
        yield from (one.direct for one in self.passages if isinstance(one, Opened) and one.direct is not None)

    def ended(self, passage: Passage) -> None:
        """
        A request is over.
        """
        self.passages.discard(passage)
