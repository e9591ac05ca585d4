"""
What every kernel must do, real or pretended: mixed into one test case for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from yurt.host.errors import FirewallError, LinkError
from yurt.host.firewall import (
    FAMILIES,
    POD_COMMENT,
    POD_SLOTS,
    DeleteRule,
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
