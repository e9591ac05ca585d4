"""
Ways to a port of a node: through its agent's connection, or through another server that has one.  All doors use these.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.http.interfaces import Headers
from yurt.tunnel.server.metrics import ServerMetrics
from yurt.tunnel.server.registry import Carrier, Departure, Registry

NODE_HEADER = b"Yurt-Node"
"""Names the node in the head of a stream between servers (docs/tunnel-protocol.md, section 6)."""


class NoWay(Exception):
    """
    There is no way to a node now; the message is for people.

    ``status`` and ``reason`` are those of a Kubernetes Status, ``word`` is the protocol's ``Yurt-Refused``.
    """

    def __init__(self, status: int, reason: str, word: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.word = word
        self.message = message


class Peers(Protocol):
    """
    The links to the other servers.
    """

    def with_node(self, node: str) -> Carrier | None:
        """
        A link, ready for streams, to a server that has an agent of ``node``.
        """


class OpenStream(Protocol):
    """
    Makes the endpoint that opens a stream to ``host`` and ``port`` in ``carrier``.
    """

    def __call__(self, carrier: Carrier, host: str, port: int, *, headers: Headers, early: bool) -> IStreamClientEndpoint: ...


class Ways:
    """
    Finds ways to nodes.

    ``is_node`` says whether the cluster has a node of that name, None when that cannot be known; ``now`` is the time of day in
    seconds.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        registry: Registry,
        open_stream: OpenStream,
        metrics: ServerMetrics,
        *,
        peers: Peers | None = None,
        is_node: Callable[[str], bool | None] = lambda node: None,
        now: Callable[[], float],
    ) -> None:
        self.reactor = reactor
        self.registry = registry
        self.open_stream = open_stream
        self.metrics = metrics
        self.peers = peers
        self.is_node = is_node
        self.now = now
        self.started = now()

    def way_to(self, node: str, address: str, port: int, *, early: bool = False, local_only: bool = False) -> Way:
        """
        An endpoint whose ``connect`` dials ``address`` and ``port`` from the node; with ``early`` the protocol is connected at
        once and may write before the answer; with ``local_only`` other servers are not asked.  The endpoint may be kept: it
        looks for the node's connection at each ``connect``.

        Raises :class:`NoWay` when there is none now.  ``connect`` fails with it, too, and with the errors of
        :class:`yurt.tunnel.connect.StreamEndpoint`.
        """
        way = Way(self, node, address, port, early, local_only)
        way.find()
        return way

    def find(self, node: str, local_only: bool) -> tuple[Carrier, Headers]:
        """
        The link to open a stream in, and the headers to open it with; or :class:`NoWay`.
        """
        agent = self.registry.newest(node)
        if agent is not None:
            return agent.mux, []
        link = None if local_only or self.peers is None else self.peers.with_node(node)
        if link is not None:
            return link, [(NODE_HEADER, node.encode())]
        raise self.no_way(node)

    def no_way(self, node: str) -> NoWay:
        """
        Why there is no way to ``node``, in words.
        """
        if self.registry.connected(node):
            message = f"node {node} is not connected: its agent is leaving, and no newer connection has come yet"
            return NoWay(503, "ServiceUnavailable", "not-connected", message)
        last = self.registry.last_seen(node)
        known = self.is_node(node)
        if known is False or (known is None and last is None):
            return NoWay(404, "NotFound", "unknown-node", f"node {node} is not known here: {self._unknown(known)}")
        return NoWay(503, "ServiceUnavailable", "not-connected", f"node {node} is not connected: {self._absence(last)}")

    def _unknown(self, known: bool | None) -> str:
        return "the cluster has no Node of this name" if known is False else self._absence(None)

    def _absence(self, last: Departure | None) -> str:
        if last is None:
            return f"its agent has not been here since this server started {_ago(self.now() - self.started)} ago"
        return f"its agent's connection ended {_ago(self.now() - last.at)} ago ({last.why})"


def _ago(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    return f"{whole // 3600} h"


@implementer(IStreamClientEndpoint)
class Way:
    """
    Opens streams to one port of one node; see :meth:`Ways.way_to`.
    """

    def __init__(self, ways: Ways, node: str, address: str, port: int, early: bool, local_only: bool) -> None:
        self.node = node
        self.address = address
        self.port = port
        self._ways = ways
        self._early = early
        self._local_only = local_only

    def find(self) -> tuple[Carrier, Headers]:
        """
        The link to use now, or :class:`NoWay`.
        """
        return self._ways.find(self.node, self._local_only)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        See :class:`IStreamClientEndpoint`.
        """
        try:
            carrier, headers = self.find()
        except NoWay as error:
            self._ways.metrics.refused(error.word)
            return fail(error)
        seconds = self._ways.reactor.seconds
        began = seconds()
        endpoint = self._ways.open_stream(carrier, self.address, self.port, headers=headers, early=self._early)
        timed = cast(IProtocolFactory, _FirstByte(protocolFactory, lambda: self._ways.metrics.first_byte(seconds() - began)))
        connecting = endpoint.connect(timed)
        return connecting.addCallbacks(self._dialled, self._refused, callbackArgs=(began,))

    def _dialled(self, protocol: IProtocol, began: float) -> IProtocol:
        if not self._early:
            self._ways.metrics.dialled(self._ways.reactor.seconds() - began)
        return protocol

    def _refused(self, failure: Failure) -> Failure:
        self._ways.metrics.refused(getattr(failure.value, "word", "cancelled"))
        return failure


class _FirstByte:
    """
    A factory whose protocols tell of their first byte.
    """

    noisy = False

    def __init__(self, factory: IProtocolFactory, first: Callable[[], None]) -> None:
        self._factory = factory
        self._first = first

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        protocol: Any = self._factory.buildProtocol(cast(IAddress, addr))
        if protocol is not None:
            protocol.dataReceived = partial(_first_received, protocol, self._first)
        return cast("IProtocol | None", protocol)


def _first_received(protocol: Any, first: Callable[[], None], data: bytes) -> None:
    """
    Stands in for ``dataReceived`` of a protocol until its first byte.
    """
    first()
    del protocol.dataReceived
    protocol.dataReceived(data)
