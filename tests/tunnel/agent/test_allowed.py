"""
Tests of :mod:`yurt.tunnel.agent.allowed`.
"""

from __future__ import annotations

import socket
from struct import pack

from twisted.trial.unittest import SynchronousTestCase

from yurt.tunnel.agent.allowed import Allowed, address_in, kernel_addresses, messages
from yurt.tunnel.connect import ConnectRefused

PORTS = frozenset({10250, 10255, 9100})
OWN = frozenset({"127.0.0.1", "::1", "10.0.0.8", "192.168.7.2", "fd00::8"})


class AllowedCase(SynchronousTestCase):
    """
    A node whose kernel has the addresses OWN.
    """

    def setUp(self) -> None:
        self.asked = 0
        self.own = OWN
        self.allowed = Allowed("edge-1", ("10.0.0.8", "203.0.113.5"), PORTS, self.kernel)

    def kernel(self) -> frozenset[str]:
        """
        What it has now.
        """
        self.asked += 1
        return self.own

    def forbidden(self, host: str) -> str:
        """
        The message of a refusal.
        """
        refused = self.assertRaises(ConnectRefused, self.allowed.addresses_of, host)
        self.assertEqual((refused.status, refused.reason, refused.word), (403, "Forbidden", "forbidden"))
        return str(refused)


class AddressTests(AllowedCase):
    """
    Tests of what stands for the node.
    """

    def test_own(self) -> None:
        """
        Addresses that the operator gave, loopback, and those of the kernel; the first two without asking it.
        """
        for address in ("10.0.0.8", "203.0.113.5", "127.0.0.1", "127.9.9.9", "::1"):
            self.assertEqual(self.allowed.addresses_of(address), (address,))
        self.assertEqual(self.asked, 0)
        for address in ("192.168.7.2", "fd00::8"):
            self.assertEqual(self.allowed.addresses_of(address), (address,))
        self.assertEqual(self.asked, 2)

    def test_others(self) -> None:
        """
        No others: neighbours, the cloud's metadata service, wildcards, broadcast and multicast, a scope.
        """
        for address in ("10.0.0.9", "169.254.169.254", "0.0.0.0", "::", "255.255.255.255", "224.0.0.1", "fd00::9"):
            self.assertIn(address, self.forbidden(address))

    def test_spellings(self) -> None:
        """
        An address is the same in every spelling, and a mapped IPv4 address is an IPv4 address.
        """
        self.assertEqual(self.allowed.addresses_of("FD00:0::8"), ("fd00::8",))
        self.assertEqual(self.allowed.addresses_of("::ffff:10.0.0.8"), ("10.0.0.8",))
        self.forbidden("::ffff:10.0.0.9")

    def test_change(self) -> None:
        """
        An address that the node loses is refused at once, one that it gets is dialled at once.
        """
        self.own = frozenset({"172.16.0.1"})
        self.assertEqual(self.allowed.addresses_of("172.16.0.1"), ("172.16.0.1",))
        self.forbidden("192.168.7.2")

    def test_kernel_says_nothing(self) -> None:
        """
        When the kernel cannot be asked only what is known anyway is dialled.
        """

        def broken() -> frozenset[str]:
            raise OSError("no netlink here")

        self.allowed = Allowed("edge-1", ("10.0.0.8",), PORTS, broken)
        self.assertEqual(self.allowed.addresses_of("10.0.0.8"), ("10.0.0.8",))
        self.forbidden("192.168.7.2")

    def test_names(self) -> None:
        """
        The node's name and the host's stand for the node, localhost for loopback; without addresses given all are loopback.
        """
        for name in ("edge-1", "EDGE-1", "edge-1.", socket.gethostname()):
            self.assertEqual(self.allowed.addresses_of(name), ("10.0.0.8", "203.0.113.5"))
        self.assertEqual(self.allowed.addresses_of("localhost"), ("127.0.0.1", "::1"))
        bare = Allowed("edge-1", (), PORTS, self.kernel)
        self.assertEqual(bare.addresses_of("edge-1"), ("127.0.0.1", "::1"))

    def test_other_names(self) -> None:
        """
        Another name has to be looked up; of what it leads to only the node's own is dialled.
        """
        for name in ("edge-1.site.lan", "edge-10", "fe80::1%eth0"):
            self.assertIsNone(self.allowed.addresses_of(name))
        found = ("10.0.0.9", "fd00::8", "192.168.7.2", "fe80::1%eth0")
        self.assertEqual(self.allowed.own_among(found, "edge-1.site.lan"), ("fd00::8", "192.168.7.2"))
        refused = self.assertRaises(ConnectRefused, self.allowed.own_among, ("10.0.0.9",), "evil.example")
        self.assertIn("evil.example", refused.message)

    def test_ports(self) -> None:
        """
        Ports are kubelet's and those configured.
        """
        for port in PORTS:
            self.allowed.check_port(port)
        for port in (22, 10251, 6443):
            refused = self.assertRaises(ConnectRefused, self.allowed.check_port, port)
            self.assertEqual((refused.status, refused.word), (403, "forbidden"))
            self.assertIn("9100, 10250, 10255", refused.message)


class KernelTests(SynchronousTestCase):
    """
    Tests of what the kernel is asked.
    """

    def test_this_host(self) -> None:
        """
        The addresses of this host are there: loopback, and every one that another socket shows.
        """
        found = kernel_addresses()
        self.assertIn("127.0.0.1", found)
        self.assertNotIn("", found)
        for address in found:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            if not address.startswith("fe80:"):
                with socket.socket(family, socket.SOCK_DGRAM) as probe:
                    probe.bind((address, 0))

    def test_point_to_point(self) -> None:
        """
        On a point-to-point link the own address counts, not the other end's.
        """
        peer = pack("=HH4s", 8, 1, bytes([10, 1, 0, 2]))
        own = pack("=HH4s", 8, 2, bytes([10, 1, 0, 1]))
        label = pack("=HH5s3x", 9, 3, b"ppp0\0")
        self.assertEqual(address_in(bytes(8) + peer + own + label), "10.1.0.1")
        self.assertEqual(address_in(bytes(8) + peer), "10.1.0.2")

    def test_nonsense(self) -> None:
        """
        Messages cut short do no harm.
        """
        self.assertEqual(address_in(bytes(8) + pack("=HH", 0, 1)), "")
        self.assertEqual(address_in(bytes(4)), "")
        self.assertEqual(list(messages(b"\0" * 15)), [])
        self.assertEqual(list(messages(pack("=IHHII", 400, 20, 0, 0, 0))), [])
