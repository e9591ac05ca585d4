"""
Pretended kernels; the contract tests hold them to what the real ones do.
"""

from __future__ import annotations

from collections.abc import Sequence

from yurt.host.chains import (
    AppendText,
    ChainEdit,
    ChainSet,
    DeleteText,
    DropChain,
    FlushChain,
    InsertText,
    NewChain,
    SeenChains,
    split,
)
from yurt.host.errors import FirewallError, LinkError
from yurt.host.firewall import Family, InsertRule, Rule, RuleEdit, Slot, meaning
from yurt.host.links import AddAddress, CreateLink, DeleteLink, LinkEdit, RemoveAddress, SeenLink, SetUp


class FakeLinks:
    """
    A kernel with the given link types.  ``refused`` are addresses it will not take.
    """

    def __init__(self, kinds: tuple[str, ...] = ("tap",), refused: tuple[str, ...] = ()) -> None:
        self.kinds = kinds
        self.refused = refused
        self.links: dict[str, SeenLink] = {}

    def see(self, name: str) -> SeenLink | None:
        return self.links.get(name)

    def add_foreign(self, name: str, kind: str, *addresses: str, up: bool = False) -> None:
        """
        Put a link there as another program would.
        """
        self.links[name] = SeenLink(name, kind, up, frozenset(addresses))

    def apply(self, edit: LinkEdit) -> None:
        if isinstance(edit, CreateLink):
            kind = next((kind for kind in edit.kinds if kind in self.kinds), None)
            if kind is None or edit.name in self.links:
                raise LinkError(f"link {edit.name}: creating it")
            self.links[edit.name] = SeenLink(edit.name, kind, False, frozenset())
            return
        seen = self.links.get(edit.name)
        if seen is None:
            raise LinkError(f"link {edit.name}: No such device")
        if isinstance(edit, DeleteLink):
            del self.links[edit.name]
        elif isinstance(edit, SetUp):
            self.links[edit.name] = SeenLink(seen.name, seen.kind, True, seen.addresses)
        else:
            self.links[edit.name] = SeenLink(seen.name, seen.kind, seen.up, self._addresses(seen, edit))

    def _addresses(self, seen: SeenLink, edit: AddAddress | RemoveAddress) -> frozenset[str]:
        adding = isinstance(edit, AddAddress)
        if (edit.address in seen.addresses) == adding or (adding and edit.address in self.refused):
            raise LinkError(f"link {edit.name}: {edit.address}")
        return seen.addresses ^ {edit.address}


class FakeFirewall:
    """
    A firewall that holds rules in order.  ``busy`` is how many changes it refuses before it takes one.
    """

    name = "fake"

    def __init__(self, busy: int = 0) -> None:
        self.rules: list[Rule] = []
        self.busy = busy

    def see(self, family: Family, slots: Sequence[Slot], comment: str) -> list[Rule]:
        rules = [rule for rule in self.rules if rule.family == family and rule.comment == comment]
        return [rule for slot in slots for rule in rules if rule.slot == slot]

    def apply(self, family: Family, edits: Sequence[RuleEdit]) -> None:
        if self.busy:
            self.busy -= 1
            raise FirewallError("Resource temporarily unavailable")
        rules = list(self.rules)
        for edit in edits:
            if isinstance(edit, InsertRule):
                rules.insert(0, edit.rule)
                continue
            position = next((i for i, rule in enumerate(rules) if meaning(rule) == meaning(edit.rule)), None)
            if position is None:
                raise FirewallError("a rule to be deleted is gone")
            del rules[position]
        self.rules = rules


class FakeChains:
    """
    One table of each family.  ``busy`` is how many changes it refuses before it takes one.
    """

    name = "fake"

    def __init__(self, busy: int = 0) -> None:
        self.tables: dict[Family, dict[str, list[str]]] = {"ipv4": {"OUTPUT": []}, "ipv6": {"OUTPUT": []}}
        self.busy = busy

    def see(self, family: Family, wanted: ChainSet) -> SeenChains:
        table = self.tables[family]
        ours = {name: tuple(rules) for name, rules in table.items() if wanted.owns(name)}
        jumps = tuple(text for text in table[wanted.origin] if wanted.is_jump(text))
        theirs = [text for name, rules in table.items() for text in rules if name not in ours and text not in jumps]
        used = frozenset(name for name in ours if any(name in split(text) for text in theirs))
        return SeenChains(ours, jumps, used, wanted.is_barred(table[wanted.origin]))

    def apply(self, family: Family, table: str, edits: Sequence[ChainEdit]) -> None:
        if self.busy:
            self.busy -= 1
            raise FirewallError("Resource temporarily unavailable")
        chains = {name: list(rules) for name, rules in self.tables[family].items()}
        for edit in edits:
            apply_edit(chains, edit)
        self.tables[family] = chains


def apply_edit(chains: dict[str, list[str]], edit: ChainEdit) -> None:
    """
    Do to a table what a kernel would; raises FirewallError where a kernel would refuse.
    """
    if isinstance(edit, NewChain) == (edit.chain in chains):
        raise FirewallError(f"{edit.chain}: no chain of that name, or one too many")
    if isinstance(edit, NewChain):
        chains[edit.chain] = []
        return
    rules = chains[edit.chain]
    if isinstance(edit, FlushChain):
        rules.clear()
    elif isinstance(edit, DropChain):
        if rules or any(edit.chain in split(text) for others in chains.values() for text in others):
            raise FirewallError(f"{edit.chain}: not empty, or in use")
        del chains[edit.chain]
    elif isinstance(edit, InsertText):
        rules.insert(0, edit.text)
    elif isinstance(edit, AppendText):
        rules.append(edit.text)
    elif isinstance(edit, DeleteText):
        if edit.text not in rules:
            raise FirewallError(f"{edit.chain}: a rule to be deleted is gone")
        rules.remove(edit.text)
