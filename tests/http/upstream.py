"""
An upstream over memory, whose servers are the test.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.http.memory import MemoryWire, Recorder
from yurt.http.client import HTTPUpstream
from yurt.http.client_connection import ClientConnection
from yurt.http.interfaces import Exchange, Headers, RequestHead
from yurt.http.limits import ClientLimits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Site:
    """
    An upstream whose connections the test answers by hand.
    """

    def __init__(self, limits: ClientLimits = ClientLimits(), url: str = "http://10.0.0.1:6443") -> None:
        self.reactor: Any = MemoryReactorClock()
        self.upstream = HTTPUpstream(self.reactor, url, None, limits=limits)
        self.wires: list[MemoryWire] = []
        self.connections: list[ClientConnection] = []

    def send(self, method: bytes = b"GET", headers: Headers | None = None, **how: bool) -> tuple[Exchange, Recorder]:
        """
        Send a request.
        """
        receiver = Recorder()
        return self.upstream.send(RequestHead(method, b"/x", headers or []), receiver, **how), receiver

    def accept(self) -> MemoryWire:
        """
        Let the last dial succeed.
        """
        factory = self.reactor.tcpClients[-1][2]
        protocol = factory.buildProtocol(None)
        wire = MemoryWire()
        protocol.makeConnection(wire)
        self.connections.append(protocol._wrappedProtocol)
        self.wires.append(wire)
        return wire

    def receive(self, *pieces: bytes) -> None:
        """
        Let the server of the last connection send.
        """
        for piece in pieces:
            self.connections[-1].dataReceived(piece)

    def lose(self, reason: Exception | None = None) -> None:
        """
        Lose the last connection.
        """
        self.connections[-1].connectionLost(Failure(reason or ConnectionLost()))

    @property
    def dials(self) -> int:
        """
        How many connections were asked for.
        """
        return len(self.reactor.tcpClients)


@implementer(IStreamClientEndpoint)
class Dials:
    """
    An endpoint that keeps what it was asked.
    """

    def __init__(self) -> None:
        self.dialled: list[Deferred[IProtocol]] = []
        self.cancelled: list[Deferred[IProtocol]] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        self.dialled.append(Deferred(self.cancelled.append))
        return self.dialled[-1]
