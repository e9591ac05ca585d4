"""
Watch events to many watchers.
"""

from __future__ import annotations

import math
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.figures import Figure, at_least, at_most, median, percentile
from bench.hub.sender import start_sender
from bench.hub.site import KUBELET, Site
from bench.hub.watchers import Watcher, read_for

PATH = "/api/v1/pods?fieldSelector=spec.nodeName%3Dbench-node"
WATCHERS = 20
RATE = 1000
WARM_UP = 2.0
SECONDS = 6.0
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Round:
    """
    What the watchers saw in one round: events a second for each, delays in milliseconds.
    """

    rate: float
    p50: float
    p99: float


def watch_fanout() -> Iterator[Figure]:
    """
    1,000 events a second to each of 20 watchers of a cached component.
    """
    with Site() as site:
        sender = start_sender(site, pods=100, rate=RATE)
        trust = ssl.create_default_context(cafile=str(site.certs / "ca.crt"))
        connections = [socket.create_connection(("127.0.0.1", sender.port)) for _ in range(WATCHERS)]
        direct = measure([trust.wrap_socket(one, server_hostname="127.0.0.1") for one in connections])
        hub = site.hub(sender.port)
        hub.wait_for_source(PATH, "cloud")
        began, ran, waited = time.monotonic(), hub.child.cpu(), hub.child.waited()
        through = measure([socket.create_connection(("127.0.0.1", hub.port)) for _ in range(WATCHERS)])
        lasted = time.monotonic() - began
        ran, waited = (hub.child.cpu() - ran) / lasted, (hub.child.waited() - waited) / lasted
    load = f"the hub ran {100 * ran:.0f} % of the time and waited {100 * waited:.0f} % for a processor"
    name = f"{RATE:,} watch events/s to {WATCHERS} watchers"
    detail = f"{direct.rate:,.0f}/s each without the hub; {load}"
    yield at_least(f"{name}, delivered", through.rate, "/s each", 0.99 * RATE, detail)
    detail = f"p50 {through.p50:.1f} ms; without the hub p99 {direct.p99:.1f} ms, p50 {direct.p50:.1f} ms"
    yield at_most(f"{name}, event delay p99", through.p99, "ms", 20, detail)


def measure(connections: list[socket.socket], agent: str = KUBELET, path: str = PATH) -> Round:
    """
    The median of some rounds of watching.
    """
    watchers = [Watcher(connection, agent, path) for connection in connections]
    for watcher in watchers:
        watcher.wait_for_head()
        watcher.connection.settimeout(None)
    read_for(watchers, WARM_UP)
    rounds = [_collect(watchers) for _ in range(ROUNDS)]
    for watcher in watchers:
        watcher.close()
    # Not between the rounds: what comes while the delays of one are sorted would be counted late in the next.
    results = [_sum_up(delays) for delays in rounds]
    return Round(*(median([getattr(one, name) for one in results]) for name in ("rate", "p50", "p99")))


def _collect(watchers: list[Watcher]) -> list[list[float]]:
    """
    The delays of one round, in seconds, for each watcher.
    """
    for watcher in watchers:
        watcher.delays = []
    read_for(watchers, SECONDS)
    return [watcher.delays for watcher in watchers]


def _sum_up(collected: list[list[float]]) -> Round:
    delays = sorted(1000 * delay for delays in collected for delay in delays) or [math.inf]
    return Round(len(delays) / SECONDS / len(collected), percentile(delays, 0.5), percentile(delays, 0.99))
