"""
What the operator of a tunnel server chose, as one value.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from yurt.tls import Credentials

MIN_IPTABLES_SYNC_PERIOD = 15.0
MIN_DNS_SYNC_PERIOD = 30.0
"""Seconds; what is less becomes this, as in OpenYurt."""


@dataclass(frozen=True)
class TunnelServerConfig:
    """
    The server's configuration; names as those of the flags, times in seconds, port 0 for a listener that is not wanted.

    ``credentials`` hold the server's certificate and the CA of agents and callers, ``kubelet_credentials`` what is shown to
    kubelets and the CA that verifies them, if they are verified.
    """

    credentials: Credentials
    kubeconfig: str | None = None
    cert_dir: str = "/var/lib/yurttunnel-server/pki"
    """Where certificates are kept that are asked for, as they are when ``credentials`` name none."""
    cert_dns_names: tuple[str, ...] = ()
    cert_ips: tuple[str, ...] = ()
    kubelet_credentials: Credentials = field(default_factory=Credentials)
    bind_addresses: tuple[str, ...] = ("0.0.0.0",)
    insecure_bind_addresses: tuple[str, ...] = ("127.0.0.1",)
    tunnel_agent_connect_port: int = 10262
    secure_port: int = 10263
    insecure_port: int = 10264
    meta_port: int = 10265
    enable_iptables: bool = True
    iptables_sync_period: float = 60.0
    enable_dns_controller: bool = True
    dns_sync_period: float = 1800.0
    allowed_names: frozenset[str] = frozenset()
    egress_socket: str | None = None
    drain_timeout: float = 30.0
