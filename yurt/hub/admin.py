"""
The admin pages of the hub, for 127.0.0.1:10267.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry
from twisted.web.resource import Resource

from yurt.web import JSON, QuietSite, bytes_page, json_page, metrics_page, text_page


class HubState(Protocol):
    """
    What the pages show of a running hub.
    """

    def readiness(self) -> list[str]:
        """
        Why the hub is not ready, one sentence each; empty when it is.
        """

    def status(self) -> Mapping[str, object]:
        """
        Servers, listeners, link, views and journal as values that JSON can hold.
        """

    def pods(self) -> bytes | None:
        """
        A v1 PodList of the pods that kubelet last knew; None when no such list was ever seen.
        """


def admin_site(state: HubState, registry: CollectorRegistry) -> QuietSite:
    """
    The site with ``/v1/healthz``, ``/v1/readyz``, ``/v1/status``, ``/metrics`` and ``/pods``.
    """

    def readiness() -> tuple[int, object]:
        reasons = state.readiness()
        return (503 if reasons else 200), {"ready": not reasons, "reasons": reasons}

    def pods() -> tuple[int, bytes]:
        body = state.pods()
        return (200, body) if body is not None else (503, NO_PODS)

    version = Resource()
    version.putChild(b"healthz", text_page(lambda: (200, "OK")))
    version.putChild(b"readyz", json_page(readiness))
    version.putChild(b"status", json_page(lambda: (200, state.status())))
    root = Resource()
    root.putChild(b"v1", version)
    root.putChild(b"metrics", metrics_page(registry))
    root.putChild(b"pods", bytes_page(JSON, pods))
    return QuietSite(root)


NO_PODS = (
    b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"ServiceUnavailable","code":503,'
    b'"message":"kubelet has not listed its pods through this hub yet"}\n'
)
