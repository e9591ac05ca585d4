"""
How a daemon of a node that the cluster may not know yet gets at an API server: by its own certificate while that is valid, by
what else speaks for the node, by a token, or by a kubeconfig made for that.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from twisted.logger import Logger

from yurt import __version__
from yurt.files import write_private
from yurt.http.client import HTTPUpstream
from yurt.http.environment import proxy_for
from yurt.kube.api import ApiClient, ApiError, Document, client_from_kubeconfig
from yurt.kube.bootstrap import (
    CLUSTER_INFO_PATH,
    BootstrapError,
    BootstrapToken,
    parse_token,
    read_authorities,
    signed_kubeconfig,
    trusted_authorities,
)
from yurt.kube.csr.files import read_small
from yurt.kube.csr.pem import Held
from yurt.kube.csr.service import AccessError
from yurt.kube.kubeconfig import KubeconfigError, load_kubeconfig
from yurt.tls import ClientTLS, Credentials, CredentialsError

KUBELET_CERTIFICATE = "/var/lib/kubelet/pki/kubelet-client-current.pem"
"""Where kubelet keeps its own certificate with the key, when it has one."""
KUBELET_CA = "/etc/kubernetes/pki/ca.crt"
"""Where kubeadm puts the cluster's CA on a node."""

NO_TOKEN = "there is no token: make one with kubeadm token create, and give it by POST /v1/token"
NO_PIN = (
    "--discovery-token-ca-cert-hash is missing: give it as kubeadm prints it, or trust whoever has the token by "
    "--discovery-token-unsafe-skip-ca-verification"
)

Connect = Callable[[str], Awaitable[ApiClient]]
"""Makes a client for a server."""


@dataclass(frozen=True, slots=True)
class Way:
    """
    A way in, and who comes by it; whether that is the holder of a certificate that must be shown with the request.
    """

    asker: str
    connect: Connect
    shows_held: bool = False


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """
    How to join: the API servers, and where a token comes from.  ``join_token`` is one, or the path of a file with one;
    ``ca_hashes`` pin the cluster's CA, which only ``skip_ca_verification`` makes needless.
    """

    servers: tuple[str, ...]
    join_token: str = field(default="", repr=False)
    bootstrap_file: str = ""
    ca_hashes: frozenset[str] = frozenset()
    skip_ca_verification: bool = False


class JoinFiles:
    """
    What joining keeps in a folder, beside the certificates in ``pki/`` or elsewhere: the cluster's CA, and a token that was
    handed in.
    """

    def __init__(self, root: str, pki: str = "") -> None:
        self.pki = Path(pki) if pki else Path(root) / "pki"
        self.ca = self.pki / "ca.crt"
        self.token = Path(root) / "join-token"

    def read_ca(self) -> bytes:
        """
        The CA; empty when there is none that can be used.
        """
        with suppress(OSError, ValueError):
            pem = read_small(self.ca)
            if pem and x509.load_pem_x509_certificates(pem):
                return pem
        return b""


