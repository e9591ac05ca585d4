"""
The public keys of the cluster's token issuer, fetched while the cloud is there so that tokens can be verified without it.

A node may read them only where the cluster says so (docs/operators.md gives the binding); otherwise they are cached when
somebody who may, such as a pod, reads them through the hub.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from yurt.http.fetch import fetch
from yurt.http.heads import get_header
from yurt.http.interfaces import Headers, UpstreamError
from yurt.hub.cloud import Cloud
from yurt.hub.documents import JWKS_PATH, Documents
from yurt.kube.requestinfo import parse_request

LOOK_SOON = 5.0
"""Seconds over which the nodes of a cluster spread their look after the cloud came back."""

LOOK_INTERVAL = 6 * 3600.0
"""Seconds between looks; issuers change their keys rarely, and keep the old ones for as long as tokens live."""

FETCH_TIMEOUT = 10.0
MAX_KEYS_BYTES = 256 * 1024


class IssuerKeys:
    """
    Keeps the cached keys fresh.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        cloud: Cloud,
        documents: Documents,
        headers: Callable[[], Headers],
        now: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._cloud = cloud
        self._documents = documents
        self._headers = headers
        self._now = now
        self._timer: IDelayedCall | None = None
        self._fetching: Deferred[None] | None = None

    def look(self) -> None:
        """
        Fetch the keys soon.
        """
        self._wait(random.uniform(0.0, LOOK_SOON))

    def stop(self) -> None:
        """
        Fetch no more.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._fetching is not None:
            self._fetching.cancel()

    def _wait(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._reactor.callLater(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        self._wait(LOOK_INTERVAL * random.uniform(0.8, 1.2))
        if self._fetching is None:
            self._fetching = Deferred.fromCoroutine(self._fetch())
            self._fetching.addErrback(lambda failure: failure.trap(CancelledError, UpstreamError) and None)
            self._fetching.addBoth(self._ended)

    def _ended(self, _: object) -> None:
        self._fetching = None

    async def _fetch(self) -> None:
        server = self._cloud.pick()
        if server is None:
            return
        accept = b"application/jwk-set+json, application/json"
        headers = [*self._headers(), (b"Accept", accept)]
        path = JWKS_PATH.encode()
        response = await fetch(
            self._reactor, server.upstream, b"GET", path, headers, timeout=FETCH_TIMEOUT, limit=MAX_KEYS_BYTES
        )  # fmt: skip
        if response.status != 200:
            self.log.debug("the issuer's keys: {server} answers {status}", server=server.name, status=response.status)
            return
        content_type = (get_header(response.headers, b"content-type") or b"application/jwk-set+json").decode("latin-1")
        self._documents.put(parse_request(b"GET", path), accept, content_type, self._now(), response.body)
