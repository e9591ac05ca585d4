"""
The doors for requests: ports 10263 and 10264.  Each takes two kinds of connections, and tells them apart by where they were
going: those that a DNAT rule turned here, and those that were meant for the server itself.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Container
from functools import partial
from typing import Any, cast

from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger

from yurt.host.destination import (
    Destination,
    is_own_address,
    local_destination,
    original_destination,
)
from yurt.http.arrival import Arrival
from yurt.tunnel.server.diverted import Diverted
from yurt.tunnel.server.metrics import ServerMetrics


class Door(Factory):
    """
    A listener's factory: ``diverted`` takes what was turned here, ``addressed`` makes the protocols of all else.

    ``own_addresses`` are addresses of the tunnel's Services, which are translated to this server's without being a node's;
    ``original`` reads where a connection was going.
    """

    noisy = False
    log = Logger()

    def __init__(
        self,
        name: str,
        diverted: Diverted,
        addressed: IProtocolFactory,
        metrics: ServerMetrics,
        *,
        own_addresses: Container[str] = (),
        original: Callable[[socket.socket], Destination | None] = original_destination,
    ) -> None:
        self.name = name
        self.diverted = diverted
        self.addressed = addressed
        self.metrics = metrics
        self.own_addresses = own_addresses
        self.original = original

    def doStart(self) -> None:
        """
        See :class:`IProtocolFactory`.
        """
        super().doStart()
        self.addressed.doStart()

    def doStop(self) -> None:
        """
        See :class:`IProtocolFactory`.
        """
        super().doStop()
        self.addressed.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """
        What looks at a connection and gives it to another protocol at once.
        """
        return Arrival(partial(self._choose, addr))

    def _choose(self, addr: IAddress | None, wire: Any) -> IProtocol | None:
        going = self.turned_from(wire.getHandle())
        if going is not None:
            self.metrics.accepted("diverted")
            return cast("IProtocol | None", self.diverted.take(wire, going))
        self.metrics.accepted(self.name)
        inner = self.addressed.buildProtocol(cast(IAddress, addr))
        if inner is None:
            wire.abortConnection()
        return inner

    def turned_from(self, connection: socket.socket) -> Destination | None:
        """
        Where a diverted connection was going; None for one that was meant for this server.
        """
        going = self.original(connection)
        if going is None or going == local_destination(connection):
            return None
        host, port = going
        node = self.diverted.nodes.by_address(host)
        if node is not None and node.has_agent and port in self.diverted.ports.ports.tunnel_ports:
            return going
        # What kube-proxy turns here was going to one of the tunnel's Services, or to a port of this host.
        return None if host in self.own_addresses or is_own_address(host) else going
