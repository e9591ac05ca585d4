"""
Who is asking: the node, or the subject of a bearer token.

Online the cloud decides; the hub only learns which tokens it accepted.  Offline a token counts when the cloud accepted the
very same one and it has not expired, or when its signature verifies against the cached keys of the cluster's issuer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import Protocol

import msgspec

from yurt.http.heads import get_header
from yurt.http.interfaces import Headers, ResponseHead
from yurt.kube.tokens import Claims, KeySet, TokenError, read_claims

NODE = "node"
"""The identity of callers without credentials on loopback."""

MAX_ACCEPTED_TOKENS = 1000
"""Tokens remembered as accepted by the cloud."""

MAX_PARSED_TOKENS = 256
"""Tokens whose claims and digest are kept parsed in memory."""

SERVICE_ACCOUNT = "system:serviceaccount:"
"""What the subjects of a cluster's own tokens begin with."""

RECOGNISED = frozenset({403, 404, 409, 410, 422})
"""Refusals that an API server gives only to a caller whom it has authenticated."""

KUBERNETES_TYPES = (b"application/json", b"application/vnd.kubernetes.protobuf")

WEBSOCKET_BEARER = b"base64url.bearer.authorization.k8s.io."
"""The subprotocol in which browsers put a bearer token, as kube-apiserver defines it."""


@dataclass(frozen=True, slots=True)
class Door:
    """
    A listening address of the proxy.  Only a door on loopback lends the node's identity to callers without credentials.
    """

    name: str
    lends_node_identity: bool


@dataclass(frozen=True, slots=True)
class Credential:
    """
    What a request shows: nothing (``kind`` "none"), a bearer token, or something the hub only passes on ("other").
    """

    kind: str
    token: str = ""
    impersonates: bool = False


class AcceptedTokenTable(Protocol):
    """
    The part of a store table that is needed here.
    """

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None: ...

    def delete(self, key: bytes) -> None: ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]: ...


class _Verdict(msgspec.Struct):
    """
    What the cloud thinks of a token: whose it is, or nobody's when it was refused.
    """

    subject: str
    expiry: float | None


_NO_CREDENTIAL = Credential("none")
_OTHER_CREDENTIAL = Credential("other")


def read_credential(headers: Headers) -> Credential:
    """
    The credential among ``headers``.

    A bearer token is told only where kube-apiserver certainly looks at the same one and at no other; otherwise a token that
    it never looked at could pass for accepted.
    """
    credential, shown, impersonates = _NO_CREDENTIAL, 0, False
    for name, value in headers:
        length = len(name)
        if length == 13 and name.lower() == b"authorization":
            shown += 1
            credential = _read_authorization(value)
        elif length == 22 and name.lower() == b"sec-websocket-protocol":
            if WEBSOCKET_BEARER in value:
                shown += 1
                credential = _OTHER_CREDENTIAL
        elif length > 12 and name[:12].lower() == b"impersonate-":
            impersonates = True
    if shown > 1:
        credential = _OTHER_CREDENTIAL
    return replace(credential, impersonates=True) if impersonates else credential


def _read_authorization(value: bytes) -> Credential:
    """
    As ``k8s.io/apiserver/pkg/authentication/request/bearertoken``, but for a word after the token, which that ignores.
    """
    parts = value.strip().split(b" ")
    if len(parts) == 2 and parts[0].lower() == b"bearer" and parts[1]:
        return Credential("bearer", parts[1].decode("latin-1"))
    return _OTHER_CREDENTIAL


@lru_cache(MAX_PARSED_TOKENS)
def _parse(token: str) -> tuple[bytes, Claims | None]:
    return sha256(token.encode("latin-1")).digest(), read_claims(token)


