"""
The hub's own way into the cluster: from a token to a certificate, and to the next one, for as long as it runs.

Nothing waits for this.  What it has is in files below ``--root-dir``, under OpenYurt's names.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import IServiceCollection, MultiService
from twisted.logger import Logger

from yurt.files import write_private
from yurt.hub.config import NodeCredentials
from yurt.kube.authority import AuthorityFollower
from yurt.kube.csr.files import CertificateFiles, read_small
from yurt.kube.csr.service import CertificateService
from yurt.kube.csr.wanted import NODE_PREFIX, NODES, client
from yurt.kube.joining import JoinAccess, JoinFiles, JoinSettings
from yurt.kube.kubeconfig import load_kubeconfig

HUBS = "openyurt:yurthub"
"""The group of all hubs."""


class Joining(MultiService):
    """
    Keeps the node's client certificate.  ``changed()`` is called when another certificate or another CA is there.

    Raises nothing for what it finds on disk.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: JoinSettings,
        root: str,
        node_name: str,
        organizations: tuple[str, ...],
        changed: Callable[[], object],
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._settings = settings
        self._kubeconfig = Path(root) / "yurthub.conf"
        self._changed = changed
        self._wall = wall
        self.files = JoinFiles(root)
        self.access = JoinAccess(reactor, "yurthub", settings, self.files, self._renewed)
        wanted = client("client certificate", f"{NODE_PREFIX}{node_name}", tuple(dict.fromkeys((HUBS, NODES, *organizations))))
        certificate = CertificateFiles(str(self.files.pki), "yurthub", wall)
        self.certificate = CertificateService(reactor, certificate, wanted, self.access, self._renewed, wall=wall)
        self.certificate.setServiceParent(IServiceCollection(self))
        self._good_until = self._look()
        self._authority = AuthorityFollower(reactor, self._follow_ca)
        self._authority.setServiceParent(IServiceCollection(self))

    def credentials(self) -> NodeCredentials:
        """
        What can be shown and trusted now: as long as the cluster's CA is not known, nothing.
        """
        if not self.files.read_ca():
            return NodeCredentials()
        trusted = NodeCredentials(ca_file=str(self.files.ca))
        if self.certificate.held is None:
            return trusted
        return NodeCredentials(ca_file=str(self.files.ca), cert_file=str(self.certificate.files.path))

    def refusal(self) -> str:
        """
        Why the node cannot speak to the cloud; empty when it can.  Asked for each request.
        """
        if self._wall() < self._good_until:
            return ""
        return self.certificate.problem or f"{self.files.ca}: the cluster's CA is missing or torn"

    def _look(self) -> float:
        """
        Until when what is on disk can be used; 0 when it cannot.
        """
        held = self.certificate.held
        return held.not_after if held is not None and self.files.read_ca() else 0.0

    def take_token(self, text: str) -> None:
        """
        Join by a new token, whatever is held.  Raises ValueError for what is no token, and OSError.
        """
        self.access.accept_token(text)
        self.certificate.retry(force=True)

    def startService(self) -> None:
        """
        Begin; see :class:`CertificateService`.
        """
        self._restore_ca()
        self._keep_kubeconfig()
        super().startService()

    def retry(self) -> None:
        """
        Wait no longer, for a certificate or for another CA.
        """
        self.certificate.retry()
        self._authority.look_now()

    def _renewed(self) -> None:
        """
        Use what is new.
        """
        self._good_until = self._look()
        self._keep_kubeconfig()
        self._changed()

    def _keep_kubeconfig(self) -> None:
        """
        Write a kubeconfig, for the tunnel's agent, people and tools, and as a second copy of the CA, unless it is there as it
        should be: the servers may be others now.
        """
        if self.certificate.held is None or not self.files.read_ca():
            return
        text = json.dumps(self._document(), indent=1).encode() + b"\n"
        try:
            if read_small(self._kubeconfig) != text:
                write_private(self._kubeconfig, text)
        except OSError as error:
            self.log.warn("{path}: not written: {error}", path=str(self._kubeconfig), error=error.strerror)

    def _document(self) -> dict[str, Any]:
        certificate = str(self.certificate.files.path)
        authority = base64.b64encode(self.files.read_ca()).decode()
        cluster = {"server": self._settings.servers[0], "certificate-authority-data": authority}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "default-context",
            "clusters": [{"name": "default-cluster", "cluster": cluster}],
            "users": [{"name": "default-auth", "user": {"client-certificate": certificate, "client-key": certificate}}],
            "contexts": [{"name": "default-context", "context": {"cluster": "default-cluster", "user": "default-auth"}}],
        }

    def _restore_ca(self) -> None:
        """
        A CA file that is lost or torn is taken from the kubeconfig: without it no certificate is of use.
        """
        if self.files.read_ca() or not self._kubeconfig.exists():
            return
        try:
            write_private(self.files.ca, load_kubeconfig(str(self._kubeconfig)).ca_data or b"")
            self._renewed()
        except (OSError, ValueError) as error:
            self.log.warn("{path}: cannot be restored: {error}", path=str(self.files.ca), error=str(error))

    async def _follow_ca(self) -> None:
        if self.certificate.held is not None:  # else joining finds it
            await self.access.follow_ca()
