"""
The meta pages of the agent, for 127.0.0.1:10266.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry
from twisted.web.resource import Resource

from yurt.web import QuietSite, json_page, metrics_page, text_page


class AgentState(Protocol):
    """
    What the pages show of a running agent.
    """

    def readiness(self) -> tuple[bool, Mapping[str, object]]:
        """
        Whether the agent is connected to a server, and to which since when, or why to none.
        """

    def status(self) -> Mapping[str, object]:
        """
        All of its state, as values that JSON can hold.
        """


def meta_site(state: AgentState, registry: CollectorRegistry) -> QuietSite:
    """
    The site with ``/v1/healthz``, ``/v1/readyz``, ``/v1/status`` and ``/metrics``.
    """

    def readiness() -> tuple[int, object]:
        ready, answer = state.readiness()
        return (200 if ready else 503), answer

    version = Resource()
    version.putChild(b"healthz", text_page(lambda: (200, "OK")))
    version.putChild(b"readyz", json_page(readiness))
    version.putChild(b"status", json_page(lambda: (200, state.status())))
    root = Resource()
    root.putChild(b"v1", version)
    root.putChild(b"metrics", metrics_page(registry))
    return QuietSite(root)