class Tokens:
    """
    The tokens that the cloud accepted, and the issuer's keys.

    ``read_keys`` returns the cached ``/openid/v1/jwks`` document, or None; ``now`` the wall clock in seconds.
    """

    def __init__(self, table: AcceptedTokenTable, read_keys: Callable[[], bytes | None], now: Callable[[], float]) -> None:
        self._table = table
        self._read_keys = read_keys
        self._now = now
        self._written: dict[bytes, str] = {}
        self._keys_document: bytes | None = None
        self._keys: KeySet | None = None

    def subject(self, token: str) -> str:
        """
        The identity that ``token`` claims: its subject, with the issuer before it unless that is a service account; for an
        opaque token a name made of its digest.
        """
        digest, claims = _parse(token)
        if claims is None or not claims.subject:
            return "token:" + digest.hex()[:32]
        return claims.subject if claims.subject.startswith(SERVICE_ACCOUNT) else f"{claims.issuer}#{claims.subject}"

    def learn(self, token: str, head: ResponseHead) -> None:
        """
        What the cloud's answer to a request with ``token`` tells about it.  Errors that a proxy on the way may have given tell
        nothing.
        """
        status = head.status
        if status == 401:
            self.refused(token)
        elif 200 <= status < 300 or status == 101:
            self.accepted(token)
        elif status in RECOGNISED and (get_header(head.headers, b"content-type") or b"").startswith(KUBERNETES_TYPES):
            self.accepted(token)

    def accepted(self, token: str) -> None:
        """
        The cloud knew whose ``token`` it is.
        """
        digest, claims = _parse(token)
        if digest in self._written:
            return
        subject = self.subject(token)
        if len(self._written) >= MAX_ACCEPTED_TOKENS:
            self._written.pop(next(iter(self._written)))
        self._written[digest] = subject
        self._put(digest, _Verdict(subject, claims.expiry if claims else None))

    def refused(self, token: str) -> None:
        """
        The cloud answered a request with ``token`` by 401: it no longer counts.
        """
        digest, claims = _parse(token)
        self._written.pop(digest, None)
        if self.identity_offline(token) is not None:
            self._put(digest, _Verdict("", claims.expiry if claims else None))

    def identity_offline(self, token: str) -> str | None:
        """
        Whose token this is as far as can be told without the cloud, or None when it does not count.
        """
        digest, claims = _parse(token)
        now = self._now()
        if claims is not None and claims.expiry is not None and claims.expiry <= now:
            return None
        raw = self._table.get(digest)
        if raw is not None:
            return msgspec.json.decode(raw, type=_Verdict).subject or None
        keys = self._issuer_keys()
        if keys is None:
            return None
        try:
            verified = keys.verify(token, now)
        except TokenError:
            return None
        if verified.audiences and verified.issuer not in verified.audiences:
            return None  # meant for somebody else than the API; kube-apiserver's default audience is its issuer
        return verified.subject if verified.subject.startswith(SERVICE_ACCOUNT) else None

    def _put(self, digest: bytes, verdict: _Verdict) -> None:
        self._table.put(digest, msgspec.json.encode(verdict))
        self._prune()

    def _issuer_keys(self) -> KeySet | None:
        document = self._read_keys()
        if document != self._keys_document:
            self._keys_document = document
            try:
                self._keys = KeySet.from_jwks(document) if document else None
            except TokenError:
                self._keys = None
        return self._keys

    def _prune(self) -> None:
        """
        Forget expired tokens, then the first of the rest, beyond MAX_ACCEPTED_TOKENS.
        """
        entries = list(self._table.scan(b""))
        if len(entries) <= MAX_ACCEPTED_TOKENS:
            return
        now = self._now()
        expiries = {key: msgspec.json.decode(value, type=_Verdict).expiry for key, value in entries}
        by_age = sorted(expiries, key=lambda key: expiries[key] or float("inf"))
        excess = len(entries) - MAX_ACCEPTED_TOKENS
        for place, key in enumerate(by_age):
            expiry = expiries[key]
            if place < excess or (expiry is not None and expiry <= now):
                self._table.delete(key)
                self._written.pop(key, None)
