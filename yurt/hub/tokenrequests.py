"""
TokenRequest: what kubelet asks for pods' service-account tokens.

The cloud's answers are kept.  Without the cloud the last real token for the same service account, audiences and bound
object is given as long as it is valid; after that only OpenYurt's way (``--offline-token fake``) has an answer at all.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, Protocol

import msgspec

from yurt.http.heads import get_header
from yurt.http.interfaces import RequestHead, ResponseHead, UpstreamError
from yurt.hub.accept import is_json, narrow, read_accept
from yurt.hub.answers import FROM_HUB, JSON, cached_headers
from yurt.hub.cache.views import Caller
from yurt.hub.writes import KeptWrite
from yurt.kube.protobuf import MAGIC, ProtobufError, fields, messages, read_unknown

MAX_TOKEN_REQUESTS = 2000
"""Answers that are kept; the one that expires first is dropped."""

FAKE_KEY = "openyurt"
FAKE_LIFETIME = 60
"""OpenYurt's made-up token: HS256 with this key, for so many seconds (reference: yurthub v1.4, TokenRequest offline)."""


class TokenTable(Protocol):
    """
    The part of a store table that is needed here.
    """

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None: ...

    def delete(self, key: bytes) -> None: ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]: ...


class _Spec(msgspec.Struct):
    class Bound(msgspec.Struct):
        kind: str = ""
        name: str = ""
        uid: str = ""

    audiences: list[str] | None = None
    boundObjectRef: Bound | None = None


class _Request(msgspec.Struct):
    spec: _Spec


class _Answer(msgspec.Struct):
    class Spec(msgspec.Struct):
        expirationSeconds: int = 3600  # the API's default

    class Status(msgspec.Struct):
        token: str = ""
        expirationTimestamp: str = ""

    status: Status
    spec: Spec = msgspec.field(default_factory=Spec)


class TokenAnswers:
    """
    The cloud's answers to TokenRequests, by who asked for what.
    """

    def __init__(self, table: TokenTable, now: Callable[[], float]) -> None:
        self._table = table
        self._now = now

    def keep(self, key: bytes, answer: bytes) -> None:
        """
        Keep an answer of the cloud.
        """
        if _expiry(answer) is None:
            return
        self._table.put(key, answer)
        entries = {entry: _expiry(raw) or 0.0 for entry, raw in self._table.scan(b"")}
        now = self._now()
        for entry in [entry for entry, expiry in entries.items() if expiry <= now]:
            self._table.delete(entry)
            del entries[entry]
        for entry in sorted(entries, key=lambda entry: entries[entry])[: max(0, len(entries) - MAX_TOKEN_REQUESTS)]:
            self._table.delete(entry)

    def clear(self) -> None:
        """
        Forget all.
        """
        for key, _ in list(self._table.scan(b"")):
            self._table.delete(key)

    def find(self, key: bytes) -> bytes | None:
        """
        The kept answer, while its token is valid.
        """
        answer = self._table.get(key)
        expiry = None if answer is None else _expiry(answer)
        return answer if expiry is not None and expiry > self._now() else None


