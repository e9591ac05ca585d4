"""
The socket under a transport of Twisted.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.protocols.tls import TLSMemoryBIOProtocol

ESTABLISHED = b"\x01"
"""The state of a connection that neither side has ended, as the first byte of TCP_INFO has it (tcp(7), linux/tcp.h)."""

_INTERNET = (int(socket.AF_INET), int(socket.AF_INET6))
_family = socket.SocketType.family.__get__
"""The family of a socket as a number: ``socket.family`` makes an enumeration's member of it, in four calls."""


def tcp_of(transport: object) -> Any:
    """
    The transport below TLS, or ``transport`` itself where there is none.
    """
    return transport.transport if isinstance(transport, TLSMemoryBIOProtocol) else transport


def socket_of(transport: object) -> socket.socket | None:
    """
    The TCP socket under a transport; None where there is none, as under a Unix socket's.
    """
    tcp = tcp_of(transport)
    handle = tcp.getHandle() if hasattr(tcp, "getHandle") else None
    return handle if isinstance(handle, socket.socket) and _family(handle) in _INTERNET else None


def is_left(transport: object) -> bool:
    """
    Whether the other side has ended a connection already, which was not read yet.
    """
    handle = socket_of(transport)
    return handle is not None and handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != ESTABLISHED
