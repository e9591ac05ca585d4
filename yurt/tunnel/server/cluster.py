"""
What the server knows of its cluster; or, without a kubeconfig, does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import msgspec
from twisted.application.service import IServiceCollection, MultiService, Service

from yurt.host.destination import plain_address, source_towards
from yurt.kube.api import ApiClient, client_from_kubeconfig
from yurt.kube.informer import Informer
from yurt.kube.kubeconfig import load_kubeconfig
from yurt.tunnel.server.config import TunnelServerConfig
from yurt.tunnel.server.dns import SERVICES, DNSRecords
from yurt.tunnel.server.members import Members
from yurt.tunnel.server.nodes import Nodes, nodes_informer
from yurt.tunnel.server.pods import Pods
from yurt.tunnel.server.ports import LivePorts, ports_informer

PRODUCT = "yurt-tunnel-server"

SERVICE_PREFIX = "x-tunnel-server-"
"""The names of the tunnel's Services, x-tunnel-server-svc and x-tunnel-server-internal-svc, begin so."""

ANYWHERE = "192.0.2.1", "2001:db8::1"
"""Addresses for documentation (RFC 5737, RFC 3849): the way to them is the default route."""


class _Metadata(msgspec.Struct):
    name: str = ""


class _Spec(msgspec.Struct):
    clusterIPs: list[str] | None = None
    clusterIP: str = ""
    externalIPs: list[str] | None = None


class _Ingress(msgspec.Struct):
    ip: str = ""


class _LoadBalancer(msgspec.Struct):
    ingress: list[_Ingress] | None = None


class _Status(msgspec.Struct):
    loadBalancer: _LoadBalancer | None = None


class _Service(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec | None = None
    status: _Status | None = None


_decode = msgspec.json.Decoder(_Service).decode


def read_service_addresses(body: bytes) -> frozenset[str] | None:
    """
    The addresses of one of the tunnel's Services; None for any other Service.  Raises msgspec.DecodeError.
    """
    service = _decode(body)
    if not service.metadata.name.startswith(SERVICE_PREFIX):
        return None
    spec = service.spec or _Spec()
    balancer = (service.status or _Status()).loadBalancer or _LoadBalancer()
    ingress = [one.ip for one in balancer.ingress or []]
    found = [*(spec.clusterIPs or []), spec.clusterIP, *(spec.externalIPs or []), *ingress]
    return frozenset(filter(None, map(plain_address, found)))


class Cluster(MultiService):
    """
    Nodes, ports, members, pods and DNS records of the cluster.  Without a kubeconfig ``client``, ``members`` and ``pods`` are
    None, nodes are those that connect, and ports those of the kubelet.

    Raises :exc:`~yurt.kube.kubeconfig.KubeconfigError` and :exc:`~yurt.tls.CredentialsError`.
    """

    def __init__(self, reactor: Any, config: TunnelServerConfig, server_id: str, connected: Callable[[str], bool]) -> None:
        super().__init__()
        self.client: ApiClient | None = None
        self.members: Members | None = None
        self.dns: DNSRecords | None = None
        self.pods: Pods | None = None
        self.host: str | None = None
        """By what other servers reach this one."""
        self._services: Informer[frozenset[str]] | None = None
        if config.kubeconfig is None:
            self.nodes, self.ports = Nodes(None, connected), LivePorts()
            return
        kubeconfig = load_kubeconfig(config.kubeconfig)
        self.client = client = client_from_kubeconfig(reactor, kubeconfig, PRODUCT)
        nodes = nodes_informer(reactor, client)
        ports = ports_informer(reactor, client, config.insecure_port, needed_ports(config, kubeconfig.server))
        self.nodes, self.ports = Nodes(nodes, connected), LivePorts(ports)
        self._services = Informer(reactor, client, SERVICES, read_service_addresses, what="Services of the tunnel")
        self.pods = Pods(reactor, client)
        for child in (nodes, ports, self._services):
            self._add(child)
        self.host = host = advertised_address(config.bind_addresses, kubeconfig.server)
        if host is not None:
            self.members = Members(reactor, client, server_id, host, config.tunnel_agent_connect_port)
            self._add(self.members)
        if config.enable_dns_controller:
            self.dns = DNSRecords(
                reactor,
                client,
                self.nodes,
                self.ports,
                server_id,
                secure_port=config.secure_port,
                insecure_port=config.insecure_port,
                period=config.dns_sync_period,
            )
            self._add(self.dns)

    def _add(self, child: Service) -> None:
        child.setServiceParent(IServiceCollection(self))

    def is_node(self, name: str) -> bool | None:
        """
        Whether the cluster has a node of that name; None while that is not known.
        """
        if not self.nodes.of_cluster or not self.nodes.synced:
            return None
        return self.nodes.by_name(name) is not None

    def wants_agent(self, name: str) -> bool:
        """
        Whether the node of that name, if there is one, is to be reached through an agent.
        """
        node = self.nodes.by_name(name)
        return node is None or node.has_agent

    def __contains__(self, address: object) -> bool:
        """
        Whether this is an address of the tunnel's own Services.
        """
        return self._services is not None and any(address in one for one in self._services.items.values())

    def unready(self) -> Iterator[str]:
        """
        Why requests cannot be told apart yet, one sentence each.
        """
        for part, what in ((self.nodes, "the nodes"), (self.ports, "the ports")):
            if not part.synced:
                yield f"{what} of the cluster are not known yet: {part.problem or 'they are being listed'}"

    def problems(self) -> list[str]:
        """
        What may be out of date, one sentence each.
        """
        parts = (self.nodes, self.ports, self._services, self.members, self.dns)
        return [part.problem for part in parts if part is not None and part.problem]


def needed_ports(config: TunnelServerConfig, api_server: str) -> dict[int, str]:
    """
    The ports, and whose they are, to which this server's own connections must not be turned by its rules; none without rules.
    """
    if not config.enable_iptables:
        return {}
    parts = urlsplit(api_server)
    usual = 80 if parts.scheme == "http" else 443
    return {config.tunnel_agent_connect_port: "the other servers'", parts.port or usual: "the API server's"}


def advertised_address(bound: tuple[str, ...], api_server: str) -> str | None:
    """
    Where other servers reach this one: the first address that it is bound to; with a wildcard the one by which it reaches the
    API server, if that is given by its address, or else the world.  None on a host that is connected to nothing.
    """
    for address in bound:
        if not ip_address(address).is_unspecified:
            return address
    host = urlsplit(api_server).hostname or ""
    wildcard = ip_address(bound[0])
    for target in (plain_address(host), *ANYWHERE):
        source = source_towards(target) if target else None
        usable = source is not None and not ip_address(source).is_loopback
        if usable and (wildcard.version == 6 or ip_address(source or "").version == 4):
            return source
    return None
