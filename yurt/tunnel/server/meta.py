"""
The meta pages of the server, for 127.0.0.1:10265.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry

from yurt.tunnel.pages import pages
from yurt.web import QuietSite


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

    def readiness() -> tuple[bool, Mapping[str, object]]:
        reasons = state.readiness()
        return not reasons, {"ready": not reasons, "reasons": reasons}

    return pages(readiness, state.status, registry)
