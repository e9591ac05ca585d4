"""
Our chains on hosts on the legacy tables, through python-iptables.

Imported by the short-lived child only.  iptc takes half a millisecond to read or make a rule; there are thousands that differ in
their address alone, so each kind is read or made once, and the address exchanged in the bytes that the kernel has of a rule.
"""

from __future__ import annotations

import ctypes
import re
import shlex
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from yurt.host.chains import (
    AppendText,
    ChainEdit,
    ChainSet,
    DropChain,
    FlushChain,
    InsertText,
    NewChain,
    SeenChains,
)
from yurt.host.firewall import Family, Rule, Slot
from yurt.host.fork import in_fork
from yurt.host.iptables_restore_edge import quote
from yurt.host.iptc_edge import ENTRIES, UNREADABLE, changing, loaded_tables, make_entry, open_table, read_spec

_HOST = re.compile(r"-d ([0-9a-f.:]+)/(?:32|128) ")


@dataclass(frozen=True, slots=True)
class _Layout:
    """
    Where in the bytes of a rule the destination and the counters are; matches and target follow the counters.
    """

    kind: int
    anywhere: str
    destination: slice
    counters: slice


def _layout(family: Family) -> _Layout:
    counters = ENTRIES[family].counters
    place = slice(counters.offset, counters.offset + counters.size)
    # An entry begins with source and destination.
    if family == "ipv4":
        return _Layout(socket.AF_INET, "0.0.0.0/32", slice(4, 8), place)
    return _Layout(socket.AF_INET6, "::/128", slice(16, 32), place)


class LegacyChains:
    """
    Chains of the legacy tables.  A table is changed in one commit, which replaces all of it at once.
    """

    name = "legacy"

    def see(self, family: Family, wanted: ChainSet) -> SeenChains:
        """
        Read what there is of that owner.  Raises FirewallError.

        A table that the kernel has not loaded holds no chain, and is not loaded by looking.
        """
        if wanted.table not in loaded_tables(family):
            return SeenChains({}, ())
        return in_fork(_see, family, wanted)

    def apply(self, family: Family, table: str, edits: Sequence[ChainEdit]) -> None:
        """
        Make all changes, in order.  Raises FirewallError; the table is then as it was.
        """
        in_fork(_apply_all, family, table, edits)


# libxtables is made for one family in a process: since iptables 1.8.8 it finds DNAT for the first one alone.  So both of these
# run in processes of their own.


def _see(family: Family, wanted: ChainSet) -> SeenChains:
    table = open_table(family, wanted.table)
    reader = _Reader(family, table)
    chains = {chain.name: list(reader.texts(chain)) for chain in table.chains if wanted.owns(chain.name)}
    origins = [chain for chain in table.chains if chain.name == wanted.origin]
    origin = [text for chain in origins for text in reader.texts(chain)]
    jumps = list(filter(wanted.is_jump, origin))
    known = Counter(wanted.target(text) for texts in (*chains.values(), jumps) for text in texts)
    used = {name for name in chains if _references(table, name) > known[name]}
    return SeenChains(chains, jumps, frozenset(used), wanted.is_barred(origin))


def _apply_all(family: Family, table: str, edits: Sequence[ChainEdit]) -> None:
    with changing(family, table) as opened:
        writer = _Writer(family, table)
        for edit in edits:
            _apply(opened, writer, edit)


def _references(table: Any, name: str) -> int:
    count = ctypes.c_uint()
    table._iptc.iptc_get_references(ctypes.byref(count), name.encode(), table._handle)
    return count.value


def _apply(table: Any, writer: _Writer, edit: ChainEdit) -> None:
    if isinstance(edit, NewChain):
        table.create_chain(edit.chain)
    elif isinstance(edit, FlushChain):
        table.flush_entries(edit.chain)
    elif isinstance(edit, DropChain):
        table.delete_chain(edit.chain)
    elif isinstance(edit, InsertText):
        table.insert_entry(edit.chain, writer.rule(edit.text)[0], 0)
    elif isinstance(edit, AppendText):
        table.append_entry(edit.chain, writer.rule(edit.text)[0])
    else:
        table.delete_entry(edit.chain, *writer.rule(edit.text))


