"""
A thousand nodes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.children import Child
from bench.figures import Figure, at_most
from bench.tunnel.agents import node_name
from bench.tunnel.site import TunnelSite

AGENTS = 1000
IDLE_SECONDS = 30.0
"""How long the idle agents are looked at; several pings fall into it."""
ALL_BACK_TIMEOUT = 90.0


def idle_agents() -> Iterator[Figure]:
    """
    What agents cost that nobody calls.
    """
    with TunnelSite() as site:
        server = site.server()
        time.sleep(2.0)
        before = server.rss()
        _fleet(site, server)
        time.sleep(5.0)
        each = (server.rss() - before) * 1024 / AGENTS
        detail = f"the server {before:.0f} MB without agents, {server.rss():.0f} MB with {AGENTS:,}"
        yield at_most("memory of the server for an idle agent", each, "KB", 60, detail)
        began, spent = time.monotonic(), server.cpu()
        time.sleep(IDLE_SECONDS)
        share = 100 * (server.cpu() - spent) / (time.monotonic() - began)
        yield at_most(f"CPU of the server for {AGENTS:,} idle agents", share, "% of a core", 5)


def reconnect() -> Iterator[Figure]:
    """
    The server is killed and started again.
    """
    with TunnelSite() as site:
        server = site.server()
        _fleet(site, server)
        server.kill()
        began = time.monotonic()
        server = site.server()
        listening = time.monotonic() - began
        _wait_for_all(site, server)
        took = time.monotonic() - began
        detail = f"from the server's death, which listens again after {listening:.1f} s"
        yield at_most(f"{AGENTS:,} agents are back", took, "s", 20, detail)
        yield at_most("connections refused meanwhile", site.metric("yurttunnel_server_refused_total"), "refusals", 0)


def _fleet(site: TunnelSite, server: Child) -> Child:
    """
    Agents that are all connected.
    """
    for number in range(AGENTS):
        site.issue(node_name(number), f"system:node:{node_name(number)}", ["system:nodes"])
    root = Path(__file__).parent.parent.parent
    code = f"import sys; sys.path.insert(0, {str(root)!r}); from bench.tunnel.agents import main; main()"
    arguments = [str(site.agent_port), str(site.certs), str(AGENTS)]
    fleet = site.child("agents", sys.executable, "-c", code, *arguments)
    _wait_for_all(site, server)
    return fleet


def _wait_for_all(site: TunnelSite, server: Child) -> None:
    deadline = time.monotonic() + ALL_BACK_TIMEOUT
    while (connected := site.connected()) < AGENTS:
        if server.has_ended() or time.monotonic() > deadline:
            raise RuntimeError(f"{connected} of {AGENTS} agents are connected\n{server.log.read_text()[-2000:]}")
        time.sleep(0.2)
