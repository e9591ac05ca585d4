"""
Which firewall rules there are to be, so that kubelet calls of this host come to the doors of this server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from yurt.host.firewall import FAMILIES, Family
from yurt.host.tunnel_rules import Diversion, TunnelRules, spell
from yurt.tunnel.server.ports import Security

_LOOPBACK: dict[Family, str] = {"ipv4": "127.0.0.1", "ipv6": "::1"}


@dataclass(frozen=True, slots=True)
class Bound:
    """
    Where one door listens: its addresses, and its port, 0 for none.
    """

    addresses: tuple[str, ...]
    port: int


def destination(bound: Bound, family: Family) -> str | None:
    """
    Where connections of a family are to go to reach a door; None when it does not listen there.

    For a door on all addresses that is the loopback address: it is always there, while any other may be taken away under the
    rules.  Packets of this host that DNAT turns to a loopback address arrive, whatever their source; no route_localnet is needed,
    and reverse path filters let them pass (tried with both firewalls and in both families: tests/kernel/test_redirect.py).
    """
    for address in bound.addresses:
        wildcard = address == "::" or (address == "0.0.0.0" and family == "ipv4")
        if wildcard or (":" in address) == (family == "ipv6"):
            host = _LOOPBACK[family] if wildcard else spell(address)
            if host is not None and bound.port:
                return f"[{host}]:{bound.port}" if family == "ipv6" else f"{host}:{bound.port}"
    return None


def wanted_rules(direct: Iterable[str], ports: Mapping[int, Security], doors: Mapping[Security, Bound]) -> TunnelRules:
    """
    The rules that turn connections to these ports to the doors, except for those to the ``direct`` addresses.

    An address that a node with an agent shares with one without stays direct: the one without has no other way.
    """
    diversions = []
    for family in FAMILIES:
        targets = {security: destination(bound, family) for security, bound in doors.items()}
        for port, security in sorted(ports.items()):
            target = targets.get(security)
            if target is not None:
                diversions.append(Diversion(family, port, target))
    spelt = {spell(address) for address in direct}
    return TunnelRules(tuple(sorted(address for address in spelt if address is not None)), tuple(diversions))
