"""
Chains that are wholly ours, and the one rule in a chain of others that leads to them: as data, and the edits from what is seen
to what is wanted.

A rule is a text as ``iptables-save`` prints it behind the name of its chain: ten thousand of them are read, compared and
written, and comparing texts is what that leaves time for.
"""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from yurt.host.errors import FirewallError, NotApplied
from yurt.host.firewall import PAUSE, ROUNDS, Family, clauses

MAX_DELETIONS = 64
"""Rules that are deleted one by one from a chain; for more it is written anew, since each is looked for in the whole chain."""

_VERDICTS = frozenset({"ACCEPT", "RETURN", "DROP", "DNAT", "REDIRECT", "NETMAP"})
_INDIFFERENT = ("--comment", "--to-destination", "--to-ports", "--to", "--random", "--persistent")


@dataclass(frozen=True, slots=True)
class Chain:
    """
    A chain of ours: the rules of ``heads`` in any order, behind them those of ``tail`` in this order.
    """

    name: str
    heads: tuple[str, ...]
    tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChainSet:
    """
    All chains of one owner in one table of one family.

    Whatever is called ``root``, or ``root`` with a number behind a dash, is ours, with all that stands in it.  ``jump`` is the
    rule that leads to ``root`` from the chain ``origin``, which is not ours; it is known by ``comment``.  Where ``chains`` is
    empty nothing of ours is to be left.
    """

    table: str
    root: str
    origin: str
    comment: str
    jump: str
    chains: tuple[Chain, ...]

    def owns(self, name: str) -> bool:
        """
        Whether a chain of that name is ours.
        """
        stem, _, number = name.rpartition("-")
        return name == self.root or (stem == self.root and number.isascii() and number.isdigit())

    def target(self, text: str) -> str | None:
        """
        The chain of ours that a rule leads to.
        """
        if self.root not in text:
            return None
        words = split(text)
        return next((word for option, word in zip(words, words[1:]) if option in ("-j", "-g") and self.owns(word)), None)

    def is_jump(self, text: str) -> bool:
        """
        Whether a rule of ``origin`` is ours.
        """
        words = split(text) if self.root in text else []
        said = list(zip(words, words[1:]))
        return ("--comment", self.comment) in said and ("-j", self.root) in said

    def is_barred(self, origin: Iterable[str]) -> bool:
        """
        Whether, of the rules of ``origin`` in their order, one before the first jump of ours takes all connections that are to
        be ours, or all of a port.  One for some of them, such as those to one destination, is somebody's will and does not count.
        """
        for text in origin:
            if self.is_jump(text):
                return False
            if self._takes_all(text):
                return True
        return False

    def _takes_all(self, text: str) -> bool:
        ports = {chain.name.removeprefix(f"{self.root}-") for chain in self.chains}
        said = clauses(split(text))
        ends = [clause for clause in said if clause[0] == "-j" and clause[1:] and clause[1] in _VERDICTS]
        plain = {("-p", "tcp"), ("-m", "comment"), *ends, *(("--dport", port) for port in ports)}
        return bool(ends) and all(clause in plain or clause[0] in _INDIFFERENT for clause in said)


@dataclass(frozen=True, slots=True)
class SeenChains:
    """
    What there is: the rules of each chain of ours, our rules in the chain of others, and those of our chains that rules of others
    lead to.  ``barred`` says that a rule of others takes all connections before they get to the first of ours.
    """

    chains: Mapping[str, Sequence[str]]
    jumps: Sequence[str]
    used: frozenset[str] = frozenset()
    barred: bool = False


@dataclass(frozen=True, slots=True)
class NewChain:
    """
    Make an empty chain.
    """

    chain: str


@dataclass(frozen=True, slots=True)
class FlushChain:
    """
    Delete all rules of a chain.
    """

    chain: str


@dataclass(frozen=True, slots=True)
class DropChain:
    """
    Delete an empty chain.
    """

    chain: str


