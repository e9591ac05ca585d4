"""
The agent's own certificate, asked of the cluster when no file was named.

It is bound to the node by its DNS name, while its common name is that of all agents.  So the node asks for the next one, by the
certificate of its hub or of its kubelet; where neither is to be had the agent does, and shows the one at hand.  A token asks for
the first one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import IServiceCollection, MultiService, Service

from yurt.kube.authority import AuthorityFollower
from yurt.kube.csr.files import CertificateFiles
from yurt.kube.csr.service import CertificateService
from yurt.kube.csr.wanted import client
from yurt.kube.joining import JoinAccess, JoinFiles
from yurt.kube.kubeconfig import KubeconfigError, load_kubeconfig
from yurt.tls import ClientTLS, Credentials, CredentialsError
from yurt.tunnel.agent.config import AgentConfig
from yurt.tunnel.hello import AGENT_NAME

TUNNEL = "openyurt:yurttunnel"
"""The group of the tunnel's daemons."""
CA_PERIOD = 60.0
"""Seconds between two looks whether a kubeconfig names another CA."""
NODE_KUBECONFIGS = ("/var/lib/yurthub/yurthub.conf", "/etc/kubernetes/kubelet.conf")
"""Where a node's identity is looked for: that of a hub that has joined, and kubelet's, as OpenYurt's agent does."""
NOBODY_ASKS = (
    f"there is nobody to ask as: neither {' nor '.join(NODE_KUBECONFIGS)} is there, nor a token; let the hub join, or name the "
    "node's kubeconfig by --kubeconfig, or put a token of kubeadm token create into the file of --join-token"
)


class AgentCertificate(MultiService):
    """
    Keeps the certificate of the node's agent in ``--cert-dir``, under OpenYurt's name.  ``changed()`` is called when it, or the
    CA, is another one.
    """

    def __init__(self, reactor: Any, config: AgentConfig, changed: Callable[[], object]) -> None:
        super().__init__()
        self._config = config
        self._changed = changed
        self._files = JoinFiles(os.path.dirname(config.cert_dir), config.cert_dir)
        self._access = JoinAccess(
            reactor,
            "yurt-tunnel-agent",
            config.join,
            self._files,
            self._look,
            is_node=False,
            kubeconfigs=self._kubeconfigs,
            advice=NOBODY_ASKS,
        )
        wanted = client("client certificate", AGENT_NAME, (TUNNEL,), (config.node_name,), config.node_ips)
        files = CertificateFiles(config.cert_dir, "yurttunnel-agent")
        self.service = CertificateService(reactor, files, wanted, self._access, self._renewed)
        self._authority = self._read_authority()
        self._follower = AuthorityFollower(reactor, self._follow_ca)
        looking = TimerService(CA_PERIOD, self._look)
        looking.clock = reactor
        for child in (self.service, looking, self._follower):
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
        if self.service.problem is None and self._authority == Credentials():
            return "no kubeconfig names a CA to verify the servers by, and there is no --client-ca-file"
        return self.service.problem

    def retry(self) -> None:
        """
        Wait no longer, for a certificate or for another CA.
        """
        self.service.retry()
        self._look()
        self._follower.look_now()

    def _kubeconfigs(self) -> Sequence[str]:
        """
        The node's: the one that was named, or those that are there.
        """
        given = self._config.kubeconfig
        return [given] if given else [path for path in NODE_KUBECONFIGS if os.path.exists(path)]

    def _read_authority(self) -> Credentials:
        """
        The CA of the servers: as it was named, of a kubeconfig, or as joining found it.
        """
        if self._config.credentials.ca_file is not None:
            return self._config.credentials  # is looked at by those who use it
        found = [credentials for path in self._kubeconfigs() if (credentials := _authority_of(path))]
        if not found and self._files.read_ca():
            found.append(Credentials(ca_data=self._files.read_ca()))
        return next((one for one in found if _is_usable(one)), Credentials())

    def _renewed(self) -> None:
        self._authority = self._read_authority()  # a kubeconfig may have come with it
        self._changed()

    def _look(self) -> None:
        before, self._authority = self._authority, self._read_authority()
        if self._authority != before:
            self._changed()

    async def _follow_ca(self) -> None:
        if self._files.read_ca() and self._config.join.servers:
            await self._access.follow_ca()


def _authority_of(path: str) -> Credentials | None:
    """
    The CA of a kubeconfig, if it can be read and names one.
    """
    try:
        kubeconfig = load_kubeconfig(path)
    except KubeconfigError:
        return None
    if kubeconfig.ca_file is None and kubeconfig.ca_data is None:
        return None
    return Credentials(ca_file=kubeconfig.ca_file, ca_data=kubeconfig.ca_data)


def _is_usable(authority: Credentials) -> bool:
    try:
        ClientTLS(authority)
    except CredentialsError:
        return False
    return True
