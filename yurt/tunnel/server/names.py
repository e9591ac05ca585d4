"""
By which names and addresses agents, kube-apiserver and other servers may call this one: those of its serving certificate.

Facts: OpenYurt's yurt-tunnel-server 1.4 finds them so, from the Services of the tunnel, their endpoints, nodes and flags.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from yurt.host.destination import plain_address
from yurt.options import host_port
from yurt.tunnel.server.node import Node

NAMESPACE = "kube-system"
SERVICE, INTERNAL_SERVICE = "x-tunnel-server-svc", "x-tunnel-server-internal-svc"
EXTERNAL_ADDRESS = "x-tunnel-server-external-addr"
"""The annotation of a ClusterIP Service that says where it is reached from outside."""
LOOPBACK = "127.0.0.1", "::1"

MAX_NODES = 64
"""Nodes whose addresses a NodePort Service puts into the certificate, the first by name."""


@dataclass(frozen=True, slots=True)
class Named:
    """
    DNS names and addresses, each once, sorted.
    """

    dns: tuple[str, ...]
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TunnelService:
    """
    One of the tunnel's Services: its name, whether it is of type NodePort, and by what it is reached.
    """

    name: str
    on_nodes: bool = False
    hosts: tuple[str, ...] = ()


class _Metadata(msgspec.Struct):
    name: str = ""
    annotations: dict[str, str] | None = None


class _ServiceSpec(msgspec.Struct):
    type: str = "ClusterIP"
    clusterIP: str = ""
    clusterIPs: list[str] | None = None
    externalIPs: list[str] | None = None


class _Host(msgspec.Struct):
    ip: str = ""
    hostname: str = ""


class _LoadBalancer(msgspec.Struct):
    ingress: list[_Host] | None = None


class _ServiceStatus(msgspec.Struct):
    loadBalancer: _LoadBalancer | None = None


class _Service(msgspec.Struct):
    metadata: _Metadata
    spec: _ServiceSpec | None = None
    status: _ServiceStatus | None = None


class _Subset(msgspec.Struct):
    addresses: list[_Host] | None = None
    notReadyAddresses: list[_Host] | None = None


class _Endpoints(msgspec.Struct):
    metadata: _Metadata
    subsets: list[_Subset] | None = None


_decode_service = msgspec.json.Decoder(_Service).decode
_decode_endpoints = msgspec.json.Decoder(_Endpoints).decode


def read_tunnel_service(body: bytes) -> TunnelService | None:
    """
    A Service in JSON, if it is one of the tunnel's.  Raises msgspec.DecodeError.
    """
    service = _decode_service(body)
    if service.metadata.name not in (SERVICE, INTERNAL_SERVICE):
        return None
    spec, status = service.spec or _ServiceSpec(), service.status or _ServiceStatus()
    hosts = [*(spec.clusterIPs or []), spec.clusterIP, *(spec.externalIPs or [])]
    for one in (status.loadBalancer or _LoadBalancer()).ingress or []:
        hosts += [one.ip, one.hostname]
    written = (service.metadata.annotations or {}).get(EXTERNAL_ADDRESS, "")
    try:
        hosts.append(host_port(written, 0)[0] if written else "")
    except ValueError:
        pass  # what is written there is no address, so nobody dials it
    named = tuple(host for host in hosts if host not in ("", "None"))
    return TunnelService(service.metadata.name, spec.type == "NodePort", named)


def read_tunnel_endpoints(body: bytes) -> tuple[str, ...] | None:
    """
    The addresses and host names of an Endpoints object in JSON, if it is that of the tunnel.  Raises msgspec.DecodeError.
    """
    endpoints = _decode_endpoints(body)
    if endpoints.metadata.name != SERVICE:
        return None
    found = [one for subset in endpoints.subsets or [] for one in (subset.addresses or []) + (subset.notReadyAddresses or [])]
    return tuple(host for one in found for host in (one.ip, one.hostname) if host)


def serving_names(
    services: Iterable[TunnelService], endpoints: Iterable[str], nodes: Iterable[Node], own: Iterable[str]
) -> Named:
    """
    What the certificate has to name.  ``nodes`` are those of the cloud, which carry a NodePort; ``own`` are addresses of this
    host and what flags add.
    """
    known = list(services)
    hosts = [*LOOPBACK, *own, *endpoints, *(host for service in known for host in service.hosts)]
    for name in {SERVICE, *(service.name for service in known)}:
        hosts += [name, f"{name}.{NAMESPACE}", f"{name}.{NAMESPACE}.svc", f"{name}.{NAMESPACE}.svc.cluster.local"]
    if any(service.on_nodes for service in known):
        for node in sorted(nodes, key=lambda node: node.name)[:MAX_NODES]:
            hosts += [*node.addresses, *node.names]
    addresses = {host: plain_address(host) for host in hosts}
    return Named(
        tuple(sorted({host.lower() for host, address in addresses.items() if not address})),
        tuple(sorted({address for address in addresses.values() if address})),
    )