@dataclass(frozen=True, slots=True)
class InsertText:
    """
    Put a rule at the head of a chain.
    """

    chain: str
    text: str


@dataclass(frozen=True, slots=True)
class AppendText:
    """
    Put a rule at the end of a chain.
    """

    chain: str
    text: str


@dataclass(frozen=True, slots=True)
class DeleteText:
    """
    Take away the first rule of a chain that says exactly this.
    """

    chain: str
    text: str


ChainEdit = NewChain | FlushChain | DropChain | InsertText | AppendText | DeleteText


class ChainFirewall(Protocol):
    """
    The chains of one backend, real or pretended.
    """

    name: str

    def see(self, family: Family, wanted: ChainSet) -> SeenChains:
        """
        Read what there is of that owner.  Raises FirewallError.
        """

    def apply(self, family: Family, table: str, edits: Sequence[ChainEdit]) -> None:
        """
        Make all changes, in order, all or none: there is no moment at which some of them hold.  Raises FirewallError.
        """


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What was done, and what could not be, as sentences; and the rules, by chain, that chains which stay have gained or lost, with
    the tails of those that nothing went through before.
    """

    changes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    turned: tuple[tuple[str, str], ...] = ()


def split(text: str) -> list[str]:
    """
    The words of a rule; none when its quotes do not match.
    """
    try:
        return shlex.split(text)
    except ValueError:
        return []


def as_wanted(wanted: ChainSet) -> SeenChains:
    """
    What is seen when all is as wanted.
    """
    chains = {chain.name: (*chain.heads, *chain.tail) for chain in wanted.chains}
    return SeenChains(chains, (wanted.jump,) if chains else ())


def plan(seen: SeenChains, wanted: ChainSet) -> list[ChainEdit]:
    """
    Decide the edits that leave of our chains exactly the wanted ones; none when all is well.

    A chain of ours that rules of others lead to cannot be deleted; it is left empty.
    """
    names = {chain.name for chain in wanted.chains}
    stale = [name for name in seen.chains if name not in names]
    edits: list[ChainEdit] = [NewChain(chain.name) for chain in wanted.chains if chain.name not in seen.chains]
    for chain in wanted.chains:
        edits += _fill(chain, seen.chains.get(chain.name, ()))
    edits += _lead(seen, wanted)
    # A chain can be deleted when nothing leads to it any more, and they lead to each other.
    edits += [FlushChain(name) for name in stale if seen.chains[name]]
    edits += [DropChain(name) for name in stale if name not in seen.used]
    return edits


def _fill(chain: Chain, seen: Sequence[str]) -> list[ChainEdit]:
    """
    Edits of one chain: a few where a few rules differ, all of it where its end is wrong or much differs.
    """
    wanted = (*chain.heads, *chain.tail)
    said = _respell(seen, wanted)
    tail_at = len(said) - len(chain.tail)
    missing = dict.fromkeys(chain.heads)
    surplus = []
    for text, meant in zip(seen[:tail_at], said[:tail_at]):
        if meant in missing:
            del missing[meant]
        else:
            surplus.append(text)
    if seen and tuple(said[tail_at:]) == chain.tail and len(surplus) <= MAX_DELETIONS:
        return [*(DeleteText(chain.name, text) for text in surplus), *(InsertText(chain.name, text) for text in missing)]
    edits: list[ChainEdit] = [FlushChain(chain.name)] if seen else []
    return [*edits, *(AppendText(chain.name, text) for text in wanted)]


def _lead(seen: SeenChains, wanted: ChainSet) -> list[ChainEdit]:
    """
    Leave one jump in the chain of others, or none.  Where in that chain it stands is corrected only where nothing gets to it:
    two programs that both want the first place would never end.
    """
    jumps = list(seen.jumps)
    if not wanted.chains:
        return [DeleteText(wanted.origin, jump) for jump in jumps]
    if seen.barred:
        # Of two rules that say the same the first is deleted.
        return [*(DeleteText(wanted.origin, jump) for jump in jumps), InsertText(wanted.origin, wanted.jump)]
    said = _respell(jumps, [wanted.jump])
    if wanted.jump not in said:
        # The new one first: its own comment is also on those that are deleted.
        return [InsertText(wanted.origin, wanted.jump), *(DeleteText(wanted.origin, jump) for jump in jumps)]
    del jumps[said.index(wanted.jump)]
    return [DeleteText(wanted.origin, jump) for jump in jumps]


def _respell(seen: Sequence[str], wanted: Iterable[str]) -> Sequence[str]:
    """
    Say in the words of ``wanted`` what means the same: tools differ in the order of the matches, and in naming them.
    """
    known = set(wanted)
    missing = known.difference(seen)
    if not missing or known.issuperset(seen):
        return seen
    by_meaning = {clauses(split(text)): text for text in missing}
    return [text if text in known else by_meaning.get(clauses(split(text)), text) for text in seen]


def outcome(family: Family, seen: SeenChains, wanted: ChainSet, edits: Sequence[ChainEdit]) -> Outcome:
    """
    What those edits mean to people, and to connections that are open.
    """
    names = {chain.name for chain in wanted.chains}
    kept = sorted(name for name in seen.used if name in seen.chains and name not in names)
    problems = [f"{family} chain {name} is left empty: rules of others lead to it; delete them" for name in kept]
    turned: list[tuple[str, str]] = []
    joined = any(isinstance(edit, InsertText) and edit.chain == wanted.origin for edit in edits)
    for chain in wanted.chains:
        before = seen.chains.get(chain.name, ())
        if joined or not before:
            turned += [(chain.name, text) for text in chain.tail]
        if before:
            differing = set(_respell(before, chain.heads)).symmetric_difference(chain.heads)
            turned += [(chain.name, text) for text in sorted(differing.difference(chain.tail))]
    return Outcome(tuple(_sentences(family, edits)), tuple(problems), tuple(turned))


def _sentences(family: Family, edits: Sequence[ChainEdit]) -> list[str]:
    counts: dict[str, Counter[type]] = {}
    for edit in edits:
        counts.setdefault(edit.chain, Counter())[type(edit)] += 1
    return [f"{family} chain {chain}: {_sentence(count)}" for chain, count in counts.items()]


def _sentence(count: Counter[type]) -> str:
    added = count[InsertText] + count[AppendText]
    parts = []
    if count[DropChain]:
        parts.append("deleted")
    elif count[NewChain]:
        parts.append("made")
    elif count[FlushChain]:
        parts.append("rewritten" if added else "emptied")
    if added:
        parts.append(f"{added} rule{'s'[: added != 1]} added")
    if count[DeleteText]:
        parts.append(f"{count[DeleteText]} rule{'s'[: count[DeleteText] != 1]} deleted")
    return ", ".join(parts)


def ensure_chains(firewall: ChainFirewall, family: Family, wanted: ChainSet) -> Outcome:
    """
    Read, plan and apply until the chains are as wanted.

    Tries again when another program changed the same table meanwhile.  Raises FirewallError, NotApplied when it could be read.
    """
    attempt = 1
    while True:
        seen = firewall.see(family, wanted)
        edits = plan(seen, wanted)
        try:
            if edits:
                firewall.apply(family, wanted.table, edits)
            return outcome(family, seen, wanted, edits)
        except FirewallError as error:
            if attempt == ROUNDS:
                raise NotApplied(str(error)) from error
        attempt += 1
        time.sleep(PAUSE)


def change_chains(firewall: ChainFirewall, family: Family, before: ChainSet, wanted: ChainSet) -> Outcome:
    """
    Apply only the difference between two sets, the first of which is believed to be there.

    Raises FirewallError when it turns out not to be; what is missing without being touched stays unnoticed.
    """
    seen = as_wanted(before)
    edits = plan(seen, wanted)
    if edits:
        firewall.apply(family, wanted.table, edits)
    return outcome(family, seen, wanted, edits)
