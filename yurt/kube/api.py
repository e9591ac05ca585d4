"""
A Kubernetes API server as a client of ours sees it: one call, one answer; and watches.

It speaks through the pooled client of the data path (:mod:`yurt.http`) in JSON.  A second HTTP client beside that one
costs 4 MB of memory, and knows neither the time-outs nor the proxies that this one does.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from yurt import __version__
from yurt.http.address import parse_proxy
from yurt.http.client import HTTPUpstream
from yurt.http.environment import proxy_for
from yurt.http.fetch import AnswerTooLarge, FetchedResponse, FetchTimeout, fetch
from yurt.http.heads import get_header
from yurt.http.interfaces import Headers, RequestHead, ResponseHead, Upstream, UpstreamError
from yurt.kube.apierror import NO_ANSWER, TIMEOUT, TOO_LARGE, UNREADABLE, ApiError
from yurt.kube.bearer import BearerToken
from yurt.kube.kubeconfig import Kubeconfig, KubeconfigError
from yurt.kube.patch import MERGE_PATCH
from yurt.kube.pause import pause
from yurt.kube.status import REASONS, read_failure
from yurt.kube.stream import Stream
from yurt.tls import ClientTLS, Credentials

__all__ = [
    "NO_ANSWER",
    "TIMEOUT",
    "TOO_LARGE",
    "UNREADABLE",
    "ApiClient",
    "ApiError",
    "Document",
    "client_from_kubeconfig",
    "credentials_of",
    "target",
]

Document = dict[str, Any]
"""A Kubernetes object as JSON gives it."""

CALL_TIMEOUT = 10.0
"""Seconds that a call may take, unless its caller says otherwise."""
MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Bytes of an answer that are taken, unless the caller says otherwise; etcd holds objects of 1.5 MB."""
MAX_CONFLICTS = 5
"""Times that an edit is tried while others write the same object."""
CONFLICT_PAUSE = 0.1
"""Seconds up to which an edit waits after a conflict."""
MAX_SHOWN = 500
"""Characters of a server's message that get into ours."""


class ApiClient:
    """
    Calls to one API server.

    ``headers`` gives the fields that go with every request, such as a bearer token.  Paths are those of the API, from
    ``/api`` or ``/apis`` on.
    """

    def __init__(self, reactor: IReactorTime, upstream: Upstream, headers: Callable[[], Headers] = list) -> None:
        self._reactor = reactor
        self._upstream = upstream
        self._headers = headers

    @property
    def name(self) -> str:
        """
        The server's address as it was given.
        """
        return self._upstream.name

    async def get(self, path: str, query: Mapping[str, str] = {}, *, timeout: float = CALL_TIMEOUT) -> Document:
        """
        Read an object, or a list in one piece.  Raises :class:`ApiError`.
        """
        return await self._ask(b"GET", path, query, timeout=timeout)

    async def create(self, path: str, document: Document, *, timeout: float = CALL_TIMEOUT) -> Document:
        """
        Create an object in the collection ``path``.  Raises :class:`ApiError`.
        """
        return await self._ask(b"POST", path, body=document, timeout=timeout)

    async def update(self, path: str, document: Document, *, timeout: float = CALL_TIMEOUT) -> Document:
        """
        Replace an object; a resourceVersion in it must be the current one.  Raises :class:`ApiError`.
        """
        return await self._ask(b"PUT", path, body=document, timeout=timeout)

    async def patch(self, path: str, change: Any, content_type: str = MERGE_PATCH, *, timeout: float = CALL_TIMEOUT) -> Document:
        """
        Patch an object.  Raises :class:`ApiError`.
        """
        return await self._ask(b"PATCH", path, body=change, content_type=content_type, timeout=timeout)

    async def delete(self, path: str, *, uid: str = "", resource_version: str = "", timeout: float = CALL_TIMEOUT) -> Document:
        """
        Delete an object; if they are given, only the one with this uid and this resourceVersion.  Raises :class:`ApiError`.
        """
        wanted = {name: value for name, value in (("uid", uid), ("resourceVersion", resource_version)) if value}
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": wanted} if wanted else None
        return await self._ask(b"DELETE", path, body=options, timeout=timeout)

    async def edit(self, collection: str, name: str, change: Callable[[Document | None], Document | None]) -> bool:
        """
        Bring one object to what ``change`` makes of it: of its current state, or of None when it is not there, comes the
        state to be, or None to leave it.  When somebody else writes it in between, ``change`` is asked again.

        Whether it was written.  Raises :class:`ApiError`, with code 409 after MAX_CONFLICTS conflicts.
        """
        path = f"{collection}/{quote(name, safe='')}"
        for attempt in range(MAX_CONFLICTS):
            try:
                found: Document | None = await self.get(path)
            except ApiError as error:
                if error.code != 404:
                    raise
                found = None
            wanted = change(found)
            if wanted is None or wanted == found:
                return False
            try:
                await (self.create(collection, wanted) if found is None else self.update(path, wanted))
                return True
            except ApiError as error:
                if error.code != 409 or attempt == MAX_CONFLICTS - 1:
                    raise
            await pause(self._reactor, CONFLICT_PAUSE * random.random())
        raise AssertionError("the last attempt returns or raises")

    async def _ask(
        self,
        method: bytes,
        path: str,
        query: Mapping[str, str] = {},
        body: Any = None,
        content_type: str = "application/json",
        timeout: float = CALL_TIMEOUT,
    ) -> Document:
        encoded = b"" if body is None else msgspec.json.encode(body)
        answer = await self.call(method, target(path, query), encoded, content_type, timeout=timeout)
        try:
            return msgspec.json.decode(answer, type=Document)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            called = self._called(method, path.encode())
            raise ApiError(0, UNREADABLE, f"{called}: {self.name}: the answer is no object: {error}") from error

    async def call(
        self,
        method: bytes,
        where: bytes,
        body: bytes = b"",
        content_type: str = "application/json",
        *,
        timeout: float = CALL_TIMEOUT,
        limit: int = MAX_ANSWER_BYTES,
    ) -> bytes:
        """
        Send one request to a target with its query and return the body of its successful answer.  Raises :class:`ApiError`.
        """
        headers = self._fields()
        if body:
            headers.append((b"Content-Type", content_type.encode("latin-1")))
        try:
            response: FetchedResponse = await fetch(
                self._reactor, self._upstream, method, where, headers, body, timeout=timeout, limit=limit
            )
        except UpstreamError as error:
            reason = _reason(error)
            raise ApiError(0, reason, f"{self._called(method, where)}: {error}") from error
        if response.status >= 300:
            raise self._refusal(method, where, ResponseHead(response.status, b"", response.headers), response.body)
        return response.body

    def stream(
        self, where: bytes, began: Callable[[], object], received: Callable[[bytes], object], *, lasting: float
    ) -> Deferred[None]:
        """
        Open a watch, and give what comes to ``received`` after one call of ``began``.

        Fires when the server ends it in good order; fails with :class:`ApiError` when it does not answer within
        BEGIN_TIMEOUT, refuses, breaks off or goes on for more than ``lasting`` seconds, and with what ``received`` raises.
        Cancelling it ends it.
        """
        stream = Stream(self._reactor, lambda head, body: self._refusal(b"GET", where, head, body), began, received, lasting)
        stream.called, stream.name = self._called(b"GET", where), self.name
        stream.exchange = self._upstream.send(RequestHead(b"GET", where, self._fields()), stream)
        return stream.result

    def close(self) -> None:
        """
        End all calls and connections.
        """
        self._upstream.close_connections("the client was closed")

    def _fields(self) -> Headers:
        return [*self._headers(), (b"Accept", b"application/json")]

    def _called(self, method: bytes, where: bytes) -> str:
        return f"{method.decode()} {where.partition(b'?')[0].decode('latin-1')}"

    def _refusal(self, method: bytes, where: bytes, head: ResponseHead, body: bytes) -> ApiError:
        failure = read_failure(body)
        reason = failure.reason or REASONS.get(head.status, "")
        said = f": {failure.message[:MAX_SHOWN]}" if failure.message else ""
        message = f"{self._called(method, where)}: {self.name}: {head.status} {reason}{said}".rstrip()
        after = get_header(head.headers, b"retry-after") or b""
        return ApiError(head.status, reason, message, float(after) if after.isdigit() else None)


