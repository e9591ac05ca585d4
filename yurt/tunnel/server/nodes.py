"""
The nodes of the cluster, as far as the tunnel has to know them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from ipaddress import IPv6Address, ip_address, ip_network

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from yurt.kube.api import ApiClient
from yurt.kube.informer import Informer

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


def _is_within(address: str, networks: Iterable[str]) -> bool:
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


Callback = Callable[["Node | None", "Node | None"], object]


class Nodes:
    """
    The nodes by name and by address.

    With an informer they are the cluster's; without one, which is without a cluster, those that :meth:`learn` was told.

    Two nodes may have the same address: sites often use the same private network.  Of such nodes those that have an agent
    connected, which ``connected`` knows by name, come first, then those with the address as an InternalIP, then those first
    in the alphabet.  A caller that means one of several such nodes must name it.
    """

    log = Logger()

    def __init__(self, informer: Informer[Node] | None = None, connected: Callable[[str], bool] = lambda name: False) -> None:
        self._informer = informer
        self._connected = connected
        self._nodes: dict[str, Node] = {}
        self._by_address: dict[str, set[str]] = {}
        self._subscribers: list[Callback] = []
        if informer is not None:
            informer.subscribe(lambda key, old, new: self._changed(old, new))

    @property
    def synced(self) -> bool:
        """
        Whether all nodes of the cluster are known.
        """
        return self._informer is None or self._informer.synced

    @property
    def problem(self) -> str | None:
        """
        Why what is known may be out of date.
        """
        return None if self._informer is None else self._informer.problem

    @property
    def of_cluster(self) -> bool:
        """
        Whether the cluster says which nodes there are.
        """
        return self._informer is not None

    def __len__(self) -> int:
        return len(self._nodes)

    def all(self) -> list[Node]:
        """
        All nodes, in no order.
        """
        return list(self._nodes.values())

    def by_name(self, name: str) -> Node | None:
        """
        The node with this name.
        """
        return self._nodes.get(name)

    def by_address(self, address: str) -> Node | None:
        """
        The node that has this IP address, in any spelling, or this host name; see the class for several.
        """
        key = usual_spelling(address) or address.lower()
        names = self._by_address.get(key)
        if not names:
            return None
        if len(names) > 1:
            return self._nodes[min(names, key=lambda name: self._rank(name, key))]
        return self._nodes[next(iter(names))]

    def by_host(self, host: str) -> Node | None:
        """
        The node that a host means: by its name, else by a host name or an address of its own.  The dot behind a whole domain
        name is none of it.
        """
        host = host.removesuffix(".")
        return self._nodes.get(host) or self._nodes.get(host.lower()) or self.by_address(host)

    def by_pod(self, address: str) -> Node | None:
        """
        The node whose pods have addresses like this one; all nodes are looked at.
        """
        spelt = usual_spelling(address)
        return next((node for node in self._nodes.values() if spelt and _is_within(spelt, node.pod_networks)), None)

    def _rank(self, name: str, address: str) -> tuple[bool, bool, str]:
        return not self._connected(name), self._nodes[name].internal_ip != address, name

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """
        Call ``callback(old, new)`` after each change of a node, with None for one that was not or is not any more;
        answers how to end that.
        """
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def learn(self, name: str, addresses: Iterable[str] = ()) -> None:
        """
        Without a cluster: an agent of this node connected, and says that these are its addresses.  With one the cluster's
        word counts, and this does nothing.
        """
        if self._informer is None:
            spelt = dict.fromkeys(usual_spelling(address) for address in list(addresses)[:MAX_ADDRESSES])
            spelt.pop("", None)
            kept = tuple(spelt)
            old, new = self.by_name(name), Node(name, kept, next(iter(kept), ""), has_agent=True, edge=True, ready=True)
            if old != new:
                self._changed(old, new)

    def forget(self, name: str) -> None:
        """
        Without a cluster: no agent of this node is connected any more.
        """
        if self._informer is None and name in self._nodes:
            self._changed(self._nodes[name], None)

    def _changed(self, old: Node | None, new: Node | None) -> None:
        if old is not None:
            self._unindex(old)
        if new is not None:
            self._nodes[new.name] = new
            for key in (*new.addresses, *new.names):
                self._by_address.setdefault(key, set()).add(new.name)
        for subscriber in tuple(self._subscribers):
            with self.log.failuresHandled("a subscriber to the nodes failed"):
                subscriber(old, new)

    def _unindex(self, node: Node) -> None:
        del self._nodes[node.name]
        for key in {*node.addresses, *node.names}:
            names = self._by_address[key]
            names.discard(node.name)
            if not names:
                del self._by_address[key]


def nodes_informer(reactor: IReactorTime, client: ApiClient) -> Informer[Node]:
    """
    An informer on all nodes of the cluster.
    """
    return Informer(reactor, client, "/api/v1/nodes", partial(read_node, boot=this_boot()), what="nodes")
