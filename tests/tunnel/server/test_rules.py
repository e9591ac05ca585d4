"""
Tests for :mod:`yurt.tunnel.server.rules`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from yurt.host.tunnel_rules import Diversion
from yurt.tunnel.server.ports import Security
from yurt.tunnel.server.rules import Bound, destination, wanted_rules

DOORS: dict[Security, Bound] = {"secure": Bound(("0.0.0.0",), 10263), "insecure": Bound(("127.0.0.1",), 10264)}


class DestinationTests(SynchronousTestCase):
    """
    Tests for :func:`destination`.
    """

    def test_own_address(self) -> None:
        """
        A door on one address is reached there, by connections of its family.
        """
        self.assertEqual(destination(Bound(("10.0.0.1",), 10263), "ipv4"), "10.0.0.1:10263")
        self.assertIsNone(destination(Bound(("10.0.0.1",), 10263), "ipv6"))
        both = Bound(("10.0.0.1", "fd00::1"), 10263)
        self.assertEqual((destination(both, "ipv4"), destination(both, "ipv6")), ("10.0.0.1:10263", "[fd00::1]:10263"))

    def test_all_addresses(self) -> None:
        """
        A door on all addresses is reached by loopback, which is always there; ``::`` is all of IPv4, too.
        """
        self.assertEqual(destination(Bound(("0.0.0.0",), 1), "ipv4"), "127.0.0.1:1")
        self.assertIsNone(destination(Bound(("0.0.0.0",), 1), "ipv6"))
        self.assertEqual(destination(Bound(("::",), 1), "ipv4"), "127.0.0.1:1")
        self.assertEqual(destination(Bound(("::",), 1), "ipv6"), "[::1]:1")

    def test_no_door(self) -> None:
        """
        A door that is not wanted is not reached.
        """
        self.assertIsNone(destination(Bound(("0.0.0.0",), 0), "ipv4"))
        self.assertIsNone(destination(Bound((), 1), "ipv4"))


class WantedRulesTests(SynchronousTestCase):
    """
    Tests for :func:`wanted_rules`.
    """

    def test_ports(self) -> None:
        """
        Each port goes to its door, in each family in which the door is.
        """
        doors: dict[Security, Bound] = {"secure": Bound(("::",), 1), "insecure": Bound(("127.0.0.1",), 2)}
        rules = wanted_rules(("10.0.0.1",), {9100: "insecure", 10250: "secure"}, doors)
        self.assertEqual(
            rules.diversions,
            (
                Diversion("ipv4", 9100, "127.0.0.1:2"),
                Diversion("ipv4", 10250, "127.0.0.1:1"),
                Diversion("ipv6", 10250, "[::1]:1"),
            ),
        )

    def test_addresses(self) -> None:
        """
        Addresses are there once, in one order, and what is none is left out.
        """
        rules = wanted_rules(("10.0.0.2", "10.0.0.1", "FD00::1", "10.0.0.1", "fe80::1%e0", "name"), {}, DOORS)
        self.assertEqual(rules.direct, ("10.0.0.1", "10.0.0.2", "fd00::1"))
