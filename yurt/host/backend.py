"""
Which of the two firewalls of a Linux host is the one in use.
"""

from __future__ import annotations

from yurt.host.chains import ChainFirewall
from yurt.host.errors import FirewallError
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


def choose_flavour(legacy: str, nft: str, default: Flavour) -> Flavour:
    """
    Decide from what the two ``iptables-save`` print: kubelet's hint wins, then the larger number of rules, then the default.

    Our own rules do not count, or a wrong choice would confirm itself.
    """
    if _is_hinted(nft):
        return "nft"
    if _is_hinted(legacy):
        return "legacy"
    surplus = _rules(legacy) - _rules(nft)
    if surplus == 0:
        return default
    return "legacy" if surplus > 0 else "nft"


def _is_hinted(text: str) -> bool:
    return any(f":{hint} " in text for hint in _HINTS)


def _rules(text: str) -> int:
    return sum(line.startswith("-A ") and not line.startswith(_OURS) and not _is_ours(line) for line in text.splitlines())


def _is_ours(line: str) -> bool:
    return POD_COMMENT in line or TUNNEL_COMMENT in line


def choose_backend(mark: str) -> tuple[Flavour, list[Flavour]]:
    """
    The flavour that holds the host's rules, and the others in which an earlier run of ours left any: some in which ``mark`` is.

    Raises FirewallError when there is no iptables, or the one in use cannot be read.
    """
    default = default_flavour()
    if default is None:
        raise FirewallError("no iptables on this host: install the package iptables, or turn --enable-iptables off")
    saved = {flavour: _saved(flavour, default) for flavour in _FLAVOURS}
    chosen = choose_flavour(saved["legacy"], saved["nft"], default)
    return chosen, [other for other in _FLAVOURS if other != chosen and mark in saved[other]]


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
    programs = [find_tool(family, flavour, "save") for family in FAMILIES]
    try:
        return "".join(run_tool([program]) for program in programs if program is not None)
    except FirewallError:
        # A kernel may lack the one that is not in use.
        if flavour == default:
            raise
        return ""