class TokenRequestWrite(KeptWrite):
    """
    POST of a TokenRequest.
    """

    def upstream_head(self) -> RequestHead:
        """
        Ask for JSON, so that the answer can be read.
        """
        head = super().upstream_head()
        accept = read_accept(get_header(head.headers, b"accept"))
        return narrow(head, accept.narrowed, plain=True) if accept.json else head

    def keeps(self, head: ResponseHead) -> bool:
        """
        Keep real tokens.
        """
        return head.status in (200, 201) and is_json(get_header(head.headers, b"content-type"))

    def store(self, head: ResponseHead, body: bytes) -> None:
        """
        The token may be needed again without the cloud, and then not be taken for one of the future.
        """
        key = self.key()
        if key is not None:
            self.hub.token_answers.keep(key, body)
            self.hub.known_time.keep()

    def keep_locally(self) -> bool:
        """
        The last real token for the same request, or none.
        """
        key = self.key()
        answer = None if key is None else self.hub.token_answers.find(key)
        if answer is not None:
            self.request.respond(201, cached_headers(issued_at(answer), self.hub.now()), answer)
            self.done()
            return True
        if self.hub.config.offline_token == "fake":
            self.request.respond(201, [JSON, FROM_HUB], self.fake())
            self.done()
            return True
        return False

    def answer_offline(self, error: UpstreamError | None) -> None:
        """
        A request that the cloud may have seen can be made again like any other.
        """
        super().answer_offline(None)

    def key(self) -> bytes | None:
        """
        Who asks, for which service account, audiences and bound object.
        """
        spec = read_token_spec(self.body)
        return None if spec is None else token_key(self.caller, self.info.namespace, self.info.name, spec)

    def fake(self) -> bytes:
        """
        A token that nobody can verify, as OpenYurt gives out.
        """
        import jwt  # here, because almost nobody wants fake tokens

        issued = int(self.hub.now())
        subject = f"system:serviceaccount:{self.info.namespace}:{self.info.name}"
        claims = {"iss": "openyurt", "sub": subject, "iat": issued, "exp": issued + FAKE_LIFETIME}
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(issued + FAKE_LIFETIME))
        answer: dict[str, Any] = {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": self.info.name, "namespace": self.info.namespace},
            "spec": {"audiences": [], "expirationSeconds": FAKE_LIFETIME},
            "status": {"token": jwt.encode(claims, FAKE_KEY, algorithm="HS256"), "expirationTimestamp": expires},
        }
        return msgspec.json.encode(answer)


TokenSpec = tuple[tuple[str, ...], str, str, str]
"""Sorted audiences, and kind, name and uid of the bound object."""


def read_token_spec(body: bytes) -> TokenSpec | None:
    """
    What a TokenRequest in JSON or protobuf asks for; None when it cannot be read.
    """
    try:
        return _read_protobuf_spec(body) if body.startswith(MAGIC) else _read_json_spec(body)
    except (msgspec.DecodeError, ProtobufError, UnicodeDecodeError):
        return None


def _read_json_spec(body: bytes) -> TokenSpec:
    spec = msgspec.json.decode(body, type=_Request).spec
    bound = spec.boundObjectRef or _Spec.Bound()
    return tuple(sorted(spec.audiences or ())), bound.kind, bound.name, bound.uid


def _read_protobuf_spec(body: bytes) -> TokenSpec:
    """
    TokenRequestSpec{audiences=1, boundObjectRef=3{kind=1, apiVersion=2, name=3, uid=4}, expirationSeconds=4}: field 2 of
    TokenRequest (generated.proto of k8s.io/api/authentication/v1).
    """
    spec = messages(read_unknown(body)[1]).get(2, b"")
    audiences = [value.decode() for number, value in fields(spec) if number == 1 and isinstance(value, bytes)]
    bound = messages(messages(spec).get(3, b""))
    kind, name, uid = (bound.get(number, b"").decode() for number in (1, 3, 4))
    return tuple(sorted(audiences)), kind, name, uid


def token_key(caller: Caller, namespace: str, name: str, spec: TokenSpec) -> bytes:
    """
    The key under which an answer is kept.
    """
    return sha256(msgspec.json.encode((caller.identity, caller.component, namespace, name, spec))).digest()


def issued_at(answer: bytes) -> float:
    """
    When a kept answer's token was issued, in seconds since the epoch.
    """
    return (_expiry(answer) or 0.0) - msgspec.json.decode(answer, type=_Answer).spec.expirationSeconds


def _expiry(answer: bytes) -> float | None:
    try:
        status = msgspec.json.decode(answer, type=_Answer).status
        return calendar.timegm(time.strptime(status.expirationTimestamp, "%Y-%m-%dT%H:%M:%SZ")) if status.token else None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return None
