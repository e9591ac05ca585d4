"""
The chains that lead the kubelet calls of this host into the tunnel: OpenYurt's (reference: pkg/yurttunnel/trafficforward/iptables
of v1.4), in one table of each family.

    OUTPUT -> TUNNEL-PORT -> TUNNEL-PORT-<port>: RETURN for each address that is reached directly, DNAT for all others
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address

from yurt.host.chains import MAX_DELETIONS, Chain, ChainSet
from yurt.host.firewall import Family

TUNNEL_ROOT = "TUNNEL-PORT"
TUNNEL_COMMENT = "yurttunnel server port"

MAX_FLOWS = 256
"""Destinations whose open connections are told to be forgotten after one change; those of more go on as they are."""

MAX_SPELT = 16_384
"""Addresses whose spelling is remembered; all of a large cluster are asked for at each change."""

_JUMP = f'-p tcp -m comment --comment "{TUNNEL_COMMENT}" -j {TUNNEL_ROOT}'
_BRANCH = '-p tcp -m tcp --dport {port} -m comment --comment "jump to port {port}" -j {root}-{port}'
_RETURN = '-d {host} -p tcp -m comment --comment "return request to access node directly" -m tcp --dport {port} -j RETURN'
_DNAT = '-p tcp -m comment --comment "dnat to tunnel for access node" -m tcp --dport {port} -j DNAT --to-destination {to}'
_LOOPBACK: dict[Family, str] = {"ipv4": "127.0.0.1", "ipv6": "::1"}
_BITS: dict[Family, int] = {"ipv4": 32, "ipv6": 128}


@dataclass(frozen=True, slots=True)
class Diversion:
    """
    Connections to ``port`` go to ``destination``, as ``10.0.0.1:10263`` or ``[fd00::1]:10263``.
    """

    family: Family
    port: int
    destination: str


@dataclass(frozen=True, slots=True)
class TunnelRules:
    """
    All of the tunnel's rules on this host.  ``direct`` are the addresses that are reached without it, as :func:`spell` spells
    them; a family without diversion has no rules.
    """

    direct: tuple[str, ...] = ()
    diversions: tuple[Diversion, ...] = ()


@dataclass(frozen=True, slots=True)
class Flow:
    """
    Connections to one destination, whose way has changed; with an empty ``address`` those to any which nobody has answered yet.
    """

    family: Family
    address: str
    port: int


@lru_cache(MAX_SPELT)
def spell(address: str) -> str | None:
    """
    An address as ``iptables-save`` spells it; None for what is none, or means nothing without its link.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return None if parsed.scope_id else socket.inet_ntop(socket.AF_INET6, parsed.packed)


def difference(before: TunnelRules, wanted: TunnelRules) -> tuple[TunnelRules, TunnelRules]:
    """
    The same change with few rules: both sets without the addresses that they share; their texts need not be made and compared.

    Where a chain comes, goes or is written anew all of its rules are needed, and both are returned as they are.
    """
    old, new = set(before.direct), set(wanted.direct)
    if before.diversions != wanted.diversions or len(old - new) > MAX_DELETIONS:
        return before, wanted
    return replace(before, direct=tuple(sorted(old - new))), replace(wanted, direct=tuple(sorted(new - old)))


def tunnel_chains(rules: TunnelRules, family: Family) -> ChainSet:
    """
    The chains of one family.
    """
    diversions = sorted((d for d in rules.diversions if d.family == family), key=lambda diversion: diversion.port)
    hosts = [f"{address}/{_BITS[family]}" for address in _direct(rules.direct, family)]
    chains = [_port_chain(diversion, hosts) for diversion in diversions]
    if chains:
        jumps = tuple(_BRANCH.format(port=diversion.port, root=TUNNEL_ROOT) for diversion in diversions)
        chains.append(Chain(TUNNEL_ROOT, jumps))
    return ChainSet("nat", TUNNEL_ROOT, "OUTPUT", TUNNEL_COMMENT, _JUMP, tuple(chains))


def _direct(addresses: Iterable[str], family: Family) -> list[str]:
    mine = [address for address in addresses if (":" in address) == (family == "ipv6")]
    return list(dict.fromkeys([_LOOPBACK[family], *mine]))


def _port_chain(diversion: Diversion, hosts: Iterable[str]) -> Chain:
    port = diversion.port
    dnat = _DNAT.format(port=port, to=diversion.destination)
    # Ten thousand times the whole format would be a good part of the time that a change may take.
    before, after = _RETURN.format(host="\0", port=port).split("\0")
    return Chain(f"{TUNNEL_ROOT}-{port}", tuple([before + host + after for host in hosts]), (dnat,))


def turned_flows(family: Family, turned: Iterable[tuple[str, str]]) -> list[Flow]:
    """
    The destinations of rules, by chain, that came or went; where all others are turned anew, what went astray before.
    """
    flows = []
    for chain, text in turned:
        option, _, rest = text.partition(" ")
        port = chain.rpartition("-")[2]
        if port.isdigit():
            flows.append(Flow(family, rest.partition("/")[0] if option == "-d" else "", int(port)))
    return flows
