"""
What server and agent keep in memory.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from bench.figures import Figure, at_most
from bench.tunnel.site import TunnelSite


def rss() -> Iterator[Figure]:
    """
    A server with one agent, and the agent.
    """
    with TunnelSite() as site:
        server, agent = site.server(), site.agent(10250)
        bare = site.child("bare", sys.executable, "-c", "import time; from twisted.internet import reactor, ssl; time.sleep(99)")
        time.sleep(3.0)
        detail = f"an interpreter with Twisted's reactor and TLS alone: {bare.rss():.0f} MB"
        yield at_most("RSS of the server with one agent", server.rss(), "MB", 60, detail)
        yield at_most("RSS of the agent", agent.rss(), "MB", 50)
