"""
A transport of Twisted's that is made of a connected socket in few steps.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Server


class Connected(Server):
    """
    Twisted's transport of a connection to ``peer`` (host and port, and two numbers more of IPv6), which it prepares for log
    messages and addresses of either family: three constructors, and more than that in texts.  Here these are made when somebody
    asks.  Nothing happens before :meth:`begin`.
    """

    def __init__(self, handle: socket.socket, peer: tuple[Any, ...], reactor: Any) -> None:
        self.reactor = reactor
        self.socket = handle
        self.fileno = handle.fileno
        self.client = peer
        self._peer: IPv4Address | IPv6Address | None = None
        self._tempDataBuffer = []
        self._tempDataLen = 0
        handle.setblocking(False)

    def begin(self, protocol: IProtocol) -> None:
        """
        Read, and let ``protocol`` have what comes.
        """
        self.protocol = protocol
        self.connected = 1
        self.reactor.addReader(self)
        protocol.makeConnection(self)

    def doRead(self) -> ConnectionLost | ConnectionDone | None:  # type: ignore[override]  # of a mixin without types
        """
        Pass on what came; returns why the connection has ended if it has.
        """
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def getPeer(self) -> IPv4Address | IPv6Address:
        """
        The other end.
        """
        if self._peer is None:
            self._peer = address_of(self.client)
        return self._peer

    def getHost(self) -> IPv4Address | IPv6Address:
        """
        This end.
        """
        return address_of(self.socket.getsockname())

    def logPrefix(self) -> str:
        """
        Which protocol's it is.
        """
        return type(getattr(self, "protocol", None)).__name__

    def __repr__(self) -> str:
        host, port, *_ = self.client
        return f"<{self.logPrefix()} with {host} port {port}>"


def address_of(name: tuple[Any, ...]) -> IPv4Address | IPv6Address:
    """
    A socket's name, or its peer's, as Twisted's address.
    """
    return IPv4Address("TCP", *name) if len(name) == 2 else IPv6Address("TCP", *name)
