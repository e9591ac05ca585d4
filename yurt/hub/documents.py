"""
Discovery and OpenAPI documents and ``/version``: cached for everyone, as a class, so that any client works offline.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Protocol

import msgspec

from yurt.http.heads import get_header, without
from yurt.http.interfaces import RequestHead, ResponseHead
from yurt.hub.reads import Read
from yurt.hub.server import is_of_api_server
from yurt.kube.requestinfo import RequestInfo

MAX_DOCUMENTS = 2000
"""Documents that are kept; beyond, the one that was given longest ago goes."""

MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
"""Bytes of all documents together."""

MAX_VARIANTS = 8
"""Documents of one path, for as many values of Accept: whoever makes up more of them pushes out no other path."""

REDATED_AFTER = 3600.0
"""Seconds after which a document that the cloud gave again unchanged is dated anew."""

CONDITIONS = (b"if-none-match", b"if-modified-since")
TEXT = b"text/plain"

JWKS_PATH = "/openid/v1/jwks"
ISSUER_PATH = "/.well-known/openid-configuration"

_EXACT = frozenset({"/api", "/apis", "/version", JWKS_PATH, ISSUER_PATH})


def is_document(info: RequestInfo) -> bool:
    """
    Whether a GET or HEAD of this path yields a discovery or OpenAPI document, /version, or the issuer's keys.
    """
    if info.is_resource or info.verb not in ("get", "head"):
        return False
    path = info.path.rstrip("/")
    if path in _EXACT or path == "/openapi" or path.startswith("/openapi/"):
        return True
    parts = path.split("/")
    return (len(parts) == 3 and parts[1] == "api") or (len(parts) in (3, 4) and parts[1] == "apis")


class DocumentTable(Protocol):
    """
    The part of a store table that is needed here.
    """

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None: ...

    def delete(self, key: bytes) -> None: ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]: ...


class Documents:
    """
    The kept documents, by path and Accept; another variant of the same path serves where its type is accepted.

    No query parameter changes what a document says: ``hash`` of OpenAPI v3 only asks for a certain state of it, and what is kept
    is the last one.
    """

    def __init__(self, table: DocumentTable) -> None:
        self._table = table
        self._sizes: dict[bytes, int] | None = None

    def put(self, info: RequestInfo, accept: bytes, content_type: str, stored_at: float, body: bytes) -> None:
        """
        Keep a document, unless it is there unchanged.
        """
        prefix = _prefix(info)
        key = prefix + _digest(accept)
        sizes = self._known()
        sizes.pop(key, None)
        sizes[key] = len(body)
        old = self._table.get(key)
        if old is not None:
            _, dated, known = _unpack(old)
            if known == body and stored_at - dated < REDATED_AFTER:
                return
        self._table.put(key, _pack(content_type, stored_at, body))
        self._prune(prefix)

    def find(self, info: RequestInfo, accept: bytes) -> tuple[str, float, bytes] | None:
        """
        Content type, time of storing and body; the variant asked for, else the newest of those that ``accept`` prefers.
        """
        prefix = _prefix(info)
        exact = self._table.get(prefix + _digest(accept))
        if exact is not None:
            return _unpack(exact)
        variants = [_unpack(raw) for _, raw in self._table.scan(prefix)]
        ranked = [(place, variant) for variant in variants if (place := _preference(accept, variant[0])) is not None]
        return min(ranked, key=lambda one: (one[0], -one[1][1]))[1] if ranked else None

    def jwks(self) -> bytes | None:
        """
        The keys of the cluster's issuer, as the cloud last gave them.
        """
        variants = [_unpack(raw) for _, raw in self._table.scan(_digest(JWKS_PATH.encode()))]
        return max(variants, key=lambda one: one[1])[2] if variants else None

    def _known(self) -> dict[bytes, int]:
        """
        The size of each document, those first that were given longest ago.
        """
        if self._sizes is None:
            rows = sorted((_unpack(raw)[1], key, len(raw)) for key, raw in self._table.scan(b""))
            self._sizes = {key: size for _, key, size in rows}
        return self._sizes

    def _prune(self, prefix: bytes) -> None:
        """
        Keep within the bounds, that of the path first.
        """
        sizes = self._known()
        for key in [key for key in sizes if key.startswith(prefix)][:-MAX_VARIANTS]:
            self._drop(key)
        while len(sizes) > MAX_DOCUMENTS or sum(sizes.values()) > MAX_DOCUMENT_BYTES:
            self._drop(next(iter(sizes)))

    def _drop(self, key: bytes) -> None:
        del self._known()[key]
        self._table.delete(key)


class DocumentRead(Read):
    """
    GET of a document.
    """

    is_bounded = True
    """It is no resource, but does not last either."""

    def upstream_head(self) -> RequestHead:
        """
        As the client asked: documents are kept in each encoding.  A client that has the document already gets it again if the
        cache has none.
        """
        head = super(Read, self).upstream_head()
        is_conditional = any(get_header(head.headers, name) is not None for name in CONDITIONS)
        if not is_conditional or self.hub.documents.find(self.info, self.accept_header()) is not None:
            return head
        return RequestHead(head.method, head.target, without(head.headers, *CONDITIONS), head.http10)

    def keeps(self, head: ResponseHead) -> bool:
        """
        Keep every whole document: in JSON or protobuf, where a proxy on the way has pages.  API servers before Kubernetes 1.23
        call OpenAPI documents in JSON plain text.
        """
        content_type = get_header(head.headers, b"content-type") or b""
        is_text = content_type.startswith(TEXT) and is_of_api_server(head.headers)
        is_document = is_text or content_type.startswith(b"application/")
        return head.status == 200 and is_document and self.request.head.method == b"GET"

    def store(self, head: ResponseHead, body: bytes) -> None:
        """
        Into the cache, for everyone.
        """
        content_type = (get_header(head.headers, b"content-type") or b"application/json").decode("latin-1")
        self.hub.documents.put(self.info, self.accept_header(), content_type, self.hub.now(), body)

    def answer_from_cache(self) -> bool:
        """
        The document, if it was ever seen.
        """
        if self.finished:
            return True
        found = self.hub.documents.find(self.info, self.accept_header())
        if found is None:
            return False
        content_type, stored_at, body = found
        self.respond_cached(body, stored_at, content_type.encode("latin-1"))
        return True

    def accept_header(self) -> bytes:
        """
        The client's Accept.
        """
        return get_header(self.request.head.headers, b"accept") or b"*/*"

    def miss(self) -> None:
        """
        Never seen.
        """
        self.series.misses += 1
        self.unavailable("the cache never saw this document")


def _digest(value: bytes) -> bytes:
    return sha256(value).digest()[:16]


def _prefix(info: RequestInfo) -> bytes:
    return _digest(info.path.rstrip("/").encode())


def _preference(accept: bytes, content_type: str) -> int | None:
    """
    The place in an Accept header of the entry that takes this type, or None.  As from an API server, only plain JSON stands for
    a wildcard: a client that names no other form cannot read one.
    """
    offered = content_type.replace(" ", "").lower()
    plain = "" if ";as=" in offered else offered.partition(";")[0]
    if plain == TEXT.decode():
        plain = "application/json"
    for place, entry in enumerate(accept.decode("latin-1").replace(" ", "").lower().split(",")):
        media, _, quality = entry.partition(";q=")
        if quality and not quality.strip("0."):
            continue
        if media in (offered, plain) or (media in ("*/*", "application/*") and plain.endswith("json")):
            return place
    return None


class _Head(msgspec.Struct):
    content_type: str
    stored_at: float


def _pack(content_type: str, stored_at: float, body: bytes) -> bytes:
    return msgspec.json.encode(_Head(content_type, stored_at)) + b"\n" + body


def _unpack(raw: bytes) -> tuple[str, float, bytes]:
    head, _, body = raw.partition(b"\n")
    known = msgspec.json.decode(head, type=_Head)
    return known.content_type, known.stored_at, body
