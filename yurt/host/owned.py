"""
Which connections of this host a process still holds.  A process that ended, or closed, may leave one to the kernel for minutes,
which goes on to offer what was not taken yet: to the other side that looks like a caller who waits.

Source: the tables of ``/proc/net/tcp`` and ``/proc/net/tcp6`` (proc(5), ``Documentation/networking/proc_net_tcp.rst``), those of
this process's network namespace.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from ipaddress import IPv6Address, ip_address

from yurt.host.destination import Destination

TABLES = "/proc/net/tcp", "/proc/net/tcp6"

MAPPED = bytes(10) + b"\xff\xff"
"""What stands before an IPv4 address within one of IPv6."""


def without_owner(ends: Collection[Destination], tables: Collection[str] = TABLES) -> set[Destination]:
    """
    Those of ``ends``, addresses and ports on this host, whose connections the kernel still knows, but no process holds any more.
    One that is not in the tables may be in another namespace, behind a translated address: nothing is said of it.
    """
    printed = {text: end for end in ends for text in _printed(end)}
    owned: set[Destination] = set()
    left: set[Destination] = set()
    for path in tables if printed else ():
        try:
            with open(path, encoding="ascii") as table:
                for words in map(str.split, table):  # thousands, of which few are asked for
                    end = printed.get(words[1])
                    if end is not None:
                        (left if words[9] == "0" else owned).add(end)
        except OSError:
            continue  # a kernel without IPv6
    return left - owned


def _printed(end: Destination) -> Iterator[str]:
    """
    How the tables print an end: in hexadecimal digits, an address word by word as the machine keeps them.  A socket of IPv6
    shows an IPv4 address within one of IPv6.
    """
    host, port = end
    address = ip_address(host)
    forms = [address.packed] if isinstance(address, IPv6Address) else [address.packed, MAPPED + address.packed]
    for packed in forms:
        words = (packed[start : start + 4] for start in range(0, len(packed), 4))
        swapped = b"".join(word if sys.byteorder == "big" else word[::-1] for word in words)
        yield f"{swapped.hex().upper()}:{port:04X}"
