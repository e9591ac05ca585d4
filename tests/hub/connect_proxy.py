"""
An HTTP proxy between a hub and its cloud.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.portforward import ProxyFactory


class ConnectProxy(Factory):
    """
    An HTTP proxy that knows CONNECT, always to one port on loopback.
    """

    noisy = False

    def __init__(self, port: int) -> None:
        self.port = port
        self.targets: list[str] = []
        self.heads: list[bytes] = []

    def buildProtocol(self, addr: Any) -> Protocol:
        return ConnectTunnel(self)


class ConnectTunnel(Protocol):
    """
    One connection through it.
    """

    def __init__(self, proxy: ConnectProxy) -> None:
        self.proxy = proxy
        self.head = b""
        self.tunnel: Any = None

    def dataReceived(self, data: bytes) -> None:
        if self.tunnel is not None:
            self.tunnel.dataReceived(data)
            return
        self.head += data
        if b"\r\n\r\n" not in self.head:
            return
        self.proxy.heads.append(self.head)
        self.proxy.targets.append(self.head.split(b" ")[1].decode())
        assert self.transport is not None
        self.transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        factory = ProxyFactory("127.0.0.1", self.proxy.port)
        factory.noisy = False
        self.tunnel = factory.buildProtocol(None)
        self.tunnel.clientProtocolFactory.noisy = False
        self.tunnel.makeConnection(self.transport)

    def connectionLost(self, reason: Any = None) -> None:
        if self.tunnel is not None:
            self.tunnel.connectionLost(reason)