class JoinAccess:
    """
    See :class:`yurt.kube.csr.service.Access`.  ``trusted()`` is called when another CA was found to be the cluster's.

    After an attempt that failed the next one has another way or another server.  ``is_node`` says whether the certificate that is
    held tells the API server which node it is of.  ``kubeconfigs()`` are those of the node itself.  ``advice`` is for when there
    is no way.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        product: str,
        settings: JoinSettings,
        files: JoinFiles,
        trusted: Callable[[], object],
        *,
        is_node: bool = True,
        kubeconfigs: Callable[[], Sequence[str]] = tuple,
        advice: str = NO_TOKEN,
        kubelet_certificate: str = KUBELET_CERTIFICATE,
        kubelet_ca: str = KUBELET_CA,
    ) -> None:
        self.asker = ""
        self.others = False
        self.shows_held = False
        self._reactor = reactor
        self._agent = (b"User-Agent", f"{product}/{__version__}".encode())
        self._product = product
        self._settings = settings
        self._files = files
        self._trusted = trusted
        self._is_node = is_node
        self._kubeconfigs = kubeconfigs
        self._advice = advice
        self._kubelet_certificate = kubelet_certificate
        self._kubelet_ca = kubelet_ca
        self._turn = 0
        self._urgent = False

    # What the certificate's service asks

    async def client(self, held: Held | None) -> ApiClient:
        """
        A client by the next way that there is.
        """
        try:
            ways = list(self._ways(held))
            if not ways:
                self._turn = -1  # the first that there will be is tried first
                raise AccessError("".join((self._advice, *self._absent())))
            way, servers = ways[self._turn % len(ways)], self._settings.servers or ("",)
            self.asker, self.others, self.shows_held = way.asker, len(ways) > 1, way.shows_held
            return await way.connect(servers[self._turn // len(ways) % len(servers)])
        except (BootstrapError, KubeconfigError, CredentialsError) as error:
            raise AccessError(str(error)) from None

    def failed(self, error: Exception) -> None:
        """
        Go another way the next time.
        """
        self._turn += 1

    def served(self) -> None:
        """
        The tokens have served: none stays on disk.
        """
        self._turn, self._urgent = 0, False
        for path in self._secrets():
            try:
                path.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                self.log.warn("{path}: cannot be removed: {error}; remove it", path=str(path), error=error.strerror)
                continue
            self.log.info("{path}: removed, it has served", path=str(path))

    def accept_token(self, text: str) -> None:
        """
        Take a new token, and use it first.  Raises BootstrapError and OSError.
        """
        write_private(self._files.token, parse_token(text).bearer.encode())
        self._turn, self._urgent = 0, True

    # The ways

    def _secrets(self) -> Iterator[Path]:
        yield self._files.token
        if os.path.isabs(self._settings.join_token):
            yield Path(self._settings.join_token)
        if self._settings.bootstrap_file:
            yield Path(self._settings.bootstrap_file)

    def _absent(self) -> Iterator[str]:
        """
        Which files an operator named that are not there: each has served, or its path is wrong.
        """
        for path in self._secrets():
            if path != self._files.token and not path.exists():
                yield f"; {path} is not there"

    def _ways(self, held: Held | None) -> list[Way]:
        """
        The ways that there are, the best first; a token that was just handed in is better than a certificate.
        """
        node = [Way(f"node by {path}", partial(self._by_node, path)) for path in self._kubeconfigs()]
        if held is not None and self._files.read_ca() and self._settings.servers:
            own = Way("node" if self._is_node else "itself", partial(self._by_certificate, held.pem), not self._is_node)
            node.insert(0 if self._is_node else len(node), own)
        ways = [Way(f"token {token.id}", partial(self._by_token, token)) for token in self._tokens()]
        ways = [*ways, *node] if self._urgent else [*node, *ways]
        if self._settings.bootstrap_file and os.path.exists(self._settings.bootstrap_file):
            ways.append(Way("bootstrap file", self._by_kubeconfig))
        has_ca = self._files.read_ca() or os.path.exists(self._kubelet_ca)
        if self._settings.servers and has_ca and os.path.exists(self._kubelet_certificate):
            ways.append(Way("kubelet", self._by_kubelet))
        return ways

    def _tokens(self) -> Iterator[BootstrapToken]:
        """
        The tokens that can be read now.
        """
        given = self._settings.join_token
        for path in (str(self._files.token), given if os.path.isabs(given) else ""):
            if path:
                try:
                    text = read_small(Path(path)).decode("latin-1")
                    if text.strip():
                        yield parse_token(text)
                except OSError as error:
                    self.log.warn("{path}: {error}", path=path, error=error.strerror)
                except BootstrapError as error:
                    self.log.warn("{path}: {error}", path=path, error=error)
        if given and not os.path.isabs(given):
            yield parse_token(given)

    def _api(self, server: str, credentials: Credentials, bearer: str = "", *, verify: bool = True) -> ApiClient:
        tls = ClientTLS(credentials, verify=verify)
        headers = [self._agent, *([(b"Authorization", b"Bearer " + bearer.encode())] if bearer else [])]
        upstream = HTTPUpstream(self._reactor, server, tls, proxy_for(server, os.environ))
        return ApiClient(self._reactor, upstream, lambda: list(headers))

    async def _by_certificate(self, pem: bytes, server: str) -> ApiClient:
        return self._api(server, Credentials(ca_file=str(self._files.ca), cert_data=pem))

    async def _by_node(self, path: str, server: str) -> ApiClient:
        return client_from_kubeconfig(self._reactor, load_kubeconfig(path), self._product)

    async def _by_kubelet(self, server: str) -> ApiClient:
        if not self._files.read_ca():
            self._keep_ca(trusted_authorities(read_small(Path(self._kubelet_ca)), self._settings.ca_hashes))
        return self._api(server, Credentials(ca_file=str(self._files.ca), cert_file=self._kubelet_certificate))

    async def _by_kubeconfig(self, server: str) -> ApiClient:
        kubeconfig = load_kubeconfig(self._settings.bootstrap_file)
        ca = kubeconfig.ca_data
        if ca is None and kubeconfig.ca_file is not None:
            ca = read_small(Path(kubeconfig.ca_file))
        self._keep_ca(trusted_authorities(ca or b"", self._settings.ca_hashes))
        return client_from_kubeconfig(self._reactor, kubeconfig, self._product)

    async def _by_token(self, token: BootstrapToken, server: str) -> ApiClient:
        self._keep_ca(await self._discover(server, token))
        return self._api(server, Credentials(ca_file=str(self._files.ca)), token.bearer)

    # The CA

    async def _discover(self, server: str, token: BootstrapToken) -> bytes:
        """
        The CA that the cluster names to the holder of a token.

        Who has the token could speak for the cluster.  So the server is verified by the CA at hand, or what it says by pins.
        """
        settings, verified, problem = self._settings, bool(self._files.read_ca()), ""
        if verified:
            try:
                return self._said_to(token, await self._cluster_info(server, verify=True), ())
            except ApiError as error:
                problem = f"; by the CA at hand: {error}"
        if not (settings.ca_hashes or settings.skip_ca_verification):
            raise BootstrapError(f"{NO_PIN}{problem}")
        try:
            found = await self._cluster_info(server, verify=False)
        except ApiError as error:
            raise AccessError(f"the cluster cannot be discovered: {error}") from None
        return self._said_to(token, found, settings.ca_hashes)

    def _said_to(self, token: BootstrapToken, cluster_info: Document, pins: Collection[str]) -> bytes:
        return trusted_authorities(read_authorities(signed_kubeconfig(cluster_info, token)), pins)

    async def _cluster_info(self, server: str, *, verify: bool) -> Document:
        api = self._api(server, Credentials(ca_file=str(self._files.ca)) if verify else Credentials(), verify=verify)
        try:
            return await api.get(CLUSTER_INFO_PATH)
        finally:
            api.close()

    async def follow_ca(self) -> None:
        """
        Ask the cluster for its CA over a connection that the CA at hand verifies, and take what it says: so a CA can be exchanged
        by way of one that has both.  Raises ApiError where that cannot be asked, and BootstrapError.
        """
        *others, last = self._settings.servers
        for server in others:
            with suppress(ApiError):
                return self._take_ca(await self._cluster_info(server, verify=True))
        self._take_ca(await self._cluster_info(last, verify=True))

    def _take_ca(self, found: Document) -> None:
        self._keep_ca(trusted_authorities(read_authorities((found.get("data") or {}).get("kubeconfig") or ""), ()))

    def _keep_ca(self, pem: bytes) -> None:
        if pem == self._files.read_ca():
            return
        write_private(self._files.ca, pem)
        self.log.info("{path}: the cluster's CA was written", path=str(self._files.ca))
        self._trusted()
