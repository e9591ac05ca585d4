"""
Connections that a DNAT rule turned here on their way to a node: they go to that node's agent, unread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.internet.protocol import Protocol

from yurt.host.destination import Destination
from yurt.host.tunnel_rules import Flow
from yurt.http.dial import Build
from yurt.http.wire import STREAM_AT_ONCE, tune_accepted
from yurt.tunnel.server.abandoned import Open
from yurt.tunnel.server.node import usual_spelling
from yurt.tunnel.server.nodes import Nodes
from yurt.tunnel.server.ports import LivePorts
from yurt.tunnel.server.refusals import Refusals
from yurt.tunnel.server.ways import NoWay, Ways
from yurt.tunnel.splice import Splice


class Diverted:
    """
    Joins diverted connections to the nodes they were meant for.  The client's bytes follow the head of the stream at once, or
    wait for the answer where there may be another way; when there is none, or the agent refuses, the connection is reset and the
    log says why.
    """

    def __init__(self, ways: Ways, nodes: Nodes, ports: LivePorts, refusals: Refusals, max_connections: int) -> None:
        self.ways = ways
        self.nodes = nodes
        self.ports = ports
        self.refusals = refusals
        self.max_connections = max_connections
        self.splices: dict[Splice, Destination] = {}
        """Open ones, and where each was going."""

    def take(self, wire: Any, destination: Destination) -> Protocol | None:
        """
        The protocol that a connection to ``destination`` is to have; None when it was reset.
        """
        host, port = destination
        node = self.nodes.by_address(host)
        if node is None:
            self._refuse(wire, "unknown-node", f"a connection to {host}:{port}: no node has this address")
            return None
        refused: list[object] = []
        if len(self.splices) >= self.max_connections:
            self._refuse(wire, "full", f"a connection to {host}:{port}: {self.max_connections} are open")
            return None
        if port in self.ports.ports.localhost:
            host = "::1" if ":" in host else "127.0.0.1"
        splice = Splice()
        try:
            way = self.ways.way_to(node.name, host, port, early=True)
            # Where it is over at once, a refusal that comes later is the reason of the right side's end, and resets the left.
            connecting = way.connect(cast(IProtocolFactory, Build(lambda _: splice.right)))
            connecting.addErrback(refused.append).addCallback(lambda _: splice.abort() if refused else None)
        except NoWay as error:
            refused.append(error)
        if refused:  # told already
            wire.abortConnection()
            return None
        tune_accepted(wire, at_once=STREAM_AT_ONCE)
        self.splices[splice] = destination
        splice.done.addBoth(lambda _: self.splices.pop(splice, None))
        return splice.left

    def _refuse(self, wire: Any, word: str, message: str) -> None:
        self.refusals.refuse(word, message)
        wire.abortConnection()

    def callers(self) -> Iterator[Open]:
        """
        The connections of callers.
        """
        for splice in self.splices:
            left, right = splice.left, splice.right
            if left.wire is not None and not left.lost:
                passed_on = 0 if right.wire is None else right.wire.bytes_sent
                yield Open(left.wire, left.ended, passed_on)

    def cut(self, flow: Flow) -> None:
        """
        Reset the connections to a destination whose way has changed, while connection tracking still leads the reset to the
        client: afterwards it would wait for bytes that never come.
        """
        going = usual_spelling(flow.address), flow.port
        for splice in [splice for splice, destination in self.splices.items() if destination == going]:
            splice.abort()

    def drain(self, reactor: IReactorTime, timeout: float) -> Deferred[Any]:
        """
        Fires when no connection is left, which are reset after ``timeout`` seconds.
        """
        ended: Deferred[Any] = DeferredList([splice.done for splice in self.splices])
        return ended.addTimeout(timeout, reactor)
