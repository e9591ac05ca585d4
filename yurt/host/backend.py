"""
Which of the two firewalls of a Linux host is the one in use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from yurt.host.chains import ChainFirewall
from yurt.host.errors import FirewallError, NoFirewall
from yurt.host.firewall import FAMILIES, POD_COMMENT, Family, Firewall
from yurt.host.iptables_restore_edge import RestoreFirewall
from yurt.host.restore_chains import RestoreChains
from yurt.host.tools import Flavour, default_flavour, find_tool, run_tool
from yurt.host.tunnel_rules import TUNNEL_COMMENT, TUNNEL_ROOT

_FLAVOURS: tuple[Flavour, ...] = ("nft", "legacy")
_LEGACY_NAMES: dict[Family, str] = {"ipv4": "/proc/net/ip_tables_names", "ipv6": "/proc/net/ip6_tables_names"}
_NOT_LOADED = "the legacy tables are in use here, but python-iptables does not load: {}"
_OURS = f"-A {TUNNEL_ROOT}"
# Chains that kubelet keeps for this very question; Kubernetes' own iptables-wrappers looks at them first.
_HINTS = ("KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY")


@dataclass(frozen=True, slots=True)
class Choice:
    """
    The flavour to use, why, and the others in which an earlier run of ours left something.
    """

    flavour: Flavour
    reason: str
    others: tuple[Flavour, ...] = ()


def choose_flavour(legacy: str, nft: str, default: Flavour) -> Choice:
    """
    Decide from what the two ``iptables-save`` print: kubelet's hint wins, then the larger number of rules, then the default.

    Our own rules do not count, or a wrong choice would confirm itself.
    """
    saved: dict[Flavour, str] = {"nft": nft, "legacy": legacy}
    for flavour, text in saved.items():
        hint = next((hint for hint in _HINTS if f":{hint} " in text), None)
        if hint is not None:
            return Choice(flavour, f"kubelet's chain {hint} is there")
    counts = {flavour: _rules(text) for flavour, text in saved.items()}
    if counts["nft"] == counts["legacy"]:
        return Choice(default, f"plain iptables uses it, and the rules of others do not tell ({counts['nft']} in each flavour)")
    more, less = sorted(_FLAVOURS, key=lambda flavour: -counts[flavour])
    return Choice(more, f"most rules of others are there ({counts[more]}, and {counts[less]} elsewhere)")


def _rules(text: str) -> int:
    return sum(line.startswith("-A ") and not line.startswith(_OURS) and not _is_ours(line) for line in text.splitlines())


def _is_ours(line: str) -> bool:
    return POD_COMMENT in line or TUNNEL_COMMENT in line


def choose_backend(mark: str) -> Choice:
    """
    The flavour that holds the host's rules, and the others in which an earlier run of ours left any: some in which ``mark`` is.

    Raises NoFirewall when there is no iptables, FirewallError when the one in use cannot be read.
    """
    default = default_flavour()
    if default is None:
        raise NoFirewall("no iptables on this host: install the package iptables, or turn --enable-iptables off")
    saved = {flavour: _saved(flavour, default) for flavour in _FLAVOURS}
    choice = choose_flavour(saved["legacy"], saved["nft"], default)
    others = tuple(other for other in _FLAVOURS if other != choice.flavour and mark in saved[other])
    return replace(choice, others=others)


def rules_of(flavour: Flavour) -> Firewall:
    """
    The edge for rules among those of others.  Raises FirewallError when it cannot be had.
    """
    if flavour == "nft":
        return RestoreFirewall()
    try:
        from yurt.host.iptc_edge import LegacyFirewall
    except Exception as error:  # iptc raises errors of its own, and OSError, when a C library of iptables is missing
        raise FirewallError(_NOT_LOADED.format(error)) from error
    return LegacyFirewall()


def chains_of(flavour: Flavour) -> ChainFirewall:
    """
    The edge for chains of our own.  Raises FirewallError when it cannot be had.
    """
    if flavour == "nft":
        return RestoreChains()
    try:
        from yurt.host.iptc_chains import LegacyChains
    except Exception as error:  # as above
        raise FirewallError(_NOT_LOADED.format(error)) from error
    return LegacyChains()


def _has_legacy_tables() -> bool:
    """
    Whether any legacy table is loaded; asking iptables-legacy itself would load them.
    """
    for path in _LEGACY_NAMES.values():
        try:
            with open(path) as names:
                if names.read().strip():
                    return True
        except OSError:
            continue
    return False


def _saved(flavour: Flavour, default: Flavour) -> str:
    if flavour == "legacy" and not _has_legacy_tables():
        return ""
    return "".join(_saved_of(family, flavour, default) for family in FAMILIES)


def _saved_of(family: Family, flavour: Flavour, default: Flavour) -> str:
    program = find_tool(family, flavour, "save")
    try:
        return "" if program is None else run_tool([program])
    except FirewallError:
        # A kernel may lack the one that is not in use, and IPv6; who wants rules there is told when they cannot be made.
        if flavour == default and family == "ipv4":
            raise
        return ""
