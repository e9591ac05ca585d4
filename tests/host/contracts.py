"""
What every kernel must do, real or pretended: mixed into one test case for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from yurt.host.chains import (
    AppendText,
    ChainEdit,
    ChainFirewall,
    DeleteText,
    FlushChain,
    InsertText,
    NewChain,
    Outcome,
    SeenChains,
    change_chains,
    ensure_chains,
)
from yurt.host.errors import FirewallError, LinkError
from yurt.host.firewall import (
    FAMILIES,
    POD_COMMENT,
    POD_SLOTS,
    DeleteRule,
    Family,
    Firewall,
    InsertRule,
    Rule,
    RuleSet,
    Slot,
    ensure_rules,
    meaning,
    pod_rules,
)
from yurt.host.links import (
    AddAddress,
    CreateLink,
    Links,
    RemoveAddress,
    SeenLink,
    SetUp,
    ensure_link,
    parse_link,
    remove_link,
)
from yurt.host.tunnel_rules import TUNNEL_COMMENT, TUNNEL_ROOT, Diversion, TunnelRules, tunnel_chains

if TYPE_CHECKING:
    _Mixin = SynchronousTestCase
else:
    _Mixin = object  # a contract alone is no test case

NAME = "yurthub-dummy0"
BOTH = ("169.254.2.1", "fd00::2:1")


class LinksContract(_Mixin):
    """
    Promises of :class:`yurt.host.links.Links` and of what is built on it.
    """

    links: Links

    def test_create(self) -> None:
        """
        From nothing comes a link that is up and has both addresses, as single hosts; a second run changes nothing.
        """
        wanted = parse_link(NAME, "auto", BOTH)
        seen, changes, problems = ensure_link(self.links, wanted)
        self.assertEqual(problems, [])
        assert seen is not None
        self.assertIn(seen.kind, ("dummy", "tap"))
        self.assertEqual(seen, SeenLink(NAME, seen.kind, True, frozenset({"169.254.2.1/32", "fd00::2:1/128"})))
        self.assertEqual(len(changes), 4)
        self.assertEqual(ensure_link(self.links, wanted), (seen, [], []))

    def test_adopt(self) -> None:
        """
        A link left by a crash, down and with an address of an earlier configuration, is put in order, not made anew.
        """
        for edit in (CreateLink(NAME, ("tap",)), AddAddress(NAME, "169.254.9.9/32"), AddAddress(NAME, "10.1.2.3/24")):
            self.links.apply(edit)
        seen, changes, problems = ensure_link(self.links, parse_link(NAME, "auto", ("169.254.2.1",)))
        assert seen is not None
        self.assertEqual((problems, seen.kind, seen.up), ([], "tap", True))
        self.assertEqual(seen.addresses, {"169.254.2.1/32", "10.1.2.3/24"})
        self.assertFalse([change for change in changes if "created" in change])

    def test_remove(self) -> None:
        """
        A link of ours is removed, and removing it again does nothing.
        """
        wanted = parse_link(NAME, "auto", BOTH)
        ensure_link(self.links, wanted)
        self.assertEqual(remove_link(self.links, wanted), [f"deleted link {NAME}"])
        self.assertIsNone(self.links.see(NAME))
        self.assertEqual(remove_link(self.links, wanted), [])

    def test_remove_spares_foreign_address(self) -> None:
        """
        A link to which someone added an address of theirs stays, without ours.
        """
        wanted = parse_link(NAME, "auto", ("169.254.2.1",))
        ensure_link(self.links, wanted)
        self.links.apply(AddAddress(NAME, "10.1.2.3/24"))
        remove_link(self.links, wanted)
        seen = self.links.see(NAME)
        assert seen is not None
        self.assertEqual(seen.addresses, {"10.1.2.3/24"})

    def test_unknown_link(self) -> None:
        """
        A link that is not there reads as None, and cannot be changed.
        """
        self.assertIsNone(self.links.see("absent0"))
        for edit in (SetUp("absent0"), AddAddress("absent0", "169.254.2.1/32"), RemoveAddress("absent0", "169.254.2.1/32")):
            self.assertRaises(LinkError, self.links.apply, edit)

    def test_address_twice(self) -> None:
        """
        Adding an address that is there, or removing one that is not, is refused: reading comes before editing.
        """
        self.links.apply(CreateLink(NAME, ("tap",)))
        self.links.apply(AddAddress(NAME, "169.254.2.1/32"))
        self.assertRaises(LinkError, self.links.apply, AddAddress(NAME, "169.254.2.1/32"))
        self.assertRaises(LinkError, self.links.apply, RemoveAddress(NAME, "169.254.2.2/32"))


class FirewallContract(_Mixin):
    """
    Promises of :class:`yurt.host.firewall.Firewall` and of what is built on it.
    """

    firewall: Firewall

    def ensure(self, wanted: RuleSet) -> list[str]:
        """
        Put the rules of both families in order; returns the changes.
        """
        return [change for family in FAMILIES for change in ensure_rules(self.firewall, family, wanted)]

    def seen(self, comment: str = POD_COMMENT) -> list[Rule]:
        """
        All rules with the comment, in the chains we use.
        """
        return [rule for family in FAMILIES for rule in self.firewall.see(family, POD_SLOTS, comment)]

    def test_nothing(self) -> None:
        """
        Where there are no rules none are seen.
        """
        self.assertEqual(self.seen(), [])

    def test_insert(self) -> None:
        """
        All rules of an address and its ports are there after one change, in the order asked for; a second run changes nothing.
        """
        wanted = pod_rules(BOTH, (10261, 10268))
        self.assertEqual(len(self.ensure(wanted)), 20)
        seen = [meaning(rule) for rule in self.seen()]
        self.assertEqual(set(seen), {meaning(rule) for rule in wanted.rules})
        in_input = [meaning(rule) for rule in wanted.rules if rule.slot == Slot("filter", "INPUT") and rule.family == "ipv4"]
        self.assertEqual([said for said in seen if said in in_input], in_input)
        self.assertEqual(self.ensure(wanted), [])

    def test_change_of_address(self) -> None:
        """
        Rules of an earlier configuration are found by their comment and replaced.
        """
        self.ensure(pod_rules(("169.254.9.9",), (10261,)))
        wanted = pod_rules(("169.254.2.1",), (10261,))
        self.ensure(wanted)
        self.assertEqual({meaning(rule) for rule in self.seen()}, {meaning(rule) for rule in wanted.rules})

    def test_duplicates(self) -> None:
        """
        Of rules that stand there twice one stays.
        """
        wanted = pod_rules(("169.254.2.1",), (10261,))
        self.ensure(wanted)
        self.firewall.apply("ipv4", [InsertRule(rule) for rule in wanted.rules])
        self.assertEqual(len(self.seen()), 10)
        self.assertEqual(len(self.ensure(wanted)), 5)
        self.assertEqual(len(self.seen()), 5)

    def test_one_lost(self) -> None:
        """
        A rule that someone deleted is put back, and nothing else happens.
        """
        wanted = pod_rules(BOTH, (10261,))
        self.ensure(wanted)
        self.firewall.apply("ipv6", [DeleteRule(self.firewall.see("ipv6", POD_SLOTS, POD_COMMENT)[0])])
        self.assertEqual(len(self.ensure(wanted)), 1)
        self.assertEqual(len(self.seen()), 10)

    def test_remove(self) -> None:
        """
        Wanting none leaves none of ours.
        """
        self.ensure(pod_rules(BOTH, (10261,)))
        self.ensure(RuleSet(POD_COMMENT, POD_SLOTS, ()))
        self.assertEqual(self.seen(), [])

    def test_other_comment(self) -> None:
        """
        A rule with another comment that says the same is someone else's.
        """
        ours = pod_rules(("169.254.2.1",), (10261,))
        spec = tuple("for someone else" if word == POD_COMMENT else word for word in ours.rules[3].spec)
        theirs = Rule("ipv4", ours.rules[3].slot, spec)
        self.firewall.apply("ipv4", [InsertRule(theirs)])
        self.ensure(ours)
        self.ensure(RuleSet(POD_COMMENT, POD_SLOTS, ()))
        self.assertEqual([meaning(rule) for rule in self.seen(theirs.comment)], [meaning(theirs)])

    def test_all_or_none(self) -> None:
        """
        When one change of a table cannot be made, none of it is.
        """
        rules = pod_rules(("169.254.2.1",), (10261,)).rules
        raw = [rule for rule in rules if rule.slot.table == "raw"]
        edits = [InsertRule(raw[0]), InsertRule(raw[1]), DeleteRule(raw[2])]
        self.assertRaises(FirewallError, self.firewall.apply, "ipv4", edits)
        self.assertEqual(self.seen(), [])


KUBELET, READ_ONLY = f"{TUNNEL_ROOT}-10250", f"{TUNNEL_ROOT}-10255"
DIVERSIONS = (
    Diversion("ipv4", 10250, "127.0.0.1:10263"),
    Diversion("ipv4", 10255, "127.0.0.1:10264"),
    Diversion("ipv6", 10250, "[fd00::1]:10263"),
)
DIRECT = ("10.0.0.1", "10.0.0.2", "fd00::2")
RULES = TunnelRules(DIRECT, DIVERSIONS)
RETURN = '-d {} -p tcp -m comment --comment "return request to access node directly" -m tcp --dport {} -j RETURN'
THEIRS = "-d 192.0.2.1/32 -p tcp -m tcp --dport 10250 -j RETURN"


class ChainsContract(_Mixin):
    """
    Promises of :class:`yurt.host.chains.ChainFirewall` and of what is built on it.
    """

    chains: ChainFirewall

    def ensure(self, rules: TunnelRules = RULES, family: Family = "ipv4") -> Outcome:
        """
        Put the chains of one family in order.
        """
        return ensure_chains(self.chains, family, tunnel_chains(rules, family))

    def seen(self, family: Family = "ipv4") -> SeenChains:
        """
        What there is of ours.
        """
        return self.chains.see(family, tunnel_chains(RULES, family))

    def edit(self, *edits: ChainEdit) -> None:
        """
        Change the IPv4 table as another program would.
        """
        self.chains.apply("ipv4", "nat", edits)

    def assert_chains(self, rules: TunnelRules = RULES, family: Family = "ipv4") -> None:
        """
        There is exactly what the rules say, each chain's last rules at its end.
        """
        wanted, seen = tunnel_chains(rules, family), self.seen(family)
        self.assertEqual(set(seen.chains), {chain.name for chain in wanted.chains})
        for chain in wanted.chains:
            texts = list(seen.chains[chain.name])
            self.assertEqual(texts[len(chain.heads) :], list(chain.tail))
            self.assertEqual(sorted(texts[: len(chain.heads)]), sorted(chain.heads))
        self.assertEqual(list(seen.jumps), [wanted.jump] if wanted.chains else [])

    def assert_repaired(self, changes: int) -> None:
        """
        One run puts all in order, with that many changes told, and a second one finds nothing to do.
        """
        self.assertEqual(len(self.ensure().changes), changes)
        self.assert_chains()
        self.assertEqual(self.ensure(), Outcome())

    def test_nothing(self) -> None:
        """
        Where nothing is nothing is seen, and wanting nothing does nothing.
        """
        for family in FAMILIES:
            self.assertEqual((dict(self.seen(family).chains), list(self.seen(family).jumps)), ({}, []))
            self.assertEqual(self.ensure(TunnelRules(), family), Outcome())

    def test_create(self) -> None:
        """
        All chains of both families come with one change each, and turn what nothing turned before; a second run does nothing.
        """
        for family in FAMILIES:
            outcome = self.ensure(RULES, family)
            tails = tuple((chain.name, text) for chain in tunnel_chains(RULES, family).chains for text in chain.tail)
            self.assertEqual((outcome.problems, outcome.turned), ((), tails))
            self.assert_chains(RULES, family)
            self.assertEqual(self.ensure(RULES, family), Outcome())

    def test_family_without_diversion(self) -> None:
        """
        A family without diversion has nothing, whatever its direct addresses.
        """
        self.ensure(TunnelRules(DIRECT, DIVERSIONS[:2]), "ipv6")
        self.assertEqual(dict(self.seen("ipv6").chains), {})

    def test_nodes_come_and_go(self) -> None:
        """
        The rules of one address are made and deleted alone, and told as ways that have changed; the end of the chain stays.
        """
        self.ensure()
        changed = TunnelRules(("10.0.0.1", "10.0.0.3", "fd00::2"), DIVERSIONS)
        outcome = self.ensure(changed)
        self.assert_chains(changed)
        self.assertEqual(
            outcome.changes,
            (f"ipv4 chain {KUBELET}: 1 rule added, 1 rule deleted", f"ipv4 chain {READ_ONLY}: 1 rule added, 1 rule deleted"),
        )
        gone, come = RETURN.format("10.0.0.2/32", 10250), RETURN.format("10.0.0.3/32", 10250)
        self.assertEqual([turn for turn in outcome.turned if turn[0] == KUBELET], [(KUBELET, gone), (KUBELET, come)])

    def test_unseen(self) -> None:
        """
        The difference to what is known to be there can be applied without looking, and leaves the same.
        """
        self.ensure()
        changed = TunnelRules(("10.0.0.1", "10.0.0.3"), (*DIVERSIONS, Diversion("ipv4", 9100, "127.0.0.1:10264")))
        change_chains(self.chains, "ipv4", tunnel_chains(RULES, "ipv4"), tunnel_chains(changed, "ipv4"))
        self.assert_chains(changed)
        change_chains(self.chains, "ipv4", tunnel_chains(changed, "ipv4"), tunnel_chains(RULES, "ipv4"))
        self.assert_chains()

    def test_unseen_and_wrong(self) -> None:
        """
        A difference to what is not there is refused as a whole.
        """
        self.ensure()
        wrong = TunnelRules(("10.0.0.9", *DIRECT), DIVERSIONS)
        other = TunnelRules(("10.0.0.8", *DIRECT), DIVERSIONS)
        self.assertRaises(
            FirewallError,
            change_chains,
            self.chains,
            "ipv4",
            tunnel_chains(wrong, "ipv4"),
            tunnel_chains(other, "ipv4"),
        )
        self.assert_chains()

    def test_ports_come_and_go(self) -> None:
        """
        A port's chain comes with its jump, and goes with it.
        """
        more = TunnelRules(DIRECT, (*DIVERSIONS, Diversion("ipv4", 9100, "127.0.0.1:10264")))
        for rules in (RULES, more, RULES):
            self.ensure(rules)
            self.assert_chains(rules)

    def test_new_destination(self) -> None:
        """
        When the server's address changes no rule that leads to the old one is left.
        """
        self.ensure()
        moved = TunnelRules(DIRECT, (Diversion("ipv4", 10250, "10.9.9.9:10263"), *DIVERSIONS[1:]))
        self.ensure(moved)
        self.assert_chains(moved)

    def test_flushed(self) -> None:
        """
        Chains that someone emptied are filled.
        """
        self.ensure()
        self.edit(FlushChain(KUBELET), FlushChain(TUNNEL_ROOT))
        self.assert_repaired(2)

    def test_lost(self) -> None:
        """
        A rule that someone deleted is put back: one of a node, the last one, the jump of a port.
        """
        self.ensure()
        chain = tunnel_chains(RULES, "ipv4").chains[0]
        root = tunnel_chains(RULES, "ipv4").chains[-1]
        for name, text in ((KUBELET, chain.heads[1]), (KUBELET, chain.tail[0]), (TUNNEL_ROOT, root.heads[0])):
            self.edit(DeleteText(name, text))
            self.assert_repaired(1)

    def test_lost_jump(self) -> None:
        """
        The way from the chain of others is put back when someone deleted it, and left alone once when it is there twice.
        """
        self.ensure()
        jump = tunnel_chains(RULES, "ipv4").jump
        self.edit(DeleteText("OUTPUT", jump))
        self.assert_repaired(1)
        self.edit(InsertText("OUTPUT", jump))
        self.assert_repaired(1)

    def test_barred(self) -> None:
        """
        Behind a rule that takes all connections the way is never gone; it is put before it, whole.  One that takes those to a
        destination, or to other ports, is somebody's will and bars nothing.
        """
        self.ensure()
        jump = tunnel_chains(RULES, "ipv4").jump
        for bar in ("-p tcp -j ACCEPT", "-p tcp -m tcp --dport 10250 -j RETURN", "-j ACCEPT"):
            self.edit(DeleteText("OUTPUT", jump), InsertText("OUTPUT", jump), InsertText("OUTPUT", bar))
            self.assert_repaired(1)
            self.edit(DeleteText("OUTPUT", bar))
        for exception in ("-d 10.0.0.9/32 -p tcp -j ACCEPT", "-p tcp -m tcp --dport 80 -j RETURN", "-p udp -j ACCEPT"):
            self.edit(InsertText("OUTPUT", exception))
            self.assertEqual(self.ensure(), Outcome())
            self.edit(DeleteText("OUTPUT", exception))

    def test_goto(self) -> None:
        """
        A rule that goes to our chain without coming back is someone else's, even with our comment.
        """
        self.ensure()
        theirs = tunnel_chains(RULES, "ipv4").jump.replace("-j", "-g")
        self.edit(InsertText("OUTPUT", theirs))
        self.assertEqual(self.ensure(), Outcome())
        self.edit(DeleteText("OUTPUT", theirs))
        self.assertEqual(self.ensure(), Outcome())

    def test_other_jump(self) -> None:
        """
        A jump with our comment that says something else is replaced.
        """
        self.ensure()
        jump = tunnel_chains(RULES, "ipv4").jump
        self.edit(DeleteText("OUTPUT", jump), InsertText("OUTPUT", f"-d 10.0.0.0/8 {jump}"))
        self.assert_repaired(1)

    def test_wrong_order(self) -> None:
        """
        A rule behind the last one would never be reached; it is moved before it.
        """
        self.ensure()
        text = RETURN.format("10.0.0.1/32", 10250)
        self.edit(DeleteText(KUBELET, text), AppendText(KUBELET, text))
        self.assert_repaired(1)

    def test_strangers(self) -> None:
        """
        Rules of others in chains of ours, ours that stand there twice, and chains of ports that are none of ours any more, go.
        """
        self.ensure()
        self.edit(InsertText(KUBELET, THEIRS), InsertText(READ_ONLY, RETURN.format("10.0.0.1/32", 10255)))
        self.edit(NewChain(f"{TUNNEL_ROOT}-9100"), InsertText(f"{TUNNEL_ROOT}-9100", "-j RETURN"))
        self.assert_repaired(3)

    def test_many_strangers(self) -> None:
        """
        A chain in which much is wrong is written anew.
        """
        crowd = tuple(f"10.1.{n // 256}.{n % 256}" for n in range(300))
        self.ensure(TunnelRules((*DIRECT, *crowd), DIVERSIONS))
        outcome = self.ensure()
        self.assertIn(f"ipv4 chain {KUBELET}: rewritten, 4 rules added", outcome.changes)
        self.assertEqual(len(outcome.turned), 2 * len(crowd))
        self.assert_chains()

    def test_other_names(self) -> None:
        """
        A chain whose name only begins like ours is someone else's.
        """
        name = f"{TUNNEL_ROOT}-HTTP"
        self.edit(NewChain(name), InsertText(name, "-j RETURN"), InsertText("OUTPUT", f"-p tcp -j {name}"))
        self.ensure()
        self.assert_chains()
        self.ensure(TunnelRules())
        self.edit(DeleteText(name, "-j RETURN"))

    def test_remove(self) -> None:
        """
        Wanting nothing leaves nothing of ours.
        """
        for family in FAMILIES:
            self.ensure(RULES, family)
            self.ensure(TunnelRules(), family)
            self.assertEqual((dict(self.seen(family).chains), list(self.seen(family).jumps)), ({}, []))

    def test_used_by_others(self) -> None:
        """
        A chain that rules of others lead to is left, empty, and that is told; all else goes.
        """
        self.ensure()
        self.edit(NewChain("OTHERS"), InsertText("OTHERS", f"-p tcp -j {TUNNEL_ROOT}"))
        self.assertEqual(self.ensure(), Outcome())
        outcome = self.ensure(TunnelRules())
        self.assertEqual(dict(self.seen().chains), {TUNNEL_ROOT: type(self.seen().chains[TUNNEL_ROOT])()})
        (problem,) = outcome.problems
        self.assertIn(f"chain {TUNNEL_ROOT} is left empty", problem)
        self.edit(DeleteText("OTHERS", f"-p tcp -j {TUNNEL_ROOT}"))
        self.assertEqual(self.ensure(TunnelRules()).problems, ())
        self.assertEqual(dict(self.seen().chains), {})

    def test_all_or_none(self) -> None:
        """
        When one change cannot be made none is.
        """
        self.ensure()
        self.assertRaises(FirewallError, self.edit, FlushChain(KUBELET), DeleteText(READ_ONLY, THEIRS))
        self.assertRaises(FirewallError, self.edit, FlushChain(KUBELET), NewChain(READ_ONLY))
        self.assertRaises(FirewallError, self.edit, FlushChain(KUBELET), InsertText(f"{TUNNEL_ROOT}-1", THEIRS))
        self.assert_chains()

    def test_comment_alone(self) -> None:
        """
        A rule with our comment that leads elsewhere is someone else's.
        """
        theirs = f'-p tcp -m comment --comment "{TUNNEL_COMMENT}" -j ACCEPT'
        self.edit(InsertText("OUTPUT", theirs))
        self.ensure()
        self.ensure(TunnelRules())
        self.edit(DeleteText("OUTPUT", theirs))
