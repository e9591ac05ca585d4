"""
The HTTP face of the miniature apiserver: authentication, routing, answers; twisted.web carries it.
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from . import errors, reviews
from .identity import ANONYMOUS, User, user_of_certificate
from .operations import Answer, Asked, read_document
from .routes import Call, read_call, split_target
from .watch import Watcher

if TYPE_CHECKING:
    from .api import MiniAPI

COMPRESS_ABOVE = 128 * 1024
BULK_PIECE = bytes(64 * 1024)
PLAIN = b"text/plain; charset=utf-8"
NOT_READY = b"[-]poststarthook failed: reason withheld\nhealthz check failed"
PUBLIC = ("/healthz", "/livez", "/readyz", "/version")
CLUSTER_INFO = "/api/v1/namespaces/kube-public/configmaps/cluster-info"


class APIResource(Resource):
    """
    Answers every path.
    """

    isLeaf = True

    def __init__(self, api: MiniAPI) -> None:
        super().__init__()
        self._api = api

    def render(self, request: Request) -> int:
        if self._api.delay:
            self._api.delayed += 1
            call = self._api.reactor.callLater(self._api.delay, self._answer, request)
            request.notifyFinish().addErrback(lambda _: call.cancel() if call.active() else None)
        else:
            self._answer(request)
        return NOT_DONE_YET

    def _answer(self, request: Request) -> None:
        if self._api.failure:
            body = f"<html><body><h1>{self._api.failure}</h1>No server is available to handle this request.</body></html>\n"
            _finish(request, self._api.failure, body.encode(), b"text/html")
            return
        try:
            self._route(request)
        except errors.APIError as refusal:
            self._finish(request, Answer.of(refusal.code, refusal.status()))

    def _route(self, request: Request) -> None:
        path, query = split_target(request.uri)
        method = request.method.decode()
        user = self._authenticate(request)
        presented = _peer_certificate(request.channel.transport)
        shown = user_of_certificate(presented.to_cryptography()).name if presented else ""
        if path in self._api.scripted:
            self._api.record(user, method.lower(), path, None, request, shown)
            for name, value in self._api.scripted_headers.items():
                request.setHeader(name, value)
            status, content_type, body = self._api.scripted[path]
            _finish(request, status, body, content_type.encode())
            return
        if method == "POST" and path in (reviews.TOKENS, reviews.ACCESSES):
            self._api.record(user, "create", path, None, request, shown)
            self._authorize(user, "create", path, None)
            self._finish(request, Answer.of(201, reviews.review(self._api, path, read_document(_asked(request)))))
            return
        try:
            call = read_call(self._api.catalogue, method, path, query)
        except errors.APIError:
            self._api.record(user, method.lower(), path, None, request, shown)
            raise
        self._api.record(user, call.verb if call else method.lower(), path, call, request, shown)
        self._authorize(user, method, path, call)
        if call is None:
            self._document(request, path)
        elif call.verb == "watch":
            self._watch(request, call)
        else:
            self._finish(request, self._api.operations.perform(call, _asked(request, user)))

    def _authenticate(self, request: Request) -> User:
        scheme, _, token = (request.getHeader("authorization") or "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return self._api.issuer.user(token.strip())
        certificate = _peer_certificate(request.channel.transport)
        return user_of_certificate(certificate.to_cryptography()) if certificate else ANONYMOUS

    def _authorize(self, user: User, method: str, path: str, call: Call | None) -> None:
        if call is None and (path in PUBLIC or path.startswith("/bulk/")):
            return
        verb = call.verb if call else method.lower()
        if (verb, path) == ("get", CLUSTER_INFO):
            return  # as kubeadm lets everybody
        if user is not ANONYMOUS and self._api.permits(user, verb, call, path):
            return
        if call:
            raise errors.forbidden(user.name, verb, call.resource, call.namespace, call.name, path)
        raise errors.forbidden(user.name, verb, None, "", "", path)

    def _watch(self, request: Request, call: Call) -> None:
        options = self._api.operations.watch_options(call, _asked(request))
        collection = self._api.store.collection(call.resource)
        watcher = Watcher(
            self._api.reactor,
            self._api.store,
            collection,
            self._api.encoder(call.resource),
            request,
            options,
            self._api.bookmark_interval,
        )
        self._api.watchers.add(watcher)
        request.notifyFinish().addBoth(lambda _: self._api.watchers.discard(watcher))
        watcher.begin()

    def _document(self, request: Request, path: str) -> None:
        if path in ("/healthz", "/livez", "/readyz"):
            ready = self._api.ready or path == "/livez"
            _finish(request, 200 if ready else 500, b"ok" if ready else NOT_READY, PLAIN)
        elif path.startswith("/bulk/"):
            _Bulk(request, int(path.rsplit("/", 1)[1])).begin()
        elif (document := self._discovery(path)) is not None:
            self._finish(request, Answer.of(200, document))
        elif path.startswith(("/api/", "/apis/")):
            raise errors.no_such_path()
        else:
            _finish(request, 404, b"404 page not found\n", PLAIN)

    def _discovery(self, path: str) -> dict[str, Any] | None:
        parts = path.strip("/").split("/")
        match parts:
            case ["version"]:
                return self._api.version_document
            case ["api"]:
                return self._api.catalogue.core_versions(self._api.address)
            case ["apis"]:
                return self._api.catalogue.group_list()
            case ["api", version]:
                return self._api.catalogue.resource_list("", version)
            case ["apis", group]:
                return self._api.catalogue.group(group)
            case ["apis", group, version]:
                return self._api.catalogue.resource_list(group, version)
            case ["openapi", "v2"]:
                info = {"title": "Kubernetes", "version": self._api.version_document["gitVersion"]}
                return {"swagger": "2.0", "info": info, "paths": {}, "definitions": {}}
            case ["openid", "v1", "jwks"]:
                return self._api.issuer.jwks()
            case [".well-known", "openid-configuration"]:
                return self._api.issuer.discovery(f"https://{self._api.address}/openid/v1/jwks")
        return None

    def _finish(self, request: Request, answer: Answer) -> None:
        body = answer.body
        if len(body) > COMPRESS_ABOVE and "gzip" in (request.getHeader("accept-encoding") or ""):
            body = gzip.compress(body, 4)
            request.setHeader(b"content-encoding", b"gzip")
            request.setHeader(b"vary", b"Accept-Encoding")
        _finish(request, answer.status, body, b"application/json")


def _peer_certificate(transport: Any) -> Any:
    get = getattr(transport, "getPeerCertificate", None)
    return get() if get else None


def _asked(request: Request, user: User = ANONYMOUS) -> Asked:
    body = request.content.read() if request.content else b""
    content_type = (request.getHeader("content-type") or "").split(";")[0].strip()
    return Asked(body, content_type, request.getHeader("accept") or "", user)


def _finish(request: Request, status: int, body: bytes, content_type: bytes) -> None:
    request.setResponseCode(status)
    request.setHeader(b"content-type", content_type)
    request.setHeader(b"cache-control", b"no-cache, private")
    request.setHeader(b"content-length", b"%d" % len(body))
    if request.method != b"HEAD":
        request.write(body)
    request.finish()


@implementer(IPushProducer)
class _Bulk:
    """
    Zeros without end, or nearly.
    """

    def __init__(self, request: Request, size: int) -> None:
        self._request, self._left = request, size
        self._paused = self._stopped = False

    def begin(self) -> None:
        self._request.setHeader(b"content-type", b"application/octet-stream")
        self._request.setHeader(b"content-length", b"%d" % self._left)
        self._request.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while self._left and not self._paused and not self._stopped:
            piece = BULK_PIECE[: self._left]
            self._left -= len(piece)
            self._request.write(piece)
        if not self._left and not self._stopped:
            self._stopped = True
            self._request.unregisterProducer()
            self._request.finish()

    def stopProducing(self) -> None:
        self._stopped = True
