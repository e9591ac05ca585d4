"""
What the objects of DNS mode are to hold, and what is read of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from yurt.tunnel.server.node import Node
from yurt.tunnel.server.ports import KUBELET_PORT, KUBELET_READ_ONLY_PORT, Security

PORT_PREFIX = "dnat-"


def records(nodes: Iterable[Node], cluster_ip: str) -> str:
    """
    The hosts file: sorted lines ``IP<TAB>name``.  A node with an agent has ``cluster_ip``, another one its own address; a node
    without address is left out.
    """
    lines = []
    for node in nodes:
        address = cluster_ip if node.has_agent else next(iter(node.addresses), "")
        if address:
            lines.append(f"{address}\t{node.name}")
    return "\n".join(sorted(lines))


def service_ports(
    found: Iterable[Mapping[str, Any]], wanted: Mapping[int, Security], secure_port: int, insecure_port: int
) -> list[dict[str, Any]]:
    """
    The ports of the Service: a TCP port ``dnat-PORT`` for each wanted one but the kubelet's own two, which whoever made the
    Service gave it; and all that are not ours, as they are.  Where one of these has a wanted number already, it stays.
    Nothing leads to a door with port 0, which is closed: the API server would take that for the Service's own port.
    """
    ours: dict[Any, dict[str, Any]] = {}
    ports: list[dict[str, Any]] = []
    for port in map(dict, found):
        if _is_ours(port):
            ours[port.get("port")] = port
        else:
            ports.append(port)
    taken = {port.get("port") for port in ports if port.get("protocol", "TCP") == "TCP"}
    for number, security in sorted(wanted.items()):
        target = secure_port if security == "secure" else insecure_port
        if target and number not in taken and number not in (KUBELET_PORT, KUBELET_READ_ONLY_PORT):
            new = {"name": f"{PORT_PREFIX}{number}", "protocol": "TCP", "port": number, "targetPort": target}
            ports.append({**ours.get(number, {}), **new})
    return ports


def _is_ours(port: Mapping[str, Any]) -> bool:
    return str(port.get("name", "")).startswith(PORT_PREFIX) and port.get("protocol", "TCP") == "TCP"


class _Metadata(msgspec.Struct):
    resourceVersion: str = ""


class _Spec(msgspec.Struct):
    clusterIP: str = ""


class _Object(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec | None = None


_decode = msgspec.json.Decoder(_Object).decode


def read_service(body: bytes) -> tuple[str, str]:
    """
    The ClusterIP of a Service, empty when it has none, and its resourceVersion.  Raises msgspec.DecodeError.
    """
    service = _decode(body)
    address = service.spec.clusterIP if service.spec else ""
    return ("" if address == "None" else address), service.metadata.resourceVersion


def read_version(body: bytes) -> str:
    """
    The resourceVersion of an object.  Raises msgspec.DecodeError.
    """
    return _decode(body).metadata.resourceVersion
