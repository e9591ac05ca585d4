"""
Pretended kernels; the contract tests hold them to what the real ones do.
"""

from __future__ import annotations

from collections.abc import Sequence

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
