"""
The meta pages of the server, for 127.0.0.1:10265.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry
from twisted.web.resource import Resource

from yurt.web import QuietSite, json_page, metrics_page, text_page


class ServerState(Protocol):
    """
    What the pages show of a running server.
    """

    def readiness(self) -> list[str]:
        """
        Why the server is not ready, one sentence each; empty when it is.
        """

    def status(self) -> Mapping[str, object]:
        """
        Nodes, doors, members, ports and firewall as values that JSON can hold.
        """


def meta_site(state: ServerState, registry: CollectorRegistry) -> QuietSite:
    """
    The site with ``/v1/healthz``, ``/v1/readyz``, ``/v1/status`` and ``/metrics``.
    """

    def readiness() -> tuple[int, object]:
        reasons = state.readiness()
        return (503 if reasons else 200), {"ready": not reasons, "reasons": reasons}

    version = Resource()
    version.putChild(b"healthz", text_page(lambda: (200, "OK")))
    version.putChild(b"readyz", json_page(readiness))
    version.putChild(b"status", json_page(lambda: (200, state.status())))
    root = Resource()
    root.putChild(b"v1", version)
    root.putChild(b"metrics", metrics_page(registry))
    return QuietSite(root)
