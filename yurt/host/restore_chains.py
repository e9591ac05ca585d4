"""
Our chains on hosts on nf_tables, through ``iptables-save`` and ``iptables-restore --noflush``.
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
)
from yurt.host.firewall import Family
from yurt.host.iptables_restore_edge import restore_tool
from yurt.host.tools import run_tool

_COMMANDS: dict[type, str] = {
    NewChain: "-N",
    FlushChain: "-F",
    DropChain: "-X",
    InsertText: "-I",
    AppendText: "-A",
    DeleteText: "-D",
}


class RestoreChains:
    """
    Chains of the nf_tables flavour.  iptables-restore commits a table at a time, in one transaction of the kernel.
    """

    name = "nf_tables"

    def see(self, family: Family, wanted: ChainSet) -> SeenChains:
        """
        Read what there is of that owner.  Raises FirewallError.
        """
        return parse_chains(run_tool([restore_tool(family, "save"), "-t", wanted.table]), wanted)

    def apply(self, family: Family, table: str, edits: Sequence[ChainEdit]) -> None:
        """
        Make all changes, in order.  Raises FirewallError; the table is then as it was.
        """
        run_tool([restore_tool(family, "restore"), "--noflush"], edit_text(table, edits))


def parse_chains(text: str, wanted: ChainSet) -> SeenChains:
    """
    Read what ``iptables-save`` printed of one table.
    """
    chains: dict[str, list[str]] = {}
    origin = []
    used = set()
    for line in text.splitlines():
        if line.startswith(":"):
            name = line[1:].partition(" ")[0]
            if wanted.owns(name):
                chains[name] = []
        elif line.startswith("-A "):
            name, _, rule = line[3:].partition(" ")
            if name in chains:
                chains[name].append(rule)
                continue
            if name == wanted.origin:
                origin.append(rule)
                if wanted.is_jump(rule):
                    continue
            if (target := wanted.target(rule)) is not None:
                used.add(target)
    jumps = list(filter(wanted.is_jump, origin))
    return SeenChains(chains, jumps, frozenset(used), wanted.is_barred(origin))


def edit_text(table: str, edits: Sequence[ChainEdit]) -> str:
    """
    Write edits as the input of ``iptables-restore --noflush``.
    """
    lines = [f"*{table}"]
    for edit in edits:
        rule = "" if isinstance(edit, NewChain | FlushChain | DropChain) else f" {edit.text}"
        lines.append(f"{_COMMANDS[type(edit)]} {edit.chain}{rule}")
    return "\n".join([*lines, "COMMIT", ""])
