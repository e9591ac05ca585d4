"""
The daemons that init systems run, and options with which each runs without privileges, without cloud, and in a folder of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.certs import Authority, issue, make_ca
from tests.ports import free_port
from yurt.controllers.tap import Options as ControllerOptions
from yurt.hub.tap import Options as HubOptions
from yurt.options import Options
from yurt.tunnel.agent.tap import Options as AgentOptions
from yurt.tunnel.server.tap import Options as ServerOptions


@dataclass(frozen=True)
class Daemon:
    """
    ``setting`` is the name of its options among the settings; ``make_options(folder, port)`` makes options, with the port of the
    pages that tell its health, and what they name; ``wrong`` is one that it refuses; ``reloaded`` is what it logs at a SIGHUP.
    """

    name: str
    setting: str
    options: type[Options]
    make_options: Callable[[Path, int], list[str]]
    wrong: str
    reloaded: str = ""


def make_trust(folder: Path) -> Authority:
    """
    A new CA, its certificate in ``ca.pem``.
    """
    ca = make_ca()
    (folder / "ca.pem").write_bytes(ca.cert_pem)
    return ca


def hub_options(folder: Path, port: int) -> list[str]:
    make_trust(folder)
    (folder / "token").write_text("a-token")
    return [
        f"--server-addr=https://127.0.0.1:{free_port()}", "--node-name=n1", f"--ca-file={folder}/ca.pem",
        f"--token-file={folder}/token", f"--root-dir={folder}/own", f"--disk-cache-path={folder}/cache", f"--serve-port={port}",
        f"--proxy-port={free_port()}", f"--proxy-secure-port={free_port()}", "--enable-dummy-if=false",
        "--cache-agents=*,!calico-node",
    ]  # fmt: skip


def tunnel_options(folder: Path, port: int, common_name: str) -> list[str]:
    """
    What the two ends of the tunnel have in common.
    """
    identity = issue(make_trust(folder), common_name, ["system:nodes"], ips=["127.0.0.1"])
    (folder / "cert.pem").write_bytes(identity.cert_pem)
    (folder / "key.pem").write_bytes(identity.key_pem)
    return [
        f"--tls-cert-file={folder}/cert.pem", f"--tls-private-key-file={folder}/key.pem", f"--client-ca-file={folder}/ca.pem",
        f"--meta-port={port}",
    ]  # fmt: skip


def server_options(folder: Path, port: int) -> list[str]:
    ports = [f"--{name}-port={free_port()}" for name in ("tunnel-agent-connect", "secure", "insecure")]
    return [
        *tunnel_options(folder, port, "system:node:tunnel-server"), *ports, "--bind-address=127.0.0.1",
        f"--egress-socket={folder}/egress/socket", "--allowed-names=*",
    ]  # fmt: skip


def agent_options(folder: Path, port: int) -> list[str]:
    return [
        *tunnel_options(folder, port, "system:node:n1"), "--node-name=n1", f"--tunnelserver-addr=127.0.0.1:{free_port()}",
    ]  # fmt: skip


def controller_options(folder: Path, port: int) -> list[str]:
    make_trust(folder)
    cluster = {"server": f"https://127.0.0.1:{free_port()}", "certificate-authority": f"{folder}/ca.pem"}
    contexts = [{"name": "x", "context": {"cluster": "c"}}]
    document = {"current-context": "x", "contexts": contexts, "clusters": [{"name": "c", "cluster": cluster}]}
    (folder / "kubeconfig").write_text(json.dumps(document))
    return [f"--kubeconfig={folder}/kubeconfig", f"--metrics-addr=127.0.0.1:{port}", "--controllers=*"]


HUB = Daemon("yurthub", "YURTHUB_OPTIONS", HubOptions, hub_options, "--lb-mode=random", "credentials were read again")
SERVER = Daemon(
    "yurt-tunnel-server", "YURT_TUNNEL_SERVER_OPTIONS", ServerOptions, server_options, "--proxy-strategy=default",
    "are read again whenever they change",
)  # fmt: skip
AGENT = Daemon("yurt-tunnel-agent", "YURT_TUNNEL_AGENT_OPTIONS", AgentOptions, agent_options, "--meta-port=high")
CONTROLLERS = Daemon(
    "yurt-controller-manager", "YURT_CONTROLLER_MANAGER_OPTIONS", ControllerOptions, controller_options, "--controllers=x",
    "are read again whenever they change",
)  # fmt: skip
DAEMONS = (HUB, SERVER, AGENT, CONTROLLERS)
