"""
Where a connection was going before a DNAT rule turned it to this machine.

Source: SO_ORIGINAL_DST of netfilter's connection tracking, ``linux/netfilter_ipv4.h`` and ``linux/netfilter_ipv6/ip6_tables.h``.
"""

from __future__ import annotations

import socket
import struct
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

SO_ORIGINAL_DST = 80
"""The option's number, the same on both levels."""
SOL_IPV6 = 41

_SOCKADDR_IN = struct.Struct("!2xH4s8x")
_SOCKADDR_IN6 = struct.Struct("!2xH4x16s4x")

DISCARD_PORT = 9
"""Any port does: nothing is sent to it."""

MAX_SPELT = 1024
"""Addresses whose usual spelling is remembered: those of this host are asked for with each connection."""

Destination = tuple[str, int]
"""Address and port."""


def original_destination(connection: socket.socket) -> Destination | None:
    """
    The address and port that the peer dialled, None when connection tracking knows nothing of the connection.
    """
    v6 = ":" in plain_address(connection.getsockname()[0])
    level, layout = (SOL_IPV6, _SOCKADDR_IN6) if v6 else (socket.SOL_IP, _SOCKADDR_IN)
    try:
        found = connection.getsockopt(level, SO_ORIGINAL_DST, layout.size)
    except OSError:  # no connection tracking in this kernel or namespace, or none of this connection
        return None
    port, packed = layout.unpack(found)
    return _spell(packed), port


@lru_cache(MAX_SPELT)
def _spell(packed: bytes) -> str:
    return str(ip_address(packed))


def local_destination(connection: socket.socket) -> Destination:
    """
    The address and port of this side; an IPv4 address that an IPv6 socket shows as ``::ffff:…`` in its usual form.
    """
    host, port = connection.getsockname()[:2]
    return plain_address(host), port


@lru_cache(MAX_SPELT)
def plain_address(text: str) -> str:
    """
    The address of a socket in its usual spelling: without zone, and without IPv6's wrapping of IPv4; empty for anything else.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(address if mapped is None else mapped)


def is_own_address(text: str) -> bool:
    """
    Whether an address is one of this host's: a packet to it would leave from it.
    """
    return ip_address(text).is_loopback or source_towards(text) == text


def source_towards(text: str) -> str | None:
    """
    The address of this host that packets to an address leave from; None when there is no route.
    """
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((text, DISCARD_PORT))  # looks up the route; no packet is sent
        except OSError:
            return None
        return plain_address(probe.getsockname()[0])
