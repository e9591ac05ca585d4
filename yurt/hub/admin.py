"""
The admin pages of the hub, for 127.0.0.1:10267.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Protocol

import msgspec
from prometheus_client import CollectorRegistry
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import Request

from yurt.web import JSON, TEXT, LaterPage, Leaf, QuietSite, bytes_page, json_page, metrics_page, text_page


class HubState(Protocol):
    """
    What the pages show of a running hub.
    """

    def readiness(self) -> list[str]:
        """
        Why the hub is not ready, one sentence each; empty when it is.
        """

    def warnings(self) -> list[str]:
        """
        What is missing without keeping the hub from being ready, one sentence each.
        """

    def status(self) -> Deferred[Mapping[str, object]]:
        """
        Fires with servers, listeners, link, views and journal as values that JSON can hold.
        """

    def pods(self) -> bytes | None:
        """
        A v1 PodList of the pods that kubelet last knew; None when no such list was ever seen.
        """


class TokenPage(Leaf):
    """
    Takes ``{"jointoken": "…"}`` by POST or PUT, from this machine only.
    """

    def __init__(self, take: Callable[[str], object]) -> None:
        super().__init__()
        self._take = take

    def render_POST(self, request: Request) -> bytes:
        """
        Take a token; the words are OpenYurt's where it has them.
        """
        peer = request.getClientAddress()
        if not isinstance(peer, (IPv4Address, IPv6Address)) or not ip_address(peer.host).is_loopback:
            return _said(request, 403, "tokens are taken from this machine only")
        try:
            given = msgspec.json.decode(request.content.read(), type=_JoinToken) if request.content else _JoinToken()
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _said(request, 400, 'the body is not {"jointoken": "..."}')
        if not given.jointoken:
            return _said(request, 400, "no join token is set")
        try:
            self._take(given.jointoken)
        except ValueError as error:
            return _said(request, 400, str(error))
        except OSError as error:
            return _said(request, 500, f"the token cannot be kept: {error.strerror}")
        return _said(request, 200, "update bootstrap token successfully")

    render_PUT = render_POST


class _JoinToken(msgspec.Struct):
    jointoken: str = ""


def _said(request: Request, status: int, text: str) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", TEXT)
    return f"{text}\n".encode()


def admin_site(
    state: HubState,
    registry: CollectorRegistry,
    take_token: Callable[[str], object] | None = None,
    upgrades: Resource | None = None,
) -> QuietSite:
    """
    The site with ``/v1/healthz``, ``/v1/readyz``, ``/v1/status``, ``/metrics`` and ``/pods``; with ``/v1/token`` where there is
    somebody to take one, who raises ValueError for what is none; with ``upgrades`` below ``/openyurt.io``.
    """

    def readiness() -> tuple[int, object]:
        reasons = state.readiness()
        return (503 if reasons else 200), {"ready": not reasons, "reasons": reasons, "warnings": state.warnings()}

    def pods() -> tuple[int, bytes]:
        body = state.pods()
        return (200, body) if body is not None else (503, NO_PODS)

    version = Resource()
    version.putChild(b"healthz", text_page(lambda: (200, "OK")))
    version.putChild(b"readyz", json_page(readiness))
    version.putChild(b"status", LaterPage(state.status))
    if take_token is not None:
        version.putChild(b"token", TokenPage(take_token))
    root = Resource()
    root.putChild(b"v1", version)
    root.putChild(b"metrics", metrics_page(registry))
    root.putChild(b"pods", bytes_page(JSON, pods))
    if upgrades is not None:
        root.putChild(b"openyurt.io", upgrades)
    return QuietSite(root)


NO_PODS = (
    b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"ServiceUnavailable","code":503,'
    b'"message":"kubelet has not listed its pods through this hub yet"}\n'
)
