"""
Watch events to many watchers.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator

from bench.hub.figures import Figure, at_least, at_most, percentile
from bench.hub.sender import start_sender
from bench.hub.site import KUBELET, Site
from bench.hub.watchers import Watcher, read_for

PATH = "/api/v1/pods?fieldSelector=spec.nodeName%3Dbench-node"
WATCHERS = 20
RATE = 1000
WARM_UP = 2.0
SECONDS = 10.0


def watch_fanout() -> Iterator[Figure]:
    """
    1,000 events a second to each of 20 watchers of a cached component.
    """
    with Site() as site:
        sender = start_sender(site, pods=100, rate=RATE)
        trust = ssl.create_default_context(cafile=str(site.certs / "ca.crt"))
        connections = [socket.create_connection(("127.0.0.1", sender.port)) for _ in range(WATCHERS)]
        direct = _measure([trust.wrap_socket(one, server_hostname="127.0.0.1") for one in connections])
        hub = site.hub(sender.port)
        hub.wait_for_source(PATH, "cloud")
        before = hub.child.cpu(), time.monotonic()
        through = _measure([socket.create_connection(("127.0.0.1", hub.port)) for _ in range(WATCHERS)])
        load = (hub.child.cpu() - before[0]) / (time.monotonic() - before[1])
    rate, direct_rate = (len(delays) / SECONDS / WATCHERS for delays in (through, direct))
    name = f"{RATE:,} watch events/s to {WATCHERS} watchers"
    yield at_least(
        f"{name}, delivered",
        rate,
        "/s each",
        0.99 * RATE,
        f"{direct_rate:,.0f}/s each without the hub; the hub at {100 * load:.0f} % CPU",
    )
    p99, direct_p99 = (percentile(delays or [60.0], 0.99) * 1000 for delays in (through, direct))
    detail = f"{direct_p99:.1f} ms without the hub; p50 {percentile(through or [60.0], 0.5) * 1000:.1f} ms"
    yield at_most(f"{name}, event delay p99", p99, "ms", 20, detail)


def _measure(connections: list[socket.socket]) -> list[float]:
    """
    The delays of all events of ten seconds, in seconds.
    """
    watchers = [Watcher(connection, KUBELET, PATH) for connection in connections]
    for watcher in watchers:
        watcher.wait_for_head()
        watcher.connection.settimeout(None)
    read_for(watchers, WARM_UP)
    for watcher in watchers:
        watcher.delays.clear()
    read_for(watchers, SECONDS)
    for watcher in watchers:
        watcher.close()
    return [delay for watcher in watchers for delay in watcher.delays]
