"""
Tests of where connections were going, as far as a host without rules can tell; :mod:`tests.kernel.test_diverted` has the rules.
"""

from __future__ import annotations

import socket
import struct
from typing import cast

from twisted.trial.unittest import SynchronousTestCase

from yurt.host.destination import (
    is_own_address,
    local_destination,
    original_destination,
    plain_address,
    source_towards,
)


class FakeSocket:
    """
    A socket whose connection was translated.
    """

    def __init__(self, local: str, packed: bytes) -> None:
        self.local = local
        self.packed = packed
        self.asked: tuple[int, int, int] | None = None

    def getsockname(self) -> tuple[str, int]:
        """
        This side.
        """
        return self.local, 10263

    def getsockopt(self, level: int, option: int, length: int) -> bytes:
        """
        What connection tracking says.
        """
        self.asked = level, option, length
        return self.packed


class DestinationTests(SynchronousTestCase):
    """
    Tests of the functions.
    """

    def original(self, fake: FakeSocket) -> object:
        """
        Where the connection of a socket was going.
        """
        return original_destination(cast(socket.socket, fake))

    def test_layouts(self) -> None:
        """
        The kernel's struct of either family is read; an IPv4 connection to an IPv6 socket has that of IPv4.
        """
        v4 = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", 10250, socket.inet_aton("10.0.0.8"))
        for local in ("127.0.0.1", "::ffff:127.0.0.1"):
            fake = FakeSocket(local, v4)
            self.assertEqual((self.original(fake), fake.asked), (("10.0.0.8", 10250), (socket.SOL_IP, 80, 16)))
        packed = socket.inet_pton(socket.AF_INET6, "fd00::8")
        fake = FakeSocket("::1", struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16sI", 10255, 0, packed, 0))
        self.assertEqual((self.original(fake), fake.asked), (("fd00::8", 10255), (41, 80, 28)))

    def test_untracked(self) -> None:
        """
        A connection that connection tracking does not know is none that was turned here.
        """
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            accepted, _ = server.accept()
            with accepted:
                self.assertIn(original_destination(accepted), (None, server.getsockname()))
                self.assertEqual(local_destination(accepted), client.getpeername())

    def test_spelling(self) -> None:
        """
        Addresses of sockets come out in one spelling.
        """
        for text, plain in (("::ffff:10.0.0.8", "10.0.0.8"), ("fe80::1%eth0", "fe80::1"), ("FD00:0::8", "fd00::8")):
            self.assertEqual(plain_address(text), plain)

    def test_own_addresses(self) -> None:
        """
        Loopback is this host's; an address for documentation that leads out is not.
        """
        self.assertTrue(is_own_address("127.0.0.5"))
        self.assertFalse(is_own_address("198.51.100.7"))
        self.assertEqual(source_towards("127.0.0.1"), "127.0.0.1")
