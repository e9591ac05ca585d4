"""
Which connections of this host a process still holds.  A process that ended, or closed, may leave one to the kernel for minutes,
which goes on to offer what was not taken yet: to the other side that looks like a caller who waits.

Source: the tables of ``/proc/net/tcp`` and ``/proc/net/tcp6`` (proc(5), ``Documentation/networking/proc_net_tcp.rst``), those of
this process's network namespace.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from ipaddress import ip_address

from yurt.host.destination import Destination, plain_address

TABLES = "/proc/net/tcp", "/proc/net/tcp6"


def without_owner(ends: Collection[Destination], tables: Collection[str] = TABLES) -> set[Destination]:
    """
    Those of ``ends``, addresses and ports on this host, whose connections the kernel still knows, but no process holds any more.
    One that is not in the tables may be in another namespace, behind a translated address: nothing is said of it.
    """
    owned: set[Destination] = set()
    left: set[Destination] = set()
    for path in tables:
        try:
            with open(path, encoding="ascii") as table:
                next(table, None)
                for end, inode in map(_row, table):
                    (left if inode == "0" else owned).add(end)
        except OSError:
            continue  # a kernel without IPv6
    return (set(ends) & left) - owned


def _row(line: str) -> tuple[Destination, str]:
    """
    The local end of a connection, and the inode of its socket: 0 when no process has it.
    """
    words = line.split()
    address, _, port = words[1].partition(":")
    packed = b"".join(_words(bytes.fromhex(address)))
    return (plain_address(str(ip_address(packed))), int(port, 16)), words[9]


def _words(packed: bytes) -> Iterator[bytes]:
    """
    The four bytes of each word in the order of the network; the kernel prints words of its own.
    """
    for start in range(0, len(packed), 4):
        word = packed[start : start + 4]
        yield word if sys.byteorder == "big" else word[::-1]
