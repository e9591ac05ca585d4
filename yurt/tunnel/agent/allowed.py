"""
What an agent may dial: its own node, and a few ports of it.

Which addresses are the node's own is asked of the kernel at each dial, so that an address that the node got a moment ago is
one of them, and one that it lost is none.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from struct import Struct

from yurt.tunnel.connect import FORBIDDEN, ConnectRefused

LOOPBACK = ("127.0.0.1", "::1")

MAX_SPELT = 64
"""Addresses whose usual spelling is remembered; a node is asked for few."""

# linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h
_MESSAGE = Struct("=IHHII")
_ADDRESS_BYTES = 8
_ATTRIBUTE = Struct("=HH")
_RTM_NEWADDR, _RTM_GETADDR, _NLMSG_ERROR, _NLMSG_DONE = 20, 22, 2, 3
_REQUEST_DUMP = 0x301
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_READ_BYTES = 64 * 1024
_PATIENCE = 1.0
"""Seconds that the kernel, which answers at once, may take."""


def kernel_addresses() -> frozenset[str]:
    """
    The addresses of all interfaces of this host, by a netlink dump (rtnetlink(7)).  Raises ``OSError``.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as netlink:
        netlink.settimeout(_PATIENCE)
        netlink.send(_MESSAGE.pack(_MESSAGE.size + _ADDRESS_BYTES, _RTM_GETADDR, _REQUEST_DUMP, 1, 0) + bytes(_ADDRESS_BYTES))
        found: set[str] = set()
        while True:
            for kind, body in messages(netlink.recv(_READ_BYTES)):
                if kind == _NLMSG_DONE:
                    return frozenset(found)
                if kind == _NLMSG_ERROR:
                    raise OSError("the kernel does not list this host's addresses")
                if kind == _RTM_NEWADDR:
                    found.add(address_in(body))


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """
    Type and body of each netlink message in one datagram.
    """
    while len(data) >= _MESSAGE.size:
        length, kind, *_ = _MESSAGE.unpack_from(data)
        if not _MESSAGE.size <= length <= len(data):
            return
        yield kind, data[_MESSAGE.size : length]
        data = data[(length + 3) & ~3 :]


def address_in(body: bytes) -> str:
    """
    The local address that an RTM_NEWADDR message tells of.
    """
    attributes: dict[int, bytes] = {}
    data = body[_ADDRESS_BYTES:]
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break
        attributes[kind] = data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
    # On a point-to-point link IFA_ADDRESS is the other end.
    packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS, b"")
    return str(ip_address(packed)) if len(packed) in (4, 16) else ""


class Allowed:
    """
    The rules of one node.  ``addresses`` are those given by the operator, ``ports`` all that may be dialled; ``own`` tells which
    addresses the host has now.
    """

    def __init__(
        self,
        node_name: str,
        addresses: tuple[str, ...],
        ports: frozenset[int],
        own: Callable[[], frozenset[str]] = kernel_addresses,
    ) -> None:
        self._node_name = node_name.lower()
        self._addresses = addresses
        self._ports = ports
        self._own = own

    def check_port(self, port: int) -> None:
        """
        Raise :exc:`ConnectRefused` unless ``port`` may be dialled.
        """
        if port not in self._ports:
            allowed = ", ".join(map(str, sorted(self._ports)))
            raise _forbidden(f"port {port} is not among those that this agent dials ({allowed}; see --allowed-ports)")

    def addresses_of(self, host: str) -> tuple[str, ...] | None:
        """
        What to dial for ``host``: an address of this node, or a name that stands for the node.  None for another name,
        which must be looked up and then passed to :meth:`own_among`.  Raises :exc:`ConnectRefused`.
        """
        if host in self._addresses or host in LOOPBACK:
            return (host,)
        name = host.lower().rstrip(".")
        if name == "localhost":
            return LOOPBACK
        if name in (self._node_name, socket.gethostname().lower()):
            return self._addresses or LOOPBACK
        try:
            address = _canonical(host)
        except ValueError:
            return None
        return self.own_among((address,), host)

    def own_among(self, found: tuple[str, ...], host: str) -> tuple[str, ...]:
        """
        Those of ``found``, the addresses of ``host``, that are the node's own.  Raises :exc:`ConnectRefused` when none is.
        """
        canonical = []
        for text in found:
            try:
                canonical.append(_canonical(text))
            except ValueError:
                continue
        own = tuple(address for address in canonical if address in self._addresses or _is_loopback(address))
        if not own:
            own = self._asked(canonical)
        if not own:
            raise _forbidden(f"{host} is no address of this node, and the agent dials no other")
        return own

    def _asked(self, addresses: list[str]) -> tuple[str, ...]:
        try:
            here = self._own()
        except OSError:
            return ()
        return tuple(address for address in addresses if address in here)


@lru_cache(MAX_SPELT)
def _canonical(text: str) -> str:
    """
    An address as everybody writes it; raises ``ValueError`` for what is none or needs a scope.
    """
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        if address.scope_id:
            raise ValueError("a scope is not taken")
        return str(address.ipv4_mapped or address)
    return str(address)


@lru_cache(MAX_SPELT)
def _is_loopback(address: str) -> bool:
    return ip_address(address).is_loopback


def _forbidden(message: str) -> ConnectRefused:
    return ConnectRefused(403, "Forbidden", FORBIDDEN, message)
