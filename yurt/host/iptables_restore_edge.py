"""
Firewall rules of hosts on nf_tables, through ``iptables-save`` and ``iptables-restore --noflush``.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import groupby
from typing import Literal

from yurt.host.errors import FirewallError
from yurt.host.firewall import Family, InsertRule, Rule, RuleEdit, Slot
from yurt.host.tools import find_tool, run_tool


class RestoreFirewall:
    """
    Rules of the nf_tables flavour.  Each table is changed in one transaction: iptables-restore commits a table at a time.
    """

    name = "nf_tables"

    def see(self, family: Family, slots: Sequence[Slot], comment: str) -> list[Rule]:
        """
        Read the rules in those chains that carry the comment, in order.  Raises FirewallError.
        """
        program = restore_tool(family, "save")
        rules = []
        for table in dict.fromkeys(slot.table for slot in slots):
            rules += parse_rules(family, run_tool([program, "-t", table]), comment)
        return [rule for rule in rules if rule.slot in slots]

    def apply(self, family: Family, edits: Sequence[RuleEdit]) -> None:
        """
        Make all changes, in order.  Raises FirewallError; the table it names is then as it was.
        """
        run_tool([restore_tool(family, "restore"), "--noflush"], restore_text(edits))


def restore_tool(family: Family, verb: Literal["save", "restore"]) -> str:
    """
    The program that reads or changes the rules of a family.  Raises FirewallError.
    """
    program = find_tool(family, "nft", verb)
    if program is None:
        raise FirewallError(f"no iptables-{verb} for {family} on this host: install the package iptables")
    return program


def parse_rules(family: Family, text: str, comment: str) -> list[Rule]:
    """
    Read from what ``iptables-save`` printed the rules that carry the comment.
    """
    rules = []
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A ") and comment in line:
            _, chain, *spec = shlex.split(line)
            rules.append(Rule(family, Slot(table, chain), tuple(spec)))
    return [rule for rule in rules if rule.comment == comment]


def restore_text(edits: Sequence[RuleEdit]) -> str:
    """
    Write edits as the input of ``iptables-restore --noflush``.
    """
    lines = []
    for table, of_table in groupby(sorted(edits, key=_table), key=_table):
        lines.append(f"*{table}")
        for edit in of_table:
            command = "-I" if isinstance(edit, InsertRule) else "-D"
            lines.append(" ".join([command, edit.rule.slot.chain, *map(quote, edit.rule.spec)]))
        lines.append("COMMIT")
    return "\n".join([*lines, ""])


def _table(edit: RuleEdit) -> str:
    return edit.rule.slot.table


def quote(word: str) -> str:
    """
    A word as iptables-save writes it.
    """
    # iptables-restore knows double quotes and the backslash within them, nothing else of a shell.
    if word and not any(c.isspace() or c in "\"'\\" for c in word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
