"""
The agent's own certificate, asked of the cluster when no file was named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import IServiceCollection, MultiService, Service

from yurt.kube.csr.access import KubeconfigAccess
from yurt.kube.csr.files import CertificateFiles
from yurt.kube.csr.service import CertificateService
from yurt.kube.csr.wanted import client
from yurt.tls import ClientTLS, Credentials, CredentialsError
from yurt.tunnel.agent.config import AgentConfig
from yurt.tunnel.hello import AGENT_NAME

TUNNEL = "openyurt:yurttunnel"
"""The group of the tunnel's daemons."""
CA_PERIOD = 60.0
"""Seconds between two looks whether the kubeconfig names another CA."""


class AgentCertificate(MultiService):
    """
    Keeps the certificate of the node's agent in ``--cert-dir``, under OpenYurt's name.  ``changed()`` is called when it, or the
    CA, is another one.
    """

    def __init__(self, reactor: Any, config: AgentConfig, kubeconfig: str, changed: Callable[[], object]) -> None:
        super().__init__()
        self._given = config.credentials
        self._changed = changed
        self._access = KubeconfigAccess(reactor, kubeconfig, "yurt-tunnel-agent")
        wanted = client("client certificate", AGENT_NAME, (TUNNEL,), (config.node_name,), config.node_ips)
        files = CertificateFiles(config.cert_dir, "yurttunnel-agent")
        self.service = CertificateService(reactor, files, wanted, self._access, changed)
        self._authority = self._read_authority()
        looking = TimerService(CA_PERIOD, self._look)
        looking.clock = reactor
        for child in (self.service, looking):
            self._add(child)

    def _add(self, child: Service) -> None:
        child.setServiceParent(IServiceCollection(self))

    def credentials(self) -> Credentials:
        """
        What can be shown to servers now, and by what they are verified.
        """
        if self.service.held is None:
            return self._authority
        return replace(self._authority, cert_file=str(self.service.files.path))

    @property
    def problem(self) -> str | None:
        """
        Why no server can be dialled.
        """
        if self._authority == Credentials():
            return "the kubeconfig names no CA to verify the servers by, and there is no --client-ca-file"
        return self.service.problem

    def _read_authority(self) -> Credentials:
        if self._given.ca_file is not None:
            return self._given  # is looked at by those who use it
        found = self._access.authority()
        try:
            ClientTLS(found)
        except CredentialsError:
            return Credentials()
        return found

    def _look(self) -> None:
        before, self._authority = self._authority, self._read_authority()
        if self._authority != before:
            self._changed()
