"""
A client of bytes.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Protocol

from tests.hub.site import Site, reactor


class Raw(Protocol):
    """
    A client that sends what it likes, and reads when it likes.
    """

    def __init__(self, data: bytes, reading: bool) -> None:
        self.data, self.reading = data, reading
        self.received = bytearray()
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if not self.reading:
            transport.pauseProducing()
        transport.write(self.data)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(None)

    def read_on(self) -> None:
        """
        Read from now on.
        """
        transport: Any = self.transport
        transport.resumeProducing()

    def hang_up(self) -> Deferred[None]:
        """
        Break the connection.
        """
        transport: Any = self.transport
        transport.abortConnection()
        return self.lost


def connect(site: Site, data: bytes, *, reading: bool = True) -> Raw:
    """
    Send ``data`` to the proxy.
    """
    client = Raw(data, reading)
    factory = ClientFactory.forProtocol(lambda: client)
    factory.noisy = False
    reactor.connectTCP("127.0.0.1", site.config.proxy_port, factory)
    return client
