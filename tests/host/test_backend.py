"""
Tests for :mod:`yurt.host.backend`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.host.contracts import RULES
from yurt.host.backend import choose_flavour
from yurt.host.firewall import POD_COMMENT
from yurt.host.tunnel_rules import tunnel_chains

RULE = "-A INPUT -j ACCEPT\n"
OURS = f'-A INPUT -m comment --comment "{POD_COMMENT}" -j ACCEPT\n'
JUMP = f"-A OUTPUT {tunnel_chains(RULES, 'ipv4').jump}\n"
BRANCH = "-A TUNNEL-PORT-10250 -d 10.0.0.1/32 -j RETURN\n"
HINT = ":KUBE-KUBELET-CANARY - [0:0]\n"


class ChooseFlavourTests(SynchronousTestCase):
    """
    Tests for :func:`choose_flavour`.
    """

    def test_kubelet_knows(self) -> None:
        """
        Where kubelet put its canary is where the host's rules are, whatever the counts; nf_tables when in both.
        """
        self.assertEqual(choose_flavour(HINT, 9 * RULE, "nft"), "legacy")
        self.assertEqual(choose_flavour(9 * RULE, HINT, "legacy"), "nft")
        self.assertEqual(choose_flavour(HINT, HINT, "legacy"), "nft")

    def test_more_rules(self) -> None:
        """
        Without a hint the side with more rules is the one in use.
        """
        self.assertEqual(choose_flavour(2 * RULE, RULE, "nft"), "legacy")
        self.assertEqual(choose_flavour(RULE, 2 * RULE, "legacy"), "nft")

    def test_default(self) -> None:
        """
        On an empty host, or a draw, plain iptables decides.
        """
        self.assertEqual(choose_flavour("", "", "nft"), "nft")
        self.assertEqual(choose_flavour(RULE, RULE, "legacy"), "legacy")

    def test_own_rules(self) -> None:
        """
        Our own rules do not count: a choice that was wrong once is put right.
        """
        for ours in (OURS, JUMP, BRANCH):
            self.assertEqual(choose_flavour(9 * ours, RULE, "legacy"), "nft")
            self.assertEqual(choose_flavour(RULE, 9 * ours, "nft"), "legacy")
