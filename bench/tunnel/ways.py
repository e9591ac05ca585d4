"""
The two ways to a port of the node, as sockets: direct, and through the tunnel.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from bench.tunnel.site import ADDRESS, TunnelSite

TIMEOUT = 10.0
Way = Callable[[int], socket.socket]


def direct(port: int, address: str = ADDRESS) -> socket.socket:
    """
    A connection to the port.
    """
    connection = socket.create_connection((address, port), TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def through(site: TunnelSite) -> Way:
    """
    Opens connections to ports of the node through server and agent.  They fail with RuntimeError.
    """

    def connect(port: int) -> socket.socket:
        connection = direct(site.plain_port)
        target = f"{ADDRESS}:{port}"
        connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(4096)
            if not data:
                raise RuntimeError(f"the tunnel hung up when asked for {target}: {head!r}")
            head += data
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"the tunnel does not connect to {target}: {head!r}")
        return connection

    return connect