def _reason(error: UpstreamError) -> str:
    if isinstance(error, FetchTimeout):
        return TIMEOUT
    return TOO_LARGE if isinstance(error, AnswerTooLarge) else NO_ANSWER


def target(path: str, query: Mapping[str, str] = {}) -> bytes:
    """
    A request target; query values that are empty are left out.
    """
    given = {name: value for name, value in query.items() if value}
    return (f"{path}?{urlencode(given)}" if given else path).encode("ascii")


def client_from_kubeconfig(reactor: Any, kubeconfig: Kubeconfig, product: str) -> ApiClient:
    """
    A client with the address and the identity of a kubeconfig; ``product`` names the daemon to the server.

    Raises :exc:`KubeconfigError` for one without which the server cannot be verified, or by a proxy that is not spoken to, and
    :exc:`~yurt.tls.CredentialsError` for certificates that cannot be used.
    """
    if kubeconfig.insecure:
        raise KubeconfigError("insecure-skip-tls-verify is set; name the cluster's certificate-authority instead")
    tls = None
    if kubeconfig.server.startswith("https:"):
        if not (kubeconfig.ca_file or kubeconfig.ca_data):
            raise KubeconfigError("the cluster has no certificate-authority; without it the server cannot be verified")
        tls = ClientTLS(credentials_of(kubeconfig), kubeconfig.tls_server_name)
    proxy = kubeconfig.proxy_url or proxy_for(kubeconfig.server, os.environ)
    try:
        if proxy is not None:
            parse_proxy(proxy)
    except ValueError:  # its URL may hold a password, and is not shown
        source = "proxy-url" if kubeconfig.proxy_url else "HTTPS_PROXY of the environment"
        raise KubeconfigError(f"{source} is not understood: write http://HOST:PORT, other schemes are not spoken") from None
    token = BearerToken(kubeconfig.token, kubeconfig.token_file)
    agent = (b"User-Agent", f"{product}/{__version__}".encode())
    return ApiClient(reactor, HTTPUpstream(reactor, kubeconfig.server, tls, proxy), lambda: [agent, *token.headers()])


def credentials_of(kubeconfig: Kubeconfig) -> Credentials:
    """
    The CA, the client certificate and the key of a kubeconfig.
    """
    return Credentials(
        kubeconfig.ca_file,
        kubeconfig.ca_data,
        kubeconfig.cert_file,
        kubeconfig.cert_data,
        kubeconfig.key_file,
        kubeconfig.key_data,
    )
