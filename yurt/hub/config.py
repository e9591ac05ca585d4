"""
What the operator chose, as one value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from yurt.hub.agents import DEFAULT_ALIASES, DEFAULT_CACHE_AGENTS
from yurt.hub.cache.quota import Quota
from yurt.hub.filters.focus import FilterSettings
from yurt.hub.podlink import PodLinkSettings
from yurt.hub.staticpod import MANIFESTS
from yurt.kube.joining import JoinSettings
from yurt.kube.kubeconfig import Kubeconfig
from yurt.tls import Credentials


@dataclass(frozen=True)
class NodeCredentials:
    """
    Where the node's identity and the cluster's CA come from: files, which are read again when they change, or the inline
    data of a kubeconfig.  Either a certificate with its key, or a token.  ``awaited`` files are somebody else's, who may write
    them later: without them the hub serves its cache.
    """

    ca_file: str | None = None
    ca_data: bytes | None = field(default=None, repr=False)
    cert_file: str | None = None
    cert_data: bytes | None = field(default=None, repr=False)
    key_file: str | None = None
    key_data: bytes | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    tls_server_name: str | None = None
    awaited: bool = False

    def for_tls(self) -> Credentials:
        """
        CA, certificate and key.
        """
        return Credentials(self.ca_file, self.ca_data, self.cert_file, self.cert_data, self.key_file, self.key_data)

    def trust_for_tls(self) -> Credentials:
        """
        The CA alone.
        """
        return Credentials(self.ca_file, self.ca_data)

    @classmethod
    def of_kubeconfig(cls, kubeconfig: Kubeconfig) -> NodeCredentials:
        """
        What a kubeconfig says of identity and CA.  Raises ValueError for one that cannot verify the cloud or has no identity.
        """
        if kubeconfig.insecure:
            raise ValueError("insecure-skip-tls-verify is set; name the cluster's certificate-authority instead")
        if not (kubeconfig.ca_file or kubeconfig.ca_data):
            raise ValueError("the cluster has no certificate-authority; without it the cloud cannot be verified")
        has_certificate = (kubeconfig.cert_file or kubeconfig.cert_data) and (kubeconfig.key_file or kubeconfig.key_data)
        if not has_certificate and not kubeconfig.token and not kubeconfig.token_file:
            raise ValueError("the user has neither a client certificate with its key nor a token")
        return cls(
            ca_file=kubeconfig.ca_file,
            ca_data=kubeconfig.ca_data,
            cert_file=kubeconfig.cert_file,
            cert_data=kubeconfig.cert_data,
            key_file=kubeconfig.key_file,
            key_data=kubeconfig.key_data,
            token=kubeconfig.token,
            token_file=kubeconfig.token_file,
            tls_server_name=kubeconfig.tls_server_name,
        )


@dataclass(frozen=True)
class HubConfig:
    """
    The hub's configuration; names as those of the flags, times in seconds, port 0 for a listener that is not wanted.
    """

    servers: tuple[str, ...]
    node_name: str
    credentials: NodeCredentials
    kubeconfig: str | None = None
    join: JoinSettings | None = None
    """How the hub gets an identity of its own; None when it was given one."""
    hub_cert_organizations: tuple[str, ...] = ()
    bind_address: str = "127.0.0.1"
    serve_port: int = 10267
    bind_proxy_addresses: tuple[str, ...] = ("127.0.0.1",)
    proxy_port: int = 10261
    proxy_secure_port: int = 10268
    root_dir: str = "/var/lib/yurthub"
    disk_cache_path: str = "/etc/kubernetes/cache"
    cache_exclude: tuple[str, ...] = ()
    cache_quota: Quota = field(default_factory=Quota)
    gc_frequency: float = 7200.0
    static_pods: str = MANIFESTS
    cache_agents: tuple[str, ...] = DEFAULT_CACHE_AGENTS
    agent_aliases: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_ALIASES))
    lb_mode: str = "rr"
    watch_failover: float = 1.0
    heartbeat_interval: float = 10.0
    kubelet_health_grace_period: float = 40.0
    max_requests_in_flight: int = 250
    offline_miss: int = 503
    offline_token: str = "cached"
    filters: FilterSettings = field(default_factory=FilterSettings)
    pod_link: PodLinkSettings = field(default_factory=PodLinkSettings)
