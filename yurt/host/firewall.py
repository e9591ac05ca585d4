"""
Firewall rules as data, and the edits from what is seen to what is wanted.

A rule is spelled as ``iptables-save`` prints it.  Ours all carry one comment and stand in few known chains: that is how they are
found after a crash, and why nothing of anyone else's is ever touched.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from yurt.host.errors import FirewallError
from yurt.host.links import host_prefix

Family = Literal["ipv4", "ipv6"]
FAMILIES: tuple[Family, ...] = ("ipv4", "ipv6")

POD_COMMENT = "for container access hub agent"
"""The comment that OpenYurt puts on its rule for pods; here every rule carries it."""

ROUNDS = 5
"""How often rules are read, planned and applied when another program changes them at the same time."""

PAUSE = 0.1
"""Seconds between two such rounds; only the short-lived child ever waits like this."""

_IMPLIED_MATCHES = frozenset({"tcp", "udp", "sctp"})


@dataclass(frozen=True, slots=True)
class Slot:
    """
    A chain that rules of ours stand in.
    """

    table: str
    chain: str


@dataclass(frozen=True, slots=True)
class Rule:
    """
    One rule: where it stands and what it says, in the words and the order of ``iptables-save``.
    """

    family: Family
    slot: Slot
    spec: tuple[str, ...]

    @property
    def comment(self) -> str:
        """
        What the rule's comment says; empty without one.
        """
        for option, value in zip(self.spec, self.spec[1:]):
            if option == "--comment":
                return value
        return ""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """
    All rules of one owner.  ``comment``, plain words without quotes, is on each of them; ``slots`` are all chains they may
    stand in.
    """

    comment: str
    slots: tuple[Slot, ...]
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class InsertRule:
    """
    Put a rule at the head of its chain.
    """

    rule: Rule


@dataclass(frozen=True, slots=True)
class DeleteRule:
    """
    Take away one rule that says exactly this.
    """

    rule: Rule


RuleEdit = InsertRule | DeleteRule


class Firewall(Protocol):
    """
    The rules of one backend, real or pretended.
    """

    name: str

    def see(self, family: Family, slots: Sequence[Slot], comment: str) -> list[Rule]:
        """
        Read the rules in those chains that carry the comment, in order.  Raises FirewallError.
        """

    def apply(self, family: Family, edits: Sequence[RuleEdit]) -> None:
        """
        Make all changes, in order, all or none within a table.  Raises FirewallError.
        """


POD_SLOTS = (Slot("raw", "PREROUTING"), Slot("raw", "OUTPUT"), Slot("filter", "INPUT"), Slot("filter", "OUTPUT"))


def pod_rules(addresses: Iterable[str], ports: Iterable[int], tracked: Collection[int] = ()) -> RuleSet:
    """
    The rules for the addresses that pods reach: OpenYurt's (reference: pkg/yurthub/network/iptables.go of v0.4 to v0.7).

    Connections to and from the proxy are not tracked, so that they survive a full or flushed conntrack table, and are accepted
    whatever else the host's filter says.  Those to ports that are ``tracked`` are accepted only: kube-proxy leads connections
    there whose answers must get their first address back.
    """
    ports = tuple(ports)
    rules = tuple(rule for address in addresses for port in ports for rule in _proxy_rules(address, port, port in tracked))
    return RuleSet(POD_COMMENT, POD_SLOTS, rules)


def _proxy_rules(address: str, port: int, is_tracked: bool) -> list[Rule]:
    host = host_prefix(address)
    family: Family = "ipv6" if ":" in host else "ipv4"
    comment = ("-m", "comment", "--comment", POD_COMMENT, "-j")
    to_proxy = ("-d", host, "-p", "tcp", "-m", "tcp", "--dport", str(port), *comment)
    from_proxy = ("-s", host, "-p", "tcp", "-m", "tcp", "--sport", str(port), *comment)
    untracked = [
        Rule(family, Slot("raw", "PREROUTING"), (*to_proxy, "NOTRACK")),
        Rule(family, Slot("raw", "OUTPUT"), (*to_proxy, "NOTRACK")),
        Rule(family, Slot("raw", "OUTPUT"), (*from_proxy, "NOTRACK")),
    ]
    accepted = [
        Rule(family, Slot("filter", "INPUT"), (*to_proxy, "ACCEPT")),
        Rule(family, Slot("filter", "OUTPUT"), (*from_proxy, "ACCEPT")),
    ]
    return accepted if is_tracked else [*untracked, *accepted]


def meaning(rule: Rule) -> tuple[Family, Slot, frozenset[tuple[str, ...]]]:
    """
    What a rule says and where, however its tool spells it, for comparing.
    """
    return rule.family, rule.slot, clauses(rule.spec)


def clauses(spec: Sequence[str]) -> frozenset[tuple[str, ...]]:
    """
    What the words of a rule say, however its tool spells it, for comparing.

    Tools differ in the order of the matches, in naming the protocol's own match, and write NOTRACK also as CT --notrack.
    """
    found: list[tuple[str, ...]] = []
    negated = False
    for word in spec:
        if word == "!":
            negated = True
        elif (word.startswith("-") and len(word) > 1) or not found:
            found.append(("!", word) if negated else (word,))
            negated = False
        else:
            found[-1] = (*found[-1], word)
    said = {c for c in found if c[0] != "-m" or c[1] not in _IMPLIED_MATCHES}
    if {("-j", "CT"), ("--notrack",)} <= said:
        said = said - {("-j", "CT"), ("--notrack",)} | {("-j", "NOTRACK")}
    return frozenset(said)


def plan(seen: Sequence[Rule], wanted: Sequence[Rule]) -> list[RuleEdit]:
    """
    Decide the edits that leave of our seen rules exactly the wanted ones, each once; none when all is well.

    Where among the others a rule stands is not corrected: two programs that both want the first place would never end.
    """
    missing = {meaning(rule): rule for rule in wanted}
    edits: list[RuleEdit] = []
    for rule in seen:
        if missing.pop(meaning(rule), None) is None:
            edits.append(DeleteRule(rule))
    # Each goes to the head, so that the last in goes first.
    edits.extend(InsertRule(rule) for rule in reversed(missing.values()))
    return edits


def ensure_rules(firewall: Firewall, family: Family, rules: RuleSet) -> list[str]:
    """
    Read, plan and apply until the family's rules are as wanted; returns the changes made as sentences.

    Tries again when another program changed the same tables meanwhile.  Raises FirewallError.
    """
    wanted = [rule for rule in rules.rules if rule.family == family]
    for attempt in range(ROUNDS):
        edits = plan(firewall.see(family, rules.slots, rules.comment), wanted)
        if not edits:
            return []
        try:
            firewall.apply(family, edits)
        except FirewallError:
            if attempt == ROUNDS - 1:
                raise
            time.sleep(PAUSE)
        else:
            return [describe(edit) for edit in edits]
    return []


def describe(edit: RuleEdit) -> str:
    """
    Say in a few words what an edit does.
    """
    rule = edit.rule
    doing = "inserted" if isinstance(edit, InsertRule) else "deleted"
    return f"{doing} {rule.family} rule in {rule.slot.table} {rule.slot.chain}: {' '.join(rule.spec)}"
