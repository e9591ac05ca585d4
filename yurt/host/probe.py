"""
Whether a link still carries our addresses, asked of the kernel at the price of one system call each.

No netlink library: this is what the long-lived process calls every few seconds.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from ipaddress import ip_address

_SIOCGIFFLAGS = 0x8913  # linux/sockios.h
_SIOCGIFADDR = 0x8915
_IFF_UP = 1
_UNUSABLE = 0x40 | 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED of linux/if_addr.h
_IF_INET6 = "/proc/net/if_inet6"


def usable_addresses(name: str, addresses: tuple[str, ...]) -> tuple[str, ...]:
    """
    Those of ``addresses`` that the link has now; none while it is down or missing.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if not _is_up(sock, name):
            return ()
        found = {a for a in addresses if ip_address(a).version == 4 and _has_ipv4(sock, name, a)}
    wanted_ipv6 = [a for a in addresses if ip_address(a).version == 6]
    if wanted_ipv6:
        present = _ipv6_addresses(name)
        found.update(a for a in wanted_ipv6 if ip_address(a).packed.hex() in present)
    return tuple(a for a in addresses if a in found)


def _is_up(sock: socket.socket, name: str) -> bool:
    try:
        answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack("16s24x", name.encode()))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return False
        raise
    (flags,) = struct.unpack_from("H", answer, 16)
    return bool(flags & _IFF_UP)


def _has_ipv4(sock: socket.socket, name: str, address: str) -> bool:
    # The kernel looks for the address handed in and answers with the link's first one when it is not there (devinet_ioctl).
    packed = socket.inet_aton(address)
    request = struct.pack("16sHH4s16x", name.encode(), socket.AF_INET, 0, packed)
    try:
        answer = fcntl.ioctl(sock, _SIOCGIFADDR, request)
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EADDRNOTAVAIL):
            return False
        raise
    return answer[20:24] == packed


def _ipv6_addresses(name: str) -> set[str]:
    try:
        with open(_IF_INET6) as table:
            rows = [line.split() for line in table]
    except FileNotFoundError:
        return set()
    return {row[0] for row in rows if row[5] == name and not int(row[4], 16) & _UNUSABLE}
