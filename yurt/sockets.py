"""
The socket under a transport of Twisted.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.protocols.tls import TLSMemoryBIOProtocol

ESTABLISHED = b"\x01"
"""The state of a connection that neither side has ended, as the first byte of TCP_INFO has it (tcp(7), linux/tcp.h)."""

_CARRIED = struct.Struct("=120xQQ")
"""Where TCP_INFO has tcpi_bytes_acked and tcpi_bytes_received."""

_INTERNET = (int(socket.AF_INET), int(socket.AF_INET6))
_family = socket.SocketType.family.__get__
"""The family of a socket as a number: ``socket.family`` makes an enumeration's member of it, in four calls."""


KEEPALIVE_AFTER = 60
KEEPALIVE_INTERVAL = 15
KEEPALIVE_PROBES = 4
"""
Silence in seconds after which the peer's kernel is asked whether it still has the connection, and how often.  A peer that closed
while bytes for it cannot be passed on looks no other than one that has half closed, until its kernel is asked; the two hours that
Linux waits by itself are long for a stream, two sockets and what they hold.
"""


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


def set_usual_options(handle: socket.socket) -> None:
    """
    Let small pieces leave at once, and ask the kernel of a silent peer whether it is still there.  What a listener accepts has
    the options of the listener.
    """
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    probe_peer(handle, KEEPALIVE_AFTER, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES)


def probe_peer(handle: socket.socket, after: int, interval: int, count: int) -> None:
    """
    Let the peer's kernel be asked after so many seconds of silence, so often, at such intervals.
    """
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, after)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count)


def bytes_carried(handle: socket.socket) -> tuple[int, int]:
    """
    Bytes of a TCP connection that the peer has acknowledged, and that came from it; nothing of one that is closed.
    """
    try:
        return _CARRIED.unpack(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _CARRIED.size))
    except OSError:
        return 0, 0
