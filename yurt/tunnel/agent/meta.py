"""
The meta pages of the agent, for 127.0.0.1:10266.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry

from yurt.tunnel.pages import pages
from yurt.web import QuietSite


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
    return pages(state.readiness, state.status, registry)
