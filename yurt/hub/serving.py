"""
The certificate of the hub's HTTPS doors: asked of the cluster by the node, as any kubelet asks for its own.

However the hub came by the node's identity, it asks over the connections to the cloud that it has anyway.  Nothing waits for
this; until there is a certificate, the doors refuse the hand-shake.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from twisted.application.service import IServiceCollection, MultiService
from twisted.logger import Logger

from yurt import __version__
from yurt.http.interfaces import Exchange, RequestHead, ResponseReceiver, Upstream
from yurt.hub.cloud import Cloud
from yurt.kube.api import ApiClient
from yurt.kube.csr.enrolment import State
from yurt.kube.csr.files import CertificateFiles
from yurt.kube.csr.pem import Held, has_issued
from yurt.kube.csr.service import AccessError, CertificateService
from yurt.kube.csr.wanted import NODE_PREFIX, serving
from yurt.tls import Credentials, CredentialsError, ServerTLS

AGENT = (b"User-Agent", f"yurthub/{__version__}".encode())


class SharedUpstream:
    """
    An upstream that others use, too: whoever is done with it closes nothing.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.name = upstream.name
        self._upstream = upstream

    @property
    def open_connections(self) -> int:
        """
        See :class:`Upstream`.
        """
        return self._upstream.open_connections

    def send(self, head: RequestHead, receiver: ResponseReceiver, **how: bool) -> Exchange:
        """
        See :class:`Upstream`.
        """
        return self._upstream.send(head, receiver, **how)

    def close_connections(self, reason: str) -> None:
        """
        They are not ours.
        """

    def retire_connections(self) -> None:
        """
        They are not ours.
        """


class NodeAccess:
    """
    See :class:`yurt.kube.csr.service.Access`: the node asks, whichever server of the cloud is well.
    """

    asker = ""
    others = False
    shows_held = False

    def __init__(self, reactor: Any, cloud: Cloud) -> None:
        self._reactor = reactor
        self._cloud = cloud

    async def client(self, held: Held | None) -> ApiClient:
        """
        A client that speaks as the node.
        """
        server = self._cloud.pick()
        if server is None:
            raise AccessError(f"it is asked for when the cloud is there: {self._cloud.reason}")
        return ApiClient(self._reactor, SharedUpstream(server.upstream), lambda: [AGENT, *self._cloud.node_headers()])

    def failed(self, error: Exception) -> None:
        """
        The cloud knows itself how its servers are.
        """

    def served(self) -> None:
        """
        Nothing was used up.
        """


class Serving(MultiService):
    """
    Keeps ``pki/yurthub-server-current.pem`` below ``root``, with ``addresses`` as its names, and the TLS that shows it.
    ``changed()`` is called when another certificate is there.

    One that has expired is shown as well: whoever verifies it is told why it fails, and the door is the same door again as soon
    as the cloud is back.  Raises nothing for what it finds on disk.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        cloud: Cloud,
        root: str,
        node_name: str,
        addresses: tuple[str, ...],
        changed: Callable[[], object],
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._changed = changed
        self._wanted = serving("serving certificate", f"{NODE_PREFIX}{node_name}", (), addresses)
        files = CertificateFiles(str(Path(root) / "pki"), "yurthub-server", wall)
        access = NodeAccess(reactor, cloud)
        self.certificate = CertificateService(reactor, files, self._wanted, access, self._renewed, wall=wall)
        self.certificate.setServiceParent(IServiceCollection(self))
        self.tls = ServerTLS(Credentials())
        self._show()
        cloud.subscribe(self._cloud_changed)

    @property
    def shown(self) -> Held | None:
        """
        The certificate that is shown, valid or expired; None while there is none.
        """
        held = self.certificate.enrolment.held
        return held if held is not None and held.is_of(self._wanted) else None

    @property
    def expired(self) -> bool:
        """
        Whether clients that were sent here are shown a certificate that they cannot accept.
        """
        return self.shown is not None and self.certificate.problem is not None

    def names(self, address: str) -> bool:
        """
        Whether the certificate that is shown is one for this address.
        """
        return self.shown is not None and str(ip_address(address)) in self.shown.addresses

    def follow(self, authorities: bytes) -> None:
        """
        The cluster's CAs are these, in PEM: a certificate that none of them vouches for is followed by another one at once.
        """
        if self.shown is not None and not is_vouched_for(self.shown.pem, authorities):
            self.certificate.retry(force=True)

    def _renewed(self) -> None:
        self._show()
        self._changed()

    def _show(self) -> None:
        """
        Use what is there for new connections; those that are open go on.
        """
        if self.shown is None:
            return
        try:
            self.tls.replace(Credentials(cert_file=str(self.certificate.files.path)))
        except CredentialsError as error:
            self.log.error("the serving certificate cannot be used: {error}", error=str(error))

    def _cloud_changed(self, reachable: bool) -> None:
        """
        Ask at once when somebody can be asked again; not anew for what was denied: each request is one more for people to see.
        """
        was_denied = self.certificate.status()["state"] == State.DENIED.value
        if reachable and self.running and self.certificate.problem is not None and not was_denied:
            self.certificate.retry()


def is_vouched_for(pem: bytes, authorities: bytes) -> bool:
    """
    Whether a certificate, or one of the chain after it, was issued by one of the authorities; also where these cannot be read.
    """
    try:
        known = x509.load_pem_x509_certificates(authorities)
    except ValueError:
        return True
    return any(has_issued(issuer, one) for one in x509.load_pem_x509_certificates(pem) for issuer in known)


def serving_addresses(addresses: Iterable[str]) -> tuple[str, ...]:
    """
    The addresses that a certificate can name, each once; not those that stand for all of a machine.
    """
    known = [ip_address(one) for one in addresses]
    return tuple(dict.fromkeys(str(one) for one in known if not one.is_unspecified))
