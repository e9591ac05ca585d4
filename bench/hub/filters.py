"""
What filters cost.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

from bench.figures import Figure, at_least, at_most, median
from bench.hub.clients import Caller
from bench.hub.fanout import measure
from bench.hub.sender import start_sender
from bench.hub.site import KUBELET, HubUnderTest, Site

SLICES = 1000
PATH = "/apis/discovery.k8s.io/v1/endpointslices"
PROXY = "kube-proxy/v1.30.0 (linux/amd64) kubernetes/bench"
"""A component for which slices are filtered; for kubelet they are not."""
FAR = b"node-0"
"""A node whose endpoints are not shown."""
ROUNDS = 15
PAUSE = 0.3
"""Seconds between lists, for the cache to take the last one in."""
RATE = 500


def filtered_list() -> Iterator[Figure]:
    """
    A list all of whose items are filtered, beside one that is passed on.
    """
    with Site() as site:
        hub = _filtering_hub(site)
        filtered, plain = Caller(hub.port, PROXY), Caller(hub.port, KUBELET)
        with_filter: list[float] = []
        without: list[float] = []
        for _ in range(ROUNDS):
            for caller, times in ((plain, without), (filtered, with_filter)):
                answer = caller.get(PATH)
                times.append(1000 * answer.took)
                if (FAR in answer.body) is (caller is filtered):
                    raise RuntimeError(f"{PATH}: filtered for {'kubelet' if caller is plain else 'nobody'}")
                time.sleep(PAUSE)
        added = median(with_filter) - median(without)
        detail = f"{median(with_filter):.1f} ms instead of {median(without):.1f} ms; {answer.size / 1e6:.1f} MB are left"
        yield at_most(f"LIST of {SLICES:,} EndpointSlices, all filtered: added time", added, "ms", 30, detail)


def filtered_watch() -> Iterator[Figure]:
    """
    A watch all of whose events are filtered.
    """
    with Site() as site:
        hub = _filtering_hub(site, RATE)
        began, ran = time.monotonic(), hub.child.cpu()
        round_ = measure([socket.create_connection(("127.0.0.1", hub.port))], PROXY, PATH)
        ran = (hub.child.cpu() - ran) / (time.monotonic() - began)
        detail = f"delay p50 {round_.p50:.1f} ms, p99 {round_.p99:.1f} ms; the hub ran {100 * ran:.0f} % of the time"
        yield at_least("filtered watch events, delivered", round_.rate, "/s", 0.99 * RATE, detail)
        yield at_most("filtered watch events, delay p99", round_.p99, "ms", 20)
        detail = f"{SLICES:,} Services and as many EndpointSlices"
        yield at_most("RSS with all that filters follow", hub.child.rss(), "MB", 75, detail)


def _filtering_hub(site: Site, rate: int = 0) -> HubUnderTest:
    """
    A hub that knows all it filters by.
    """
    sender = start_sender(site, slices=SLICES, rate=rate)
    hub = site.hub(sender.port)
    hub.wait_for_source("/readyz", "cloud")
    caller = Caller(hub.port, PROXY)
    hub.child.wait_until(lambda: FAR not in caller.get(PATH).body, "a filtered list")
    return hub
