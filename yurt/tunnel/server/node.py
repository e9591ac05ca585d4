"""
A node of the cluster, as far as the tunnel has to know it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

import msgspec

EDGE_LABEL = "openyurt.io/is-edge-worker"
AGENT_LABEL = "openyurt.io/edge-enable-reverseTunnel-client"

DEFAULT_KUBELET_PORT = 10250

MAX_ADDRESSES = 32
"""Addresses of one node that are looked at."""

MAX_POD_NETWORKS = 4
"""Networks of one node's pods that are looked at; a cluster assigns one of each family."""

MAX_SPELT = 16_384
"""Addresses whose usual spelling is remembered: those of a large cluster are asked for with each connection and each list."""

_NAMES = ("Hostname", "InternalDNS", "ExternalDNS")

BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"
"""What this boot of this machine is called (random(4)); a kubelet puts it in the status of its node (NodeSystemInfo)."""


@dataclass(frozen=True, slots=True)
class Node:
    """
    One node.

    ``addresses`` are its IP addresses, each once and in its usual spelling, InternalIPs first; ``hostname`` is what it
    calls itself and ``names`` are all its host names, in lower case.  ``has_agent`` says whether it is to be reached
    through the tunnel (by either label of OpenYurt's), ``edge`` whether it is an edge worker, ``here`` whether it is
    this machine.  ``pod_networks`` are those that its pods have addresses of, in CIDR notation, where the cluster assigns them.
    """

    name: str
    addresses: tuple[str, ...] = ()
    internal_ip: str = ""
    hostname: str = ""
    names: tuple[str, ...] = ()
    kubelet_port: int = DEFAULT_KUBELET_PORT
    has_agent: bool = False
    edge: bool = False
    ready: bool = False
    here: bool = False
    pod_networks: tuple[str, ...] = ()


class _Address(msgspec.Struct):
    type: str = ""
    address: str = ""


class _Condition(msgspec.Struct):
    type: str = ""
    status: str = ""


class _KubeletEndpoint(msgspec.Struct):
    Port: int = 0


class _DaemonEndpoints(msgspec.Struct):
    kubeletEndpoint: _KubeletEndpoint | None = None


class _NodeInfo(msgspec.Struct):
    bootID: str = ""


class _Status(msgspec.Struct):
    addresses: list[_Address] | None = None
    conditions: list[_Condition] | None = None
    daemonEndpoints: _DaemonEndpoints | None = None
    nodeInfo: _NodeInfo | None = None


class _Metadata(msgspec.Struct):
    name: str
    labels: dict[str, str] | None = None


class _Spec(msgspec.Struct):
    podCIDRs: list[str] | None = None


class _Node(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec | None = None
    status: _Status | None = None


_decode = msgspec.json.Decoder(_Node).decode


def this_boot() -> str:
    """
    The boot that this machine runs in; empty where the kernel does not say it.
    """
    try:
        with open(BOOT_ID_FILE) as file:
            return file.read().strip()
    except OSError:
        return ""


def read_node(body: bytes, boot: str = "") -> Node:
    """
    A Node object in JSON; ``boot`` is what :func:`this_boot` says.  Raises msgspec.DecodeError for anything else.
    """
    node = _decode(body)
    status = node.status or _Status()
    labels = node.metadata.labels or {}
    listed = (status.addresses or [])[:MAX_ADDRESSES]
    internal = _addresses(listed, "InternalIP")
    # A host name that is an address is dialled as one: it is what kube-apiserver prefers.
    others = [one for kind in ("ExternalIP", *_NAMES) for one in _addresses(listed, kind)]
    addresses = tuple(dict.fromkeys([*internal, *others]))
    names = [one.address.lower() for kind in _NAMES for one in listed if one.type == kind]
    hostname = next((one.address for one in listed if one.type == "Hostname"), "")
    endpoint = status.daemonEndpoints.kubeletEndpoint if status.daemonEndpoints else None
    edge = labels.get(EDGE_LABEL) == "true"
    return Node(
        name=node.metadata.name,
        addresses=addresses,
        internal_ip=internal[0] if internal else "",
        hostname=hostname,
        names=tuple(dict.fromkeys(names)),
        kubelet_port=(endpoint.Port if endpoint else 0) or DEFAULT_KUBELET_PORT,
        has_agent=edge or labels.get(AGENT_LABEL) == "true",
        edge=edge,
        ready=any(one.type == "Ready" and one.status == "True" for one in status.conditions or ()),
        here=bool(boot) and status.nodeInfo is not None and status.nodeInfo.bootID == boot,
        pod_networks=tuple((node.spec and node.spec.podCIDRs) or ())[:MAX_POD_NETWORKS],
    )


def _addresses(listed: Iterable[_Address], kind: str) -> list[str]:
    spelt = [usual_spelling(one.address) for one in listed if one.type == kind]
    return [address for address in spelt if address]


@lru_cache(MAX_SPELT)
def usual_spelling(address: str) -> str:
    """
    An IP address as it is written once and for all, IPv4 rather than IPv4 in IPv6; empty for anything else.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return ""
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(parsed)


def is_within(address: str, networks: Iterable[str]) -> bool:
    """
    Whether an address is of one of these networks; what is none has no addresses.
    """
    for network in networks:
        try:
            if ip_address(address) in ip_network(network, strict=False):
                return True
        except ValueError:
            continue
    return False
