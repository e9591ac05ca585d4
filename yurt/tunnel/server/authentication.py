"""
Who is asking: by a client certificate of the cluster's CA, or by a bearer token that the API server knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from hashlib import sha256
from typing import Any, Protocol

from cryptography.x509 import Certificate
from cryptography.x509.oid import NameOID
from twisted.internet.interfaces import IReactorTime

from yurt.host.destination import is_own_address, local_destination, plain_address
from yurt.http.heads import get_header
from yurt.http.interfaces import Headers, IncomingRequest
from yurt.kube.api import ApiError
from yurt.tunnel.server.recent import Recent
from yurt.tunnel.server.routing import Refused, is_loopback

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"

AUTHENTICATED = "system:authenticated"
"""The group that everyone is in whom an API server knows."""

MAX_TOKENS = 1024
"""Tokens whose owner is remembered, by their digest."""
TOKEN_KEPT = 60.0
REFUSED_TOKEN_KEPT = 10.0
"""Seconds for which the API server's word on a token holds: that it is somebody's, that it is nobody's."""

BROWSERS_SAY = frozenset((b"origin", b"sec-fetch-site"))
"""Headers of requests that a page makes, which no client of kubelets sends in plain text."""

MAX_TOKEN_BYTES = 16 * 1024
"""The longest token that is taken; those of service accounts have about a thousand bytes."""


class Entrance(Enum):
    """
    How a request came in; the ``door`` of an :class:`IncomingRequest`.  By TLS; in plain text from this machine; by the
    socket that is only for who may open it.  The values are those of the metrics' ``door``.
    """

    TLS = "tls"
    PLAIN = "plain"
    EGRESS = "egress"


@dataclass(frozen=True, slots=True)
class Caller:
    """
    Who is asking, in the words of Kubernetes.  ``trusted`` is the machine itself; ``by_token`` tells that the request's bearer
    token was what said so.
    """

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    trusted: bool = False
    by_token: bool = False


MACHINE = Caller("this machine", trusted=True)


class Creates(Protocol):
    """
    The part of :class:`yurt.kube.api.ApiClient` that reviews need.
    """

    async def create(self, path: str, document: dict[str, Any], /) -> dict[str, Any]:
        """
        Create an object.  Raises :class:`ApiError`.
        """


class Authenticator:
    """
    Tells who is asking.  Without an API server tokens are not known.
    """

    def __init__(self, reactor: IReactorTime, api: Creates | None) -> None:
        self._api = api
        self._recent: Recent[Caller | None] = Recent(
            reactor, lambda caller: TOKEN_KEPT if caller else REFUSED_TOKEN_KEPT, MAX_TOKENS
        )

    async def caller_of(self, request: IncomingRequest) -> Caller:
        """
        Who sent ``request``.  Raises :class:`Refused`.
        """
        known = self.known_caller_of(request)
        if known is not None:
            return known
        shown = bearer_token(request.head.headers)
        if shown is None:
            message = "show a client certificate of the cluster's CA, or a token in Authorization: there was neither"
            raise Refused(401, "Unauthorized", "unauthenticated", message)
        return await self._caller_of_token(shown[1])

    def known_caller_of(self, request: IncomingRequest) -> Caller | None:
        """
        Who sent ``request``, where nobody has to be asked; None where a token must tell.  Raises :class:`Refused`.
        """
        if request.door is Entrance.EGRESS:
            return MACHINE
        if request.door is Entrance.TLS:
            certificate = request.client_certificate
            return None if certificate is None else caller_of_certificate(certificate)
        if not BROWSERS_SAY.isdisjoint([name.lower() for name, _ in request.head.headers]):
            raise Refused(403, "Forbidden", "forbidden", "plain HTTP is not for browsers: any page could ask")
        if is_from_here(request):
            return MACHINE
        message = (
            "plain HTTP is for callers on this host; others come by TLS, to port 10263 unless it was given another, with a "
            "client certificate or a token; where the node's port speaks plain HTTP that port is to be their HTTP proxy "
            "(Prometheus: proxy_url)"
        )
        raise Refused(403, "Forbidden", "forbidden", message)

    async def _caller_of_token(self, token: str) -> Caller:
        caller = None
        if self._api is not None and len(token) <= MAX_TOKEN_BYTES:
            try:
                caller = await self._recent.get(sha256(token.encode()).digest(), lambda: self._review(token))
            except ApiError as error:
                message = f"the token cannot be checked: {error.message}"
                raise Refused(503, "ServiceUnavailable", "unauthenticated", message) from error
        if caller is None:
            known = "without --kubeconfig no token is known" if self._api is None else "the API server does not know the token"
            raise Refused(401, "Unauthorized", "unauthenticated", known)
        return caller

    async def _review(self, token: str) -> Caller | None:
        assert self._api is not None
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        answer = await self._api.create(REVIEWS, review)
        status = answer.get("status") or {}
        user = status.get("user") or {}
        if not status.get("authenticated") or not user.get("username"):
            return None
        extra = {key: tuple(values) for key, values in (user.get("extra") or {}).items()}
        return Caller(user["username"], tuple(user.get("groups") or ()), user.get("uid") or "", extra, by_token=True)


def is_from_here(request: IncomingRequest) -> bool:
    """
    Whether whoever sent a request is on this host: it came from loopback; or it ended there and came from another address of this
    host, as when a rule turns what was dialled by the address of a Service.
    """
    peer = plain_address(str(getattr(request.peer, "host", "")))
    if is_loopback(peer):
        return True
    connection = request.tcp_socket
    return bool(peer) and connection is not None and is_loopback(local_destination(connection)[0]) and is_own_address(peer)


def bearer_token(headers: Headers) -> tuple[bytes, str] | None:
    """
    The header with the token that is meant for this server, and the token; None if there is none.  What is shown to a proxy is
    not meant for whom the request is for, so it goes before the rest.
    """
    for name in (b"proxy-authorization", b"authorization"):
        words = (get_header(headers, name) or b"").decode("latin-1").split()
        if len(words) == 2 and words[0].lower() == "bearer":
            return name, words[1]
    return None


def caller_of_certificate(certificate: Certificate) -> Caller:
    """
    The user that a verified certificate is of, as Kubernetes reads it: the common name, and the organizations as groups.
    Raises :class:`Refused`.
    """
    if certificate.not_valid_after_utc < datetime.now(timezone.utc):
        message = f"the client certificate has expired at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
        raise Refused(401, "Unauthorized", "unauthenticated", message)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not names or not names[0].value:
        raise Refused(401, "Unauthorized", "unauthenticated", "the client certificate has no common name, which is the user's")
    groups = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return Caller(str(names[0].value), (*(str(group.value) for group in groups), AUTHENTICATED))
