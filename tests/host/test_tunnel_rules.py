"""
Tests for :mod:`yurt.host.tunnel_rules`.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from tests.host.contracts import RULES
from yurt.host.chains import MAX_DELETIONS, as_wanted, plan
from yurt.host.firewall import FAMILIES
from yurt.host.tunnel_rules import Diversion, Flow, TunnelRules, difference, spell, tunnel_chains, turned_flows

KUBELET_CHAIN = """\
-d 127.0.0.1/32 -p tcp -m comment --comment "return request to access node directly" -m tcp --dport 10250 -j RETURN
-d 10.0.0.1/32 -p tcp -m comment --comment "return request to access node directly" -m tcp --dport 10250 -j RETURN
-d 10.0.0.2/32 -p tcp -m comment --comment "return request to access node directly" -m tcp --dport 10250 -j RETURN
-p tcp -m comment --comment "dnat to tunnel for access node" -m tcp --dport 10250 -j DNAT --to-destination 127.0.0.1:10263
"""


class TunnelChainsTests(SynchronousTestCase):
    """
    Tests for :func:`tunnel_chains`.
    """

    def test_texts(self) -> None:
        """
        Chains, rules, options and comments are OpenYurt's; the rules of 10255 match 10255.
        """
        seen = as_wanted(tunnel_chains(RULES, "ipv4"))
        self.assertEqual(seen.jumps, ('-p tcp -m comment --comment "yurttunnel server port" -j TUNNEL-PORT',))
        self.assertEqual(list(seen.chains["TUNNEL-PORT-10250"]), KUBELET_CHAIN.splitlines())
        read_only = KUBELET_CHAIN.replace("10250", "10255").replace("10263", "10264")
        self.assertEqual(list(seen.chains["TUNNEL-PORT-10255"]), read_only.splitlines())
        self.assertEqual(
            list(seen.chains["TUNNEL-PORT"]),
            [
                '-p tcp -m tcp --dport 10250 -m comment --comment "jump to port 10250" -j TUNNEL-PORT-10250',
                '-p tcp -m tcp --dport 10255 -m comment --comment "jump to port 10255" -j TUNNEL-PORT-10255',
            ],
        )

    def test_ipv6(self) -> None:
        """
        IPv6 has its own loopback, its own addresses and its own destination.
        """
        (chain, root) = tunnel_chains(RULES, "ipv6").chains
        self.assertEqual([text.split()[1] for text in chain.heads], ["::1/128", "fd00::2/128"])
        self.assertTrue(chain.tail[0].endswith("--to-destination [fd00::1]:10263"))
        self.assertEqual(len(root.heads), 1)

    def test_nothing(self) -> None:
        """
        Without a diversion there is no chain at all.
        """
        self.assertEqual(tunnel_chains(TunnelRules(("10.0.0.1",)), "ipv4").chains, ())
        self.assertEqual(tunnel_chains(TunnelRules((), (Diversion("ipv4", 1, "127.0.0.1:2"),)), "ipv6").chains, ())

    def test_loopback_once(self) -> None:
        """
        A node that says its address is the loopback one does not make a rule twice.
        """
        (chain, _) = tunnel_chains(TunnelRules(("127.0.0.1",), (Diversion("ipv4", 1, "127.0.0.1:2"),)), "ipv4").chains
        self.assertEqual(len(chain.heads), 1)


class DifferenceTests(SynchronousTestCase):
    """
    Tests for :func:`difference`.
    """

    def assert_same_edits(self, before: TunnelRules, wanted: TunnelRules) -> tuple[TunnelRules, TunnelRules]:
        """
        What is returned leads to the edits that the whole sets lead to.
        """
        found = difference(before, wanted)
        for family in FAMILIES:
            whole, part = (
                plan(as_wanted(tunnel_chains(old, family)), tunnel_chains(new, family)) for old, new in ((before, wanted), found)
            )
            self.assertEqual(part, whole)
        return found

    def test_few(self) -> None:
        """
        Of addresses that come and go only these are left, whatever stays beside them.
        """
        wanted = replace(RULES, direct=("10.0.0.2", "10.0.0.7", "fd00::2", "fd00::7"))
        before, after = self.assert_same_edits(RULES, wanted)
        self.assertEqual(before.direct, ("10.0.0.1",))
        self.assertEqual(after.direct, ("10.0.0.7", "fd00::7"))

    def test_whole(self) -> None:
        """
        With other diversions, and when so many addresses go that a chain is written anew, nothing is left out.
        """
        fewer = replace(RULES, diversions=RULES.diversions[:1])
        self.assertEqual(self.assert_same_edits(RULES, fewer), (RULES, fewer))
        many = replace(RULES, direct=(*RULES.direct, *(f"10.7.0.{number}" for number in range(MAX_DELETIONS + 1))))
        self.assertEqual(self.assert_same_edits(many, RULES), (many, RULES))


class SpellTests(SynchronousTestCase):
    """
    Tests for :func:`spell`.
    """

    def test_spelling(self) -> None:
        """
        An address has one spelling, that of iptables-save.
        """
        self.assertEqual(spell("10.0.0.1"), "10.0.0.1")
        self.assertEqual(spell("FD00:0:0::0001"), "fd00::1")
        self.assertEqual(spell("::ffff:10.0.0.1"), "10.0.0.1")

    def test_no_address(self) -> None:
        """
        Names, networks, addresses of one link and what would be a command of its own are no addresses.
        """
        for text in ("", "node-1", "10.0.0.0/8", "fe80::1%eth0", "10.0.0.1\n-F OUTPUT"):
            self.assertIsNone(spell(text))


class TurnedFlowsTests(SynchronousTestCase):
    """
    Tests for :func:`turned_flows`.
    """

    def test_flows(self) -> None:
        """
        A rule of an address and port is a destination, one that turns all others stands for what nobody has answered; any other
        rule is none.
        """
        (chain, root) = tunnel_chains(RULES, "ipv6").chains
        turned = [(chain.name, chain.heads[1]), (chain.name, chain.tail[0]), (root.name, root.heads[0])]
        self.assertEqual(turned_flows("ipv6", turned), [Flow("ipv6", "fd00::2", 10250), Flow("ipv6", "", 10250)])
