"""
Ways to a port of a node: through its agent's connection, or through another server that has one.  All doors use these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.http.interfaces import Headers
from yurt.http.wire import one_write
from yurt.tunnel.connect import DRAINING, NODE_HEADER, NOT_CONNECTED, UNKNOWN_NODE, ConnectRefused, authority
from yurt.tunnel.server.refusals import Refusals
from yurt.tunnel.server.registry import SUSPECT_AFTER, Carrier, Departure, Registry, is_suspect

ELSEWHERE = frozenset({DRAINING, NOT_CONNECTED})
"""Why a link led nowhere while another one to the same node may: it broke, or the other side has left or is about to."""


DOUBT_AFTER = 3.0
"""Seconds after which a stream that nobody answered is given up for another way, if its link may be cut."""


class NoWay(ConnectRefused):
    """
    There is no way to a node now: its agent is connected nowhere, or the node is unknown.
    """


class Peers(Protocol):
    """
    The links to the other servers.
    """

    def with_node(self, node: str, but: Carrier | None = None) -> Carrier | None:
        """
        A link, ready for streams, to a server that has an agent of ``node``; another one than ``but``.
        """


class OpenStream(Protocol):
    """
    Makes the endpoint that opens a stream to ``host`` and ``port`` in ``carrier``; see
    :class:`yurt.tunnel.opening.StreamEndpoint`.
    """

    def __call__(
        self,
        carrier: Carrier,
        host: str,
        port: int,
        *,
        headers: Headers,
        early: bool,
        answered: Callable[[], object],
    ) -> IStreamClientEndpoint: ...


class Ways:
    """
    Finds ways to nodes.

    ``is_node`` says whether the cluster has a node of that name, None when that cannot be known; ``wants_agent`` whether such a
    node is to have an agent; ``now`` is the time of day in seconds.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        registry: Registry,
        open_stream: OpenStream,
        refusals: Refusals,
        *,
        peers: Peers | None = None,
        is_node: Callable[[str], bool | None] = lambda node: None,
        wants_agent: Callable[[str], bool] = lambda node: True,
        now: Callable[[], float],
    ) -> None:
        self.reactor = reactor
        self.registry = registry
        self.open_stream = open_stream
        self.refusals = refusals
        self.metrics = refusals.metrics
        self.peers = peers
        self.is_node = is_node
        self.wants_agent = wants_agent
        self.now = now
        self.started = now()

    def way_to(self, node: str, address: str, port: int, *, early: bool = False, local_only: bool = False) -> Way:
        """
        An endpoint whose ``connect`` dials ``address`` and ``port`` from the node; with ``early`` the protocol is connected at
        once and may write before the answer, unless the link may be cut and there is another one: what it has written could not
        go by that any more; with ``local_only`` other servers are not asked.  The endpoint may be kept: it
        looks for the node's connection at each ``connect``.

        Raises :class:`NoWay` when there is none now.  ``connect`` fails with it, too, and with :exc:`ConnectRefused`.  What is
        refused is counted and logged here.
        """
        way = Way(self, node, address, port, early, local_only)
        try:
            way.find()
        except NoWay as error:
            way.refused(error)
            raise
        return way

    def find(self, node: str, local_only: bool, but: Carrier | None = None) -> tuple[Carrier, Headers]:
        """
        The link to open a stream in, another one than ``but``, and the headers to open it with; or :class:`NoWay`.  One that may
        be cut is the last choice.
        """
        agent = self.registry.newest(node)
        mine = None if agent is None or agent.mux is but else agent.mux
        if mine is not None and not is_suspect(mine):
            return mine, []
        link = None if local_only or self.peers is None else self.peers.with_node(node, but)
        if link is not None and (mine is None or not is_suspect(link)):
            return link, [(NODE_HEADER, node.encode())]
        if mine is not None:
            return mine, []
        raise self.no_way(node)

    def no_way(self, node: str) -> NoWay:
        """
        Why there is no way to ``node``, in words.
        """
        if self.registry.connected(node):
            message = f"node {node} is not connected: its agent is leaving, and no newer connection has come yet"
            return NoWay(503, "ServiceUnavailable", NOT_CONNECTED, message)
        last = self.registry.last_seen(node)
        known = self.is_node(node)
        if known is False or (known is None and last is None):
            return NoWay(404, "NotFound", UNKNOWN_NODE, f"node {node} is not known here: {self._unknown(known)}")
        absence = self._absence(last)
        if known and not self.wants_agent(node):
            absence += "; by its labels it needs none: it is to be reached directly"
        return NoWay(503, "ServiceUnavailable", NOT_CONNECTED, f"node {node} is not connected: {absence}")

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
        See :class:`IStreamClientEndpoint`.  When the link that was chosen leads nowhere, or seems to be cut, and another one is
        there, that is tried.
        """
        try:
            carrier, headers = self.find()
        except NoWay as error:
            self.refused(error)
            return fail(error)
        unheard = self._ways.reactor.seconds() - carrier.heard_at >= SUSPECT_AFTER
        early = self._early and not (unheard and self._other(carrier))
        opened = self._open(carrier, headers, protocolFactory, early)
        given_up: list[Carrier] = []
        if unheard and not opened.called:
            self._doubt_later(opened, carrier, given_up)
        elsewhere = cast("Deferred[IProtocol]", opened.addErrback(self._elsewhere, carrier, protocolFactory, given_up))
        return elsewhere.addErrback(self._failed)

    def _doubt_later(self, opened: Deferred[IProtocol], carrier: Carrier, given_up: list[Carrier]) -> None:
        """
        Once it has no answer in time, and another link is there that may do better, let that be tried.
        """

        def doubt() -> None:
            other = self._other(carrier)
            if is_suspect(carrier) and other is not None and not is_suspect(other[0]):
                given_up.append(carrier)
                opened.cancel()

        def answered(outcome: Any) -> Any:
            if doubting.active():
                doubting.cancel()
            return outcome

        doubting = self._ways.reactor.callLater(DOUBT_AFTER, doubt)
        opened.addBoth(answered)

    def _other(self, tried: Carrier) -> tuple[Carrier, Headers] | None:
        try:
            return self._ways.find(self.node, self._local_only, but=tried)
        except NoWay:
            return None

    def _elsewhere(
        self, failure: Failure, tried: Carrier, factory: IProtocolFactory, given_up: list[Carrier]
    ) -> Failure | Deferred[IProtocol]:
        refused = isinstance(failure.value, ConnectRefused) and failure.value.word in ELSEWHERE
        other = self._other(tried) if refused or given_up else None
        return failure if other is None else self._open(*other, factory, self._early)

    def _open(self, carrier: Carrier, headers: Headers, factory: IProtocolFactory, early: bool) -> Deferred[IProtocol]:
        began = self._ways.reactor.seconds()
        endpoint = self._ways.open_stream(
            carrier,
            self.address,
            self.port,
            headers=headers,
            early=early,
            answered=lambda: self._ways.metrics.dialled(self._ways.reactor.seconds() - began),
        )
        return endpoint.connect(cast(IProtocolFactory, _Watched(factory, self, began)))

    def _failed(self, failure: Failure) -> Failure:
        if isinstance(failure.value, ConnectRefused):
            self.refused(failure.value)
        return failure

    def first_byte(self, began: float) -> None:
        """
        The node has sent its first byte.
        """
        self._ways.metrics.first_byte(self._ways.reactor.seconds() - began)

    def refused(self, error: ConnectRefused) -> None:
        """
        Count and log it.
        """
        self._ways.refusals.refuse(error.word, f"{self.node}, {authority(self.address, self.port)}: {error.message}")


class _Watched:
    """
    A factory whose protocols tell of their first byte, and of a refusal that came after they were connected.
    """

    noisy = False

    def __init__(self, factory: IProtocolFactory, way: Way, began: float) -> None:
        self._factory = factory
        self._way = way
        self._began = began

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        protocol = self._factory.buildProtocol(cast(IAddress, addr))
        if protocol is not None:
            _Watch(protocol, self._way, self._began)
        return protocol


class _Watch:
    """
    Stands between a transport and a protocol, for two events: the first byte, and a refusal at the end.
    """

    __slots__ = ("_began", "_protocol", "_received", "_way")

    def __init__(self, protocol: IProtocol, way: Way, began: float) -> None:
        # Set on the object itself, before its class: the transport finds them there at no further step.
        watched: Any = protocol
        self._protocol = watched
        self._received = protocol.dataReceived
        self._way = way
        self._began: float | None = began
        watched.dataReceived = self.received
        watched.connectionLost = self.lost

    def received(self, data: bytes) -> None:
        self._received(data)
        if self._began is not None:
            one_write.flush()  # it is counted while whoever waits for it goes on
            self._way.first_byte(self._began)
            self._began = None

    def lost(self, reason: Failure) -> None:
        protocol = self._protocol
        for name in ("dataReceived", "connectionLost"):
            vars(protocol).pop(name, None)
        if isinstance(reason.value, ConnectRefused):
            self._way.refused(reason.value)
        protocol.connectionLost(reason)
