"""
Tests for :mod:`yurt.host.tunnel_child`, and for what is said to and by it.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from tests.host.contracts import DIRECT, DIVERSIONS, RULES
from tests.host.fakes import FakeChains
from yurt.host import chains, tunnel_child
from yurt.host.backend import Choice
from yurt.host.chains import ChainEdit, ChainSet, SeenChains
from yurt.host.errors import FirewallError, NoFirewall
from yurt.host.firewall import FAMILIES, Family
from yurt.host.messages import Known, Request, Result, decode_request, decode_result, encode
from yurt.host.tools import Flavour
from yurt.host.tunnel_child import MAX_CHANGES, do_tunnel
from yurt.host.tunnel_rules import MAX_FLOWS, Diversion, Flow, TunnelRules, tunnel_chains

IPV4_ONLY = TunnelRules(DIRECT, DIVERSIONS[:2])


class LooksChains(FakeChains):
    """
    Counts looks; ``without`` is a family that this host does not have, ``stuck`` one that cannot be changed.
    """

    stuck: Family | None = None

    def __init__(self, without: Family | None = None) -> None:
        super().__init__()
        self.looks = 0
        self.without = without

    def see(self, family: Family, wanted: ChainSet) -> SeenChains:
        self.looks += 1
        if family == self.without:
            raise FirewallError(f"{family}: no such table")
        return super().see(family, wanted)

    def apply(self, family: Family, table: str, edits: Sequence[ChainEdit]) -> None:
        if family == self.without:
            raise FirewallError(f"{family}: no such table")
        if family == self.stuck:
            raise FirewallError(f"{family}: cannot be changed")
        super().apply(family, table, edits)


class DoTunnelTests(SynchronousTestCase):
    """
    Tests for :func:`do_tunnel` on a host with two pretended firewalls.
    """

    def setUp(self) -> None:
        self.edges: dict[Flavour, LooksChains] = {"nft": LooksChains(), "legacy": LooksChains()}
        self.used: Flavour = "nft"
        self.opened: list[Flavour] = []
        self.patch(tunnel_child, "chains_of", self.edge)
        self.patch(tunnel_child, "choose_backend", self.choose)
        self.patch(chains, "PAUSE", 0.0)

    def edge(self, flavour: Flavour) -> LooksChains:
        self.opened.append(flavour)
        return self.edges[flavour]

    def choose(self, mark: str) -> Choice:
        if not self.edges:
            raise NoFirewall("no iptables")
        other: Flavour = "legacy" if self.used == "nft" else "nft"
        left = other in self.edges and any(mark in name for name in self.edges[other].tables["ipv4"])
        return Choice(self.used, "so told", (other,) if left else ())

    def do(self, wanted: TunnelRules, known: TunnelRules | None = None, action: str = "ensure") -> Result:
        """
        One child's work.
        """
        before = None if known is None else Known(self.used, known)
        return do_tunnel(Request(action, tunnel=wanted, known=before), Result())  # type: ignore[arg-type]  # one of the two

    def names(self, flavour: Flavour, family: Family = "ipv4") -> set[str]:
        """
        The chains of ours.
        """
        wanted = tunnel_chains(RULES, family)
        return {name for name in self.edges[flavour].tables[family] if wanted.owns(name)}

    def test_nothing_asked(self) -> None:
        """
        A request about something else is none of its business.
        """
        self.assertEqual(do_tunnel(Request("ensure"), Result(backend="x")), Result(backend="x"))

    def test_ensure(self) -> None:
        """
        Both families are put in order; the flavour is told.
        """
        result = self.do(RULES)
        self.assertEqual((result.flavour, result.checked, result.problems, len(result.changes)), ("nft", True, (), 7))
        self.assertEqual(len(self.names("nft")), 3)
        self.assertEqual(len(self.names("nft", "ipv6")), 2)

    def test_remove(self) -> None:
        """
        Nothing is left in either family, whatever rules the request names.
        """
        self.do(RULES)
        self.do(RULES, action="remove")
        self.assertEqual((self.names("nft"), self.names("nft", "ipv6")), (set(), set()))

    def test_moved(self) -> None:
        """
        When the host uses the other flavour now, what was left in the first goes, after the new rules are there.
        """
        self.do(RULES)
        self.used = "legacy"
        self.opened.clear()
        result = self.do(RULES)
        self.assertEqual((result.flavour, self.names("nft"), len(self.names("legacy"))), ("legacy", set(), 3))
        self.assertEqual((self.opened, result.reason), (["legacy", "nft"], "so told"))

    def test_cannot_leave(self) -> None:
        """
        What cannot be removed from the other flavour is a problem; the rules are there all the same.
        """
        self.do(RULES)
        self.used = "legacy"
        self.edges["nft"].without = "ipv4"
        result = self.do(RULES)
        self.assertEqual((result.flavour, len(self.names("legacy"))), ("legacy", 3))
        self.assertEqual(result.problems, ("ipv4: no such table",))

    def test_no_iptables(self) -> None:
        """
        Without iptables there is nothing to remove, and nothing can be made.
        """
        self.edges.clear()
        self.assertEqual(self.do(RULES, action="remove"), Result(checked=True))
        self.assertRaises(FirewallError, self.do, RULES)

    def test_half_as_believed(self) -> None:
        """
        When one family is as believed and the other is not, the ways that changed in the first are told all the same.
        """
        self.do(IPV4_ONLY)
        more = TunnelRules((*DIRECT, "10.0.0.3", "fd00::3"), DIVERSIONS)
        result = self.do(more, RULES)
        self.assertEqual((result.checked, result.problems), (True, ()))
        self.assertIn(Flow("ipv4", "10.0.0.3", 10250), result.flows)
        self.assertEqual(len(self.names("nft", "ipv6")), 2)

    def test_difference(self) -> None:
        """
        With what is known to be there nothing is looked at.
        """
        self.do(RULES)
        looks = self.edges["nft"].looks
        more = TunnelRules((*DIRECT, "10.0.0.3"), DIVERSIONS)
        result = self.do(more, RULES)
        self.assertEqual((result.checked, self.edges["nft"].looks, result.flavour), (False, looks, "nft"))
        self.assertEqual(set(result.flows), {Flow("ipv4", "10.0.0.3", 10250), Flow("ipv4", "10.0.0.3", 10255)})

    def test_difference_to_what_is_not(self) -> None:
        """
        What is not there after all is made by looking.
        """
        result = self.do(TunnelRules(("10.0.0.3",), DIVERSIONS), RULES)
        self.assertEqual((result.checked, result.problems), (True, ()))
        self.assertEqual(len(self.names("nft")), 3)

    def test_without_ipv6(self) -> None:
        """
        A host without IPv6 has no problem as long as nothing is wanted there; then it has.
        """
        self.edges["nft"].without = "ipv6"
        self.assertEqual(self.do(IPV4_ONLY).problems, ())
        self.assertEqual(self.do(RULES).problems, ("ipv6: no such table",))

    def test_cannot_remove(self) -> None:
        """
        Rules that are seen and cannot be removed are told, in either family.
        """
        self.do(RULES)
        for family in FAMILIES:
            self.edges["nft"].stuck = family
            self.assertEqual(self.do(RULES, action="remove").problems, (f"{family}: cannot be changed",))
            self.assertNotEqual(self.names("nft", family), set())
            self.edges["nft"].stuck = None
            self.do(RULES)

    def test_without_ipv4(self) -> None:
        """
        A firewall that cannot be read at all is a problem even when nothing is wanted.
        """
        self.edges["nft"].without = "ipv4"
        self.assertEqual(self.do(TunnelRules()).problems, ("ipv4: no such table",))

    def test_bounded(self) -> None:
        """
        However much was changed, the answer stays small.
        """
        ports = tuple(Diversion("ipv4", port, "127.0.0.1:1") for port in range(1, 2 * MAX_CHANGES))
        self.do(TunnelRules((), ports))
        result = self.do(TunnelRules(tuple(f"10.0.0.{n}" for n in range(4)), ports))
        self.assertEqual((len(result.changes), result.changes[-1]), (MAX_CHANGES + 1, "and more"))
        self.assertEqual(len(result.flows), MAX_FLOWS)


class MessageTests(SynchronousTestCase):
    """
    Tests for the messages about the tunnel.
    """

    def test_round_trip(self) -> None:
        """
        What is written is what is read.
        """
        request = Request("ensure", tunnel=RULES, known=Known("legacy", IPV4_ONLY))
        result = Result(("made",), flavour="nft", checked=True, flows=(Flow("ipv6", "fd00::1", 10250),))
        self.assertEqual(decode_request(encode(request)), request)
        self.assertEqual(decode_result(encode(result)), result)
