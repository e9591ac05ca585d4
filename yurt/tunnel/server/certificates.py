"""
The server's own certificates, asked of the cluster when no file was named: one to listen with, and one that kubelets are shown
where TLS of callers ends here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.application.service import IServiceCollection, MultiService, Service
from twisted.internet.interfaces import IDelayedCall

from yurt.kube.api import ApiClient
from yurt.kube.csr.access import KubeconfigAccess
from yurt.kube.csr.files import CertificateFiles
from yurt.kube.csr.service import CertificateService
from yurt.kube.csr.wanted import Wanted, client, serving
from yurt.kube.informer import Informer
from yurt.tls import Credentials
from yurt.tunnel.hello import SERVER_NAME
from yurt.tunnel.server.config import TunnelServerConfig
from yurt.tunnel.server.names import NAMESPACE, SERVICE, TunnelService, read_tunnel_endpoints, read_tunnel_service, serving_names
from yurt.tunnel.server.nodes import Nodes

PRODUCT = "yurt-tunnel-server"
TUNNEL = "openyurt:yurttunnel"
"""The group of the tunnel's daemons."""
PROXY_CLIENT = "tunnel-proxy-client"
"""Who kubelets are called as."""

SETTLE = 2.0
"""Seconds that names may change before a certificate with the new ones is asked for."""
LEARN_TIMEOUT = 30.0
"""Seconds after which the first certificate is asked for even though not all names could be learnt."""


class ServerCertificates(MultiService):
    """
    Keeps ``yurttunnel-server-current.pem`` and ``yurttunnel-server-proxy-client-current.pem`` in ``--cert-dir``.  ``changed()``
    is called when one of them is another one.

    ``host`` is by what other servers reach this one.
    """

    def __init__(
        self,
        reactor: Any,
        config: TunnelServerConfig,
        kubeconfig: str,
        api: ApiClient,
        nodes: Nodes,
        host: str | None,
        changed: Callable[[], object],
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._config = config
        self._nodes = nodes
        self._own = tuple(filter(None, (host, *config.cert_dns_names, *config.cert_ips)))
        path = f"/api/v1/namespaces/{NAMESPACE}"
        self._services: Informer[TunnelService] = Informer(
            reactor, api, f"{path}/services", read_tunnel_service, what="Services for the certificate's names"
        )
        self._endpoints: Informer[tuple[str, ...]] = Informer(
            reactor,
            api,
            f"{path}/endpoints",
            read_tunnel_endpoints,
            what="Endpoints for the certificate's names",
            field_selector=f"metadata.name={SERVICE}",
        )
        self._timer: IDelayedCall | None = None
        access = KubeconfigAccess(reactor, kubeconfig, PRODUCT)

        def keep(name: str, wanted: Wanted) -> CertificateService:
            return CertificateService(reactor, CertificateFiles(config.cert_dir, name), wanted, access, changed)

        self.serving = keep("yurttunnel-server", self._wanted())
        self.proxy_client: CertificateService | None = None
        if not config.kubelet_credentials.has_certificate:
            wanted = client("client certificate for kubelets", PROXY_CLIENT, (TUNNEL,))
            self.proxy_client = keep("yurttunnel-server-proxy-client", wanted)
            self._add(self.proxy_client)
        for informer in (self._services, self._endpoints):
            informer.on_synced(self._learnt)
            informer.subscribe(lambda key, old, new: self._names_changed())
            self._add(informer)
        nodes.subscribe(lambda old, new: self._names_changed())

    def _add(self, child: Service) -> None:
        child.setServiceParent(IServiceCollection(self))

    # What is there

    @property
    def all(self) -> dict[str, CertificateService]:
        """
        The certificates by what they are for.
        """
        found = {"serving": self.serving}
        return found if self.proxy_client is None else {**found, "proxy-client": self.proxy_client}

    def credentials(self) -> Credentials:
        """
        What to listen with, as long as there is something.
        """
        given = self._config.credentials
        return given if self.serving.held is None else replace(given, cert_file=str(self.serving.files.path))

    def kubelet_credentials(self) -> Credentials:
        """
        What kubelets are shown, and verified by.
        """
        given, service = self._config.kubelet_credentials, self.proxy_client
        if service is None or service.held is None:
            return given
        own = str(service.files.path)
        return replace(given, cert_file=own)

    def problems(self) -> list[str]:
        """
        Why there is nothing to show, one sentence each.
        """
        return [service.problem for service in self.all.values() if service.problem]

    def retry(self) -> None:
        """
        Wait no longer.
        """
        for service in self.all.values():
            service.retry()

    # The names

    def startService(self) -> None:
        """
        Begin to learn the names.
        """
        super().startService()
        self._timer = self._reactor.callLater(LEARN_TIMEOUT, self._ask)

    def stopService(self) -> Any:
        """
        Ask no more.
        """
        self._cancel()
        return super().stopService()

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _learnt(self) -> None:
        if self._services.synced and self._endpoints.synced and self.running:
            self._names_changed()

    def _names_changed(self) -> None:
        """
        Ask for what is missing, soon.
        """
        if not self.running or not (self.serving.running or (self._services.synced and self._endpoints.synced)):
            return
        self._cancel()
        self._timer = self._reactor.callLater(SETTLE, self._ask)

    def _ask(self) -> None:
        self._timer = None
        self.serving.want(self._wanted())
        if not self.serving.running:
            self._add(self.serving)

    def _wanted(self) -> Wanted:
        cloud = [node for node in self._nodes.all() if not node.has_agent]
        endpoints = [host for one in self._endpoints.items.values() for host in one]
        named = serving_names(self._services.items.values(), endpoints, cloud, self._own)
        return serving("serving certificate", SERVER_NAME, named.dns, named.addresses)
