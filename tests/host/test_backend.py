"""
Tests for :mod:`yurt.host.backend`.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from tests.host.contracts import RULES
from yurt.host import backend
from yurt.host.backend import choose_backend, choose_flavour
from yurt.host.errors import FirewallError, NoFirewall
from yurt.host.firewall import POD_COMMENT
from yurt.host.tools import Flavour
from yurt.host.tunnel_rules import tunnel_chains

RULE = "-A INPUT -j ACCEPT\n"
OURS = f'-A INPUT -m comment --comment "{POD_COMMENT}" -j ACCEPT\n'
JUMP = f"-A OUTPUT {tunnel_chains(RULES, 'ipv4').jump}\n"
BRANCH = "-A TUNNEL-PORT-10250 -d 10.0.0.1/32 -j RETURN\n"
TOOLS = {"ipv4": "iptables", "ipv6": "ip6tables"}
HINT = ":KUBE-KUBELET-CANARY - [0:0]\n"


def flavour(legacy: str, nft: str, default: Flavour) -> Flavour:
    """
    Which flavour is chosen.
    """
    return choose_flavour(legacy, nft, default).flavour


class ChooseFlavourTests(SynchronousTestCase):
    """
    Tests for :func:`choose_flavour`.
    """

    def test_kubelet_knows(self) -> None:
        """
        Where kubelet put its canary is where the host's rules are, whatever the counts; nf_tables when in both.
        """
        self.assertEqual(flavour(HINT, 9 * RULE, "nft"), "legacy")
        self.assertEqual(flavour(9 * RULE, HINT, "legacy"), "nft")
        self.assertEqual(flavour(HINT, HINT, "legacy"), "nft")

    def test_more_rules(self) -> None:
        """
        Without a hint the side with more rules is the one in use.
        """
        self.assertEqual(flavour(2 * RULE, RULE, "nft"), "legacy")
        self.assertEqual(flavour(RULE, 2 * RULE, "legacy"), "nft")

    def test_default(self) -> None:
        """
        On an empty host, or a draw, plain iptables decides.
        """
        self.assertEqual(flavour("", "", "nft"), "nft")
        self.assertEqual(flavour(RULE, RULE, "legacy"), "legacy")

    def test_own_rules(self) -> None:
        """
        Our own rules do not count: a choice that was wrong once is put right.
        """
        for ours in (OURS, JUMP, BRANCH):
            self.assertEqual(flavour(9 * ours, RULE, "legacy"), "nft")
            self.assertEqual(flavour(RULE, 9 * ours, "nft"), "legacy")

    def test_reason(self) -> None:
        """
        Each choice says why.
        """
        self.assertIn("KUBE-KUBELET-CANARY", choose_flavour(HINT, 9 * RULE, "nft").reason)
        self.assertIn("(3, and 1 elsewhere)", choose_flavour(RULE, 3 * RULE, "nft").reason)
        self.assertIn("plain iptables uses it", choose_flavour("", "", "nft").reason)


class ChooseBackendTests(SynchronousTestCase):
    """
    Tests for :func:`choose_backend` on a host with pretended tools.
    """

    def setUp(self) -> None:
        self.saved = {"iptables-nft-save": 2 * RULE, "ip6tables-nft-save": RULE, "iptables-legacy-save": RULE}
        self.default: Flavour | None = "nft"
        self.patch(backend, "default_flavour", lambda: self.default)
        self.patch(backend, "find_tool", lambda family, flavour, verb: f"{TOOLS[family]}-{flavour}-{verb}")
        self.patch(backend, "run_tool", self.run_tool)
        self.patch(backend, "_has_legacy_tables", lambda: True)

    def run_tool(self, command: Sequence[str]) -> str:
        text = self.saved.get(command[0])
        if text is None:
            raise FirewallError(f"{command[0]}: no")
        return text

    def test_without_ipv6(self) -> None:
        """
        A host whose IPv6 rules cannot be read is chosen for by those of IPv4.
        """
        del self.saved["ip6tables-nft-save"]
        self.assertEqual(choose_backend("TUNNEL-PORT").flavour, "nft")

    def test_unreadable(self) -> None:
        """
        One whose own IPv4 rules cannot be read is a failure; those of the flavour not in use do not matter.
        """
        del self.saved["iptables-legacy-save"]
        self.assertEqual(choose_backend("TUNNEL-PORT").flavour, "nft")
        del self.saved["iptables-nft-save"]
        self.assertIn("iptables-nft-save: no", str(self.assertRaises(FirewallError, choose_backend, "TUNNEL-PORT")))

    def test_no_iptables(self) -> None:
        """
        No iptables is a failure of its own kind.
        """
        self.default = None
        self.assertRaises(NoFirewall, choose_backend, "TUNNEL-PORT")

    def test_left_elsewhere(self) -> None:
        """
        What an earlier run left in the other flavour is told.
        """
        self.assertEqual(choose_backend("TUNNEL-PORT").others, ())
        self.saved["iptables-legacy-save"] += BRANCH
        self.assertEqual(choose_backend("TUNNEL-PORT").others, ("legacy",))
