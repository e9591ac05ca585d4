"""
The miniature apiserver as tests hold it in their hands.
"""

from __future__ import annotations

import base64
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IOpenSSLServerConnectionCreator
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate, trustRootFromCertificates
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.web.server import Request, Site
from zope.interface import implementer

from tests.certs import Authority, Identity, issue, make_ca

from .gate import Gate
from .identity import TokenIssuer, User
from .operations import Operations, with_defaults
from .resources import BUILT_IN, Catalogue, Document, ResourceType
from .routes import Call
from .site import APIResource
from .store import EVENT_WINDOW, Store, Stored
from .watch import BOOKMARK_INTERVAL, EventEncoder, Watcher

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
MAX_RECORDED = 10_000


@dataclass(frozen=True)
class Seen:
    """
    One request as it arrived.
    """

    user: str
    verb: str
    path: str
    resource: str
    """Plural name, with ``/subresource``; empty for other paths."""
    query: dict[str, str]
    user_agent: str
    accept: str
    headers: dict[str, str]
    """All header fields, names in lower case."""
    certificate: str
    """Common name of the client certificate that the connection presented; empty without one."""


class MiniAPI:
    """
    An apiserver in this process.  Every switch may be thrown at any time.

    ``tls=False`` listens in plain HTTP, where only bearer tokens tell who calls.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        types: Iterable[ResourceType] = (),
        tls: bool = True,
        window: int = EVENT_WINDOW,
        ca: Authority | None = None,
    ) -> None:
        self.reactor = reactor
        self.catalogue = Catalogue((*BUILT_IN, *types))
        self.store = Store(window)
        self.issuer = TokenIssuer()
        self.operations = Operations(self.store, self.catalogue, self.issuer)
        self.ca = ca or make_ca("miniapi")
        self.version_document: Document = {
            "major": "1",
            "minor": "30",
            "gitVersion": "v1.30.0-miniapi",
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "",
            "platform": "linux/amd64",
        }
        self.ready = True
        """Whether /readyz says so."""
        self.failure = 0
        """A status such as 503 with which a load balancer in front answers everything; 0 for none."""
        self.scripted: dict[str, tuple[int, str, bytes]] = {}
        """Status, content type and body of the answers to authenticated requests for these paths, instead of the API's own."""
        self.scripted_headers: dict[str, str] = {}
        """More header fields of those answers."""
        self.delay = 0.0
        self.delayed = 0
        """Requests that have come, whole, and whose answer was delayed."""
        """Seconds before any answer."""
        self.permits: Callable[[User, str, Call | None, str], bool] = lambda user, verb, call, path: True
        """Whether a user (never the anonymous one) may do (user, verb, call, path)."""
        self.bookmark_interval = BOOKMARK_INTERVAL
        self.seen: deque[Seen] = deque(maxlen=MAX_RECORDED)
        self.counts: Counter[tuple[str, str]] = Counter()
        """Requests by (verb, resource with subresource, or path)."""
        self.watchers: set[Watcher] = set()
        self.address = ""
        self._encoders: dict[ResourceType, EventEncoder] = {}
        self._tls = tls
        self._port: IListeningPort | None = None
        self._gate = self._make_gate()
        for name in NAMESPACES:
            self.put("namespaces", {"metadata": {"name": name}})

    def _make_gate(self) -> Gate:
        site = QuietSite(APIResource(self), timeout=None)
        if not self._tls:
            return Gate(site)
        server = issue(self.ca, "kube-apiserver", dns=["localhost", "kubernetes"], ips=["127.0.0.1", "::1"])
        identity = PrivateCertificate.loadPEM(server.key_pem + server.cert_pem)
        options = CertificateOptions(
            privateKey=identity.privateKey.original,
            certificate=identity.original,
            trustRoot=trustRootFromCertificates([Certificate.loadPEM(self.ca.cert_pem)]),
        )
        return Gate(TLSMemoryBIOFactory(_OptionalClientCertificate(options), False, site))

    # Life

    def start(self, interface: str = "127.0.0.1", port: int = 0) -> str:
        """
        Listen; answers the URL.
        """
        self._port = self.reactor.listenTCP(port, self._gate, interface=interface)
        self.address = f"{interface}:{cast(IPv4Address, self._port.getHost()).port}"
        return self.url

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.address}"

    def stop(self) -> Deferred[Any]:
        """
        Close the listener and all connections.
        """
        self._gate.abort_all()
        port, self._port = self._port, None
        return maybeDeferred(port.stopListening) if port else maybeDeferred(lambda: None)

    # Switches

    def cut(self) -> None:
        """
        Let packets vanish: no byte in or out, nothing closed.
        """
        self._gate.cut()

    def refuse(self) -> Deferred[Any]:
        """
        Die as a killed process does: connections reset, new ones refused.
        """
        return self.stop()

    def reset_connections(self) -> None:
        """
        Break every connection and stay.
        """
        self._gate.abort_all()

    def heal(self) -> None:
        """
        Undo cut, refuse, failure, delay and unreadiness.
        """
        self.failure, self.delay, self.ready = 0, 0.0, True
        self._gate.heal()
        if self._port is None and self.address:
            interface, _, port = self.address.rpartition(":")
            self.start(interface, int(port))

    # Objects

    def put(self, plural: str, document: Document, namespace: str = "") -> Stored:
        """
        Create or replace an object behind the server's back; watchers see it.
        """
        resource = self.catalogue.named(plural)
        namespace = (document["metadata"].get("namespace") or namespace or "default") if resource.namespaced else ""
        old = self.store.collection(resource).objects.get((namespace, document["metadata"]["name"]))
        if old is None:
            return self.store.create(resource, namespace, {**with_defaults(resource, document), **document})
        return self.store.replace(resource, old, document)

    def get(self, plural: str, name: str, namespace: str = "default") -> Document:
        """
        An object's document; raises a NotFound APIError.
        """
        resource = self.catalogue.named(plural)
        return self.store.get(resource, namespace if resource.namespaced else "", name).document

    def remove(self, plural: str, name: str, namespace: str = "default") -> None:
        """
        Delete an object at once; watchers see it.
        """
        resource = self.catalogue.named(plural)
        self.store.remove(resource, self.store.get(resource, namespace if resource.namespaced else "", name))

    def compact(self) -> None:
        """
        Forget all history: old resourceVersions and continue tokens are answered with 410 from now on.
        """
        self.store.compact()

    def bookmark(self) -> None:
        """
        Send a bookmark to every watch that asked for them.
        """
        for watcher in tuple(self.watchers):
            if watcher.options.bookmarks:
                watcher.bookmark()

    def encoder(self, resource: ResourceType) -> EventEncoder:
        return self._encoders.setdefault(resource, EventEncoder(resource))

    # Callers

    def token(
        self, account: str = "default", namespace: str = "default", *, seconds: float = 3600, audiences: list[str] | None = None
    ) -> str:
        """
        A token of a service account, which is made when it is missing.
        """
        resource = self.catalogue.named("serviceaccounts")
        if (namespace, account) not in self.store.collection(resource).objects:
            self.put("serviceaccounts", {"metadata": {"name": account, "namespace": namespace}})
        return self.issuer.sign(
            namespace, self.get("serviceaccounts", account, namespace)["metadata"], seconds=seconds, audiences=audiences
        )[0]

    def certificate(self, name: str, *groups: str) -> Identity:
        """
        A client certificate.
        """
        return issue(self.ca, name, list(groups))

    def write_kubeconfig(self, path: Path | str, name: str, *groups: str, server: str = "") -> str:
        """
        A kubeconfig for that user with everything inline; answers its path.
        """
        one = self.certificate(name, *groups)

        def inline(data: bytes) -> str:
            return base64.b64encode(data).decode()

        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "mini",
            "clusters": [
                {
                    "name": "mini",
                    "cluster": {"server": server or self.url, "certificate-authority-data": inline(self.ca.cert_pem)},
                }
            ],
            "users": [
                {"name": "me", "user": {"client-certificate-data": inline(one.cert_pem), "client-key-data": inline(one.key_pem)}}
            ],
            "contexts": [{"name": "mini", "context": {"cluster": "mini", "user": "me"}}],
        }
        file = Path(path)
        file.write_text(yaml.safe_dump(document))
        file.chmod(0o600)
        return str(file)

    # What was asked

    def record(self, user: User, verb: str, path: str, call: Call | None, request: Request, certificate: str = "") -> None:
        resource = "/".join(filter(None, (call.resource.plural, call.subresource))) if call else ""
        self.counts[verb, resource or path] += 1
        self.seen.append(
            Seen(
                user.name,
                verb,
                path,
                resource,
                call.query if call else {},
                request.getHeader("user-agent") or "",
                request.getHeader("accept") or "",
                {name.decode().lower(): values[-1].decode() for name, values in request.requestHeaders.getAllRawHeaders()},
                certificate,
            )
        )

    def count(self, verb: str, what: str) -> int:
        """
        How often it was asked: ``count("list", "pods")``, ``count("get", "/readyz")``.
        """
        return self.counts[verb, what]


class QuietSite(Site):
    """
    A site without access log.
    """

    noisy = False

    def log(self, request: Any) -> None: ...


@implementer(IOpenSSLServerConnectionCreator)
class _OptionalClientCertificate:
    """
    Connections that ask for a client certificate but do not insist on one.
    """

    def __init__(self, options: CertificateOptions) -> None:
        self._context = options.getContext()
        self._context.set_verify(SSL.VERIFY_PEER, lambda connection, certificate, error, depth, ok: bool(ok))

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self._context, None)
