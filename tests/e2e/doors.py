"""
The ways by which an apiserver's calls reach a kubelet, and what each asks of the apiserver and of yurt-tunnel-server.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .apiserver import ADDRESS_TYPES, ClusterKeys

SECURE_PORT = 10263


@dataclass(frozen=True)
class Door:
    """
    A way to the kubelet: the port of the apiserver that uses it, whether the node is behind NAT then, and what
    yurt-tunnel-server does beside its ordinary work.
    """

    name: str
    port: int
    behind_nat: bool = True
    iptables: bool = False
    dns: bool = False


DIRECT = Door("direct", 6443, behind_nat=False)
"""No tunnel at all: what holds here and not through another door is the tunnel's making."""
DIVERTED = Door("diverted", 6443, iptables=True)
EGRESS_SOCKET = Door("egress-socket", 6444)
EGRESS_TLS = Door("egress-tls", 6445)
NAMED = Door("named", 6446, dns=True)


def egress_configuration(door: Door, keys: ClusterKeys, address: str, socket: Path) -> dict[str, Any]:
    """
    What --egress-selector-config-file of the apiserver holds for one of the egress doors.
    """
    transport: dict[str, Any] = {"uds": {"udsName": str(socket)}}
    if door is EGRESS_TLS:
        files = {"caBundle": "ca.crt", "clientCert": "kubelet-client.crt", "clientKey": "kubelet-client.key"}
        tls = {name: keys.file(file) for name, file in files.items()}
        transport = {"tcp": {"url": f"https://{address}:{SECURE_PORT}", "tlsConfig": tls}}
    return {
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "EgressSelectorConfiguration",
        "egressSelections": [{"name": "cluster", "connection": {"proxyProtocol": "HTTPConnect", "transport": transport}}],
    }


def apiserver_options(door: Door, keys: ClusterKeys, address: str, socket: Path) -> list[str]:
    """
    The options of an apiserver that goes by ``door``.
    """
    if door is NAMED:
        return [ADDRESS_TYPES, "Hostname"]
    if door not in (EGRESS_SOCKET, EGRESS_TLS):
        return []
    path = keys.folder / f"{door.name}.json"
    path.write_text(json.dumps(egress_configuration(door, keys, address, socket)))
    return ["--egress-selector-config-file", str(path)]