class _Reader:
    """
    Reads the rules of chains as texts.
    """

    def __init__(self, family: Family, table: Any) -> None:
        self._layout = _layout(family)
        self._table = table
        self._masks: dict[int, list[int]] = {}
        self._texts: dict[int, tuple[str, str] | str] = {}

    def texts(self, chain: Any) -> Iterator[str]:
        """
        The rules of a chain, iptc's object, in order.
        """
        calls, handle = self._table._iptc, self._table._handle
        entry = calls.iptc_first_rule(chain.name.encode(), handle)
        while entry:
            yield self._text(chain, entry)
            entry = calls.iptc_next_rule(entry, handle)

    def _text(self, chain: Any, entry: Any) -> str:
        data = ctypes.string_at(entry, entry[0].next_offset)
        number = int.from_bytes(data, "little")
        known = None
        for mask in self._masks.get(len(data), ()):
            known = known or self._texts.get(number & mask)
        if known is None:
            known = self._learn(chain, entry, data)
        if isinstance(known, str):
            return known
        return f"{known[0]}{socket.inet_ntop(self._layout.kind, data[self._layout.destination])}{known[1]}"

    def _learn(self, chain: Any, entry: Any, data: bytes) -> tuple[str, str] | str:
        try:
            text = " ".join(map(quote, read_spec(self._table.create_rule(entry[0], chain))))
        except UNREADABLE:
            text = "unreadable"  # in a chain of ours it is none that is wanted, elsewhere none of ours
        found = _HOST.match(text)
        known = (text[: found.start(1)], text[found.end(1) :]) if found else text
        mask = _mask(data, entry[0].target_offset, self._layout, found is not None)
        masks = self._masks.setdefault(len(data), [])
        if mask not in masks:
            masks.append(mask)
        self._texts[int.from_bytes(data, "little") & mask] = known
        return known


def _mask(data: bytes, target_offset: int, layout: _Layout, one_host: bool) -> int:
    """
    The bits of a rule that tell its kind.

    Not among them are the counters, the destination of a rule for one host, and what follows the names of matches and target: the
    kernel writes these as long as they are, and behind them is whatever was in the memory before.
    """
    mask = bytearray(b"\xff" * len(data))
    mask[layout.counters] = bytes(layout.counters.stop - layout.counters.start)
    if one_host:
        mask[layout.destination] = bytes(layout.destination.stop - layout.destination.start)
    at = layout.counters.stop
    while at < len(data):
        # struct xt_entry_match, struct xt_entry_target: u16 size, char name[29], u8 revision
        size = int.from_bytes(data[at : at + 2], sys.byteorder) if at < target_offset else len(data) - at
        end = data.index(b"\0", at + 2) + 1
        mask[end : at + 31] = bytes(at + 31 - end)
        at += size
    return int.from_bytes(mask, "little")


class _Writer:
    """
    Makes the bytes of rules, and the mask that tells which of them count when a rule is looked for.
    """

    def __init__(self, family: Family, table: str) -> None:
        self._family = family
        self._slot = Slot(table, "")
        self._layout = _layout(family)
        self._made: dict[str, tuple[bytes, Any]] = {}

    def rule(self, text: str) -> tuple[Any, Any]:
        """
        Bytes and mask of a rule.  Raises ValueError when it cannot be said in bytes.
        """
        found = _HOST.match(text)
        if found is None:
            data, mask = self._make(text)
        else:
            data, mask = self._make(f"-d {self._layout.anywhere} {text[found.end() :]}")
            at = self._layout.destination
            data = data[: at.start] + socket.inet_pton(self._layout.kind, found[1]) + data[at.stop :]
        return ctypes.create_string_buffer(data, len(data)), mask

    def _make(self, text: str) -> tuple[bytes, Any]:
        if text not in self._made:
            entry = make_entry(Rule(self._family, self._slot, tuple(shlex.split(text))))
            self._made[text] = bytes(entry.rule), entry.mask
        return self._made[text]
