"""
Firewall rules of hosts on the legacy tables, through python-iptables.

Imported by the short-lived child only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_interface
from typing import Any

from yurt.host.errors import FirewallError
from yurt.host.firewall import Family, InsertRule, Rule, RuleEdit, Slot, meaning
from yurt.host.libraries import quick_search
from yurt.host.tools import xtables_lock

with quick_search():
    import iptc
    from iptc.xtables import XTablesError

_TABLES: dict[Family, Any] = {"ipv4": iptc.Table, "ipv6": iptc.Table6}
_RULES: dict[Family, Any] = {"ipv4": iptc.Rule, "ipv6": iptc.Rule6}
ENTRIES: dict[Family, Any] = {"ipv4": iptc.ip4tc.ipt_entry, "ipv6": iptc.ip6tc.ip6t_entry}
"""What the kernel has of a rule, up to its matches."""

_LOADED: dict[Family, str] = {"ipv4": "/proc/net/ip_tables_names", "ipv6": "/proc/net/ip6_tables_names"}
_FIELDS = {"-s": "src", "-d": "dst", "-p": "protocol", "-i": "in_interface", "-o": "out_interface"}
_EVERY = frozenset({"0.0.0.0/0.0.0.0", "::/0", "ip", None})
UNREADABLE = (iptc.IPTCError, XTablesError, ValueError, AttributeError)
"""What iptc raises for a rule that it does not understand."""

_NOTRACK_ALIAS = 2  # XT_CT_NOTRACK_ALIAS of linux/netfilter/xt_CT.h


class LegacyFirewall:
    """
    Rules of the legacy tables.  Each table is changed in one commit.
    """

    name = "legacy"

    def see(self, family: Family, slots: Sequence[Slot], comment: str) -> list[Rule]:
        """
        Read the rules in those chains that carry the comment, in order.  Raises FirewallError.

        A table that the kernel has not loaded holds no rule, and is not loaded by looking.
        """
        loaded = loaded_tables(family)
        present = [slot for slot in slots if slot.table in loaded]
        rules = [rule for slot in present for rule, _ in _commented(open_table(family, slot.table), family, slot)]
        return [rule for rule in rules if rule.comment == comment]

    def apply(self, family: Family, edits: Sequence[RuleEdit]) -> None:
        """
        Make all changes, in order.  Raises FirewallError; the table it names is then as it was.
        """
        for name in dict.fromkeys(edit.rule.slot.table for edit in edits):
            with changing(family, name) as table:
                for edit in edits:
                    if edit.rule.slot.table == name:
                        _apply(table, edit)


def loaded_tables(family: Family) -> frozenset[str]:
    """
    The legacy tables that this network namespace has.
    """
    try:
        with open(_LOADED[family]) as names:
            return frozenset(names.read().split())
    except FileNotFoundError:
        return frozenset()
    except PermissionError as error:
        raise FirewallError("reading the legacy tables: operation not permitted (needs CAP_NET_ADMIN)") from error


def open_table(family: Family, name: str) -> Any:
    """
    What the kernel has of a table now, as iptc's object; nothing is committed unasked.  Raises FirewallError.
    """
    kind = _TABLES[family]
    # To tell a target from a chain, iptc opens every table there is; that would load nat, and with it connection tracking.
    kind.existing_table_names.update((other, False) for other in kind.ALL if other != name)
    kind.existing_table_names[name] = True
    try:
        # One object per table and process, which commits whatever it holds when it is read again, unless told not to.  A new one
        # has read the table, which takes a tenth of the time of a change where it holds thousands of rules.
        is_new = name not in kind._cache
        table = kind(name, autocommit=False)
        if not is_new:
            table.refresh()
    except iptc.IPTCError as error:
        raise FirewallError(f"opening the legacy {family} table {name}: {reason_of(error)}") from error
    return table


@contextmanager
def changing(family: Family, name: str) -> Iterator[Any]:
    """
    Change a table within the block, which has iptc's object, in one commit at its end.  Raises FirewallError; the table is then
    as it was.

    The kernel notices another writer only by the number of rules; who replaces one rule meanwhile would be overruled.  So the
    lock of iptables is held, as iptables itself does.
    """
    with xtables_lock():
        table = open_table(family, name)
        try:
            yield table
            table.commit()
        except (iptc.IPTCError, XTablesError, ValueError) as error:
            raise FirewallError(f"changing the legacy {family} table {name}: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """
    Why iptc failed, and what to do.
    """
    text = str(error).replace("b'", "").rstrip("'")
    if "ermission denied" in text or "not permitted" in text:
        return "operation not permitted (needs CAP_NET_ADMIN)"
    if "does not exist" in text:
        return f"{text} (load the kernel modules ip_tables, iptable_filter and iptable_raw)"
    return text


def _commented(table: Any, family: Family, slot: Slot) -> list[tuple[Rule, Any]]:
    """
    The rules of a chain that have a comment, each with iptc's object.  What iptc cannot read is none of ours.
    """
    if not table.is_chain(slot.chain):
        return []
    found = []
    for entry in iptc.Chain(table, slot.chain).rules:
        try:
            if any(match.name == "comment" for match in entry.matches):
                found.append((Rule(family, slot, read_spec(entry)), entry))
        except UNREADABLE:
            continue
    return found


def _apply(table: Any, edit: RuleEdit) -> None:
    rule = edit.rule
    if isinstance(edit, InsertRule):
        table.insert_entry(rule.slot.chain, make_entry(rule).rule, 0)
        return
    for seen, entry in _commented(table, rule.family, rule.slot):
        if meaning(seen) == meaning(rule):
            # Not Chain.delete_rule: its final check forgets the NOTRACK mark, and the rule would not be found.
            table.delete_entry(rule.slot.chain, entry.rule, entry.mask)
            return
    raise ValueError("a rule to be deleted is gone")


def make_entry(rule: Rule) -> Any:
    """
    Build iptc's object from the words of a rule.
    """
    entry = _RULES[rule.family]()
    part: Any = entry
    words = iter(rule.spec)
    for word in words:
        if word in _FIELDS:
            setattr(entry, _FIELDS[word], next(words))
        elif word == "-m":
            part = entry.create_match(next(words))
        elif word in ("-j", "-g"):
            part = _target(entry, next(words), word == "-g")
        else:
            setattr(part, word.lstrip("-").replace("-", "_"), next(words))
    entry.final_check()
    if rule.spec[-1] == "NOTRACK":
        # As iptables itself marks it; after the final check, which forgets it.
        ctypes.cast(entry.target.target.data, ctypes.POINTER(ctypes.c_uint16))[0] |= _NOTRACK_ALIAS
    return entry


def _target(entry: Any, name: str, goto: bool) -> Any:
    if name != "NOTRACK":
        return entry.create_target(name, goto=goto)
    # An alias that iptc resolves without the flag that makes it one: the rule would do nothing.
    target = entry.create_target("CT")
    target.notrack = ""
    return target


def read_spec(entry: Any) -> tuple[str, ...]:
    """
    The words of a rule from iptc's object.
    """
    words: list[str] = []
    for option, field in _FIELDS.items():
        value = getattr(entry, field)
        if value not in _EVERY:
            words += _signed(option, _cidr(value) if option in ("-s", "-d") else value)
    for match in entry.matches:
        words += ["-m", match.name, *_parameters(match)]
    target = entry.target
    if target is None:
        return tuple(words)
    return (*words, "-g" if target.goto else "-j", target.name, *_parameters(target))


def _parameters(part: Any) -> list[str]:
    words = []
    for name, values in part.get_all_parameters().items():
        values = [values] if isinstance(values, str) else list(values)
        if values[:1] == ["!"]:
            words.append("!")
            values = values[1:]
        words += ["--" + name.replace("_", "-"), *values]
    return words


def _signed(option: str, value: str) -> list[str]:
    return ["!", option, value[1:]] if value.startswith("!") else [option, value]


def _cidr(value: str) -> str:
    sign = "!" if value.startswith("!") else ""
    return sign + str(ip_interface(value.lstrip("!")))
