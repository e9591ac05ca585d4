"""
Tests for :mod:`yurt.host.firewall`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.host.contracts import FirewallContract
from tests.host.fakes import FakeFirewall
from yurt.host import firewall
from yurt.host.errors import FirewallError
from yurt.host.firewall import ROUNDS, Rule, Slot, ensure_rules, meaning, pod_rules


class FakeFirewallTests(FirewallContract, SynchronousTestCase):
    """
    The pretended firewall keeps the promises of the real ones.
    """

    def setUp(self) -> None:
        self.firewall = FakeFirewall()


class PodRulesTests(SynchronousTestCase):
    """
    Tests for :func:`pod_rules`.
    """

    def test_one_port(self) -> None:
        """
        One address and port have OpenYurt's five rules, each with the comment, spelled as iptables-save does.
        """
        comment = '-m comment --comment "for container access hub agent" -j'
        to_proxy = f"-d 169.254.2.1/32 -p tcp -m tcp --dport 10261 {comment}"
        from_proxy = f"-s 169.254.2.1/32 -p tcp -m tcp --sport 10261 {comment}"
        rules = pod_rules(("169.254.2.1",), (10261,)).rules
        quoted = [" ".join(f'"{word}"' if " " in word else word for word in rule.spec) for rule in rules]
        self.assertEqual(
            [(rule.slot.table, rule.slot.chain, text) for rule, text in zip(rules, quoted)],
            [
                ("raw", "PREROUTING", f"{to_proxy} NOTRACK"),
                ("raw", "OUTPUT", f"{to_proxy} NOTRACK"),
                ("raw", "OUTPUT", f"{from_proxy} NOTRACK"),
                ("filter", "INPUT", f"{to_proxy} ACCEPT"),
                ("filter", "OUTPUT", f"{from_proxy} ACCEPT"),
            ],
        )

    def test_tracked(self) -> None:
        """
        A port that Services lead to is accepted, and tracked: its answers are to get their first address back.
        """
        rules = pod_rules(("169.254.2.1",), (10261, 10268), (10268,)).rules
        of_port = [(rule.slot.table, rule.slot.chain) for rule in rules if "10268" in rule.spec]
        self.assertEqual(of_port, [("filter", "INPUT"), ("filter", "OUTPUT")])
        self.assertEqual(len(rules), 7)

    def test_families(self) -> None:
        """
        An IPv6 address has its rules in the IPv6 tables.
        """
        rules = pod_rules(("fd00::2:1",), (10261,)).rules
        self.assertEqual({(rule.family, rule.spec[1]) for rule in rules}, {("ipv6", "fd00::2:1/128")})


class MeaningTests(SynchronousTestCase):
    """
    Tests for :func:`meaning`.
    """

    def said(self, text: str) -> object:
        """
        The meaning of a rule in filter INPUT.
        """
        return meaning(Rule("ipv4", Slot("filter", "INPUT"), tuple(text.split())))

    def test_same(self) -> None:
        """
        Order, the protocol's own match and the two names of NOTRACK make no difference.
        """
        native = self.said("-p tcp -m tcp --dport 1 -d 1.2.3.4/32 -j NOTRACK")
        self.assertEqual(native, self.said("-d 1.2.3.4/32 -p tcp --dport 1 -j CT --notrack"))

    def test_different(self) -> None:
        """
        A negation, another port or another target does.
        """
        rule = "-d 1.2.3.4/32 -p tcp --dport 1 -j ACCEPT"
        for other in (rule.replace("-d", "! -d"), rule.replace(" 1 ", " 2 "), rule.replace("ACCEPT", "DROP"), rule + " -i eth0"):
            self.assertNotEqual(self.said(rule), self.said(other))


class EnsureRulesTests(SynchronousTestCase):
    """
    Tests for :func:`ensure_rules`.
    """

    wanted = pod_rules(("169.254.2.1",), (10261,))

    def setUp(self) -> None:
        self.patch(firewall, "PAUSE", 0.0)

    def test_busy(self) -> None:
        """
        Another program that changes the same tables is outlived.
        """
        self.assertEqual(len(ensure_rules(FakeFirewall(busy=ROUNDS - 1), "ipv4", self.wanted)), 5)

    def test_always_busy(self) -> None:
        """
        What never succeeds is an error, not a loop without end.
        """
        self.assertRaises(FirewallError, ensure_rules, FakeFirewall(busy=ROUNDS), "ipv4", self.wanted)
