"""
Ports for servers that are started by number, with a moment between the choice and the start.
"""

import itertools
import socket
from collections.abc import Iterator
from functools import cache

FIRST = 20000
BLOCK = 250
BLOCKS = 40
"""Ports 20000 to 29999: below those that Linux gives to outgoing connections (32768 to 60999) and those of NodePorts (30000 to
32767), so that what other tests dial meanwhile takes none of them."""


@cache
def claim() -> tuple[socket.socket, Iterator[int]]:
    """
    A block of ports that is this process's own for its life, in turn; another process's claim is a name of the same network
    namespace.
    """
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    for block in range(BLOCKS):
        try:
            holder.bind(f"\0yurt-test-ports-{block}")
        except OSError:
            continue
        first = FIRST + block * BLOCK
        return holder, itertools.cycle(range(first, first + BLOCK))
    raise OSError(f"all {BLOCKS} blocks of ports for tests are taken")


def free_port() -> int:
    """
    A TCP port of loopback that nobody listens on, and from or to which there was no connection in the last minute: those who dial
    from it could not have it, either.
    """
    for port in itertools.islice(claim()[1], BLOCK):
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise OSError(f"none of the {BLOCK} ports of this process is free")
