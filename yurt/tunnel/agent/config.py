"""
What the operator chose, as one value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from yurt.kube.joining import JoinSettings
from yurt.tls import Credentials

KUBELET_PORTS = frozenset({10250, 10255})
"""The ports that every agent may dial: kubelet's, with TLS and without."""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """
    The agent's configuration; names as those of the flags, times in seconds, port 0 for a listener that is not wanted.
    """

    node_name: str
    servers: tuple[tuple[str, int], ...]
    credentials: Credentials
    kubeconfig: str | None = None
    """By what a certificate is asked for, where ``credentials`` name none; None for what is found on the node."""
    join: JoinSettings = JoinSettings(())
    """How to ask for one while nothing speaks for the node yet."""
    cert_dir: str = "/var/lib/yurttunnel-agent/pki"
    node_ips: tuple[str, ...] = ()
    allowed_ports: frozenset[int] = frozenset()
    proxies: Mapping[tuple[str, int], str] = field(default_factory=dict, repr=False)
    """The HTTP proxy that leads to a server, for those of ``servers`` that the environment has one for."""
    meta_host: str = "127.0.0.1"
    meta_port: int = 10266
    drain_timeout: float = 30.0

    @property
    def ports(self) -> frozenset[int]:
        """
        All ports that may be dialled.
        """
        return KUBELET_PORTS | self.allowed_ports
