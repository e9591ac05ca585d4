"""
What the hub keeps in memory.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator

from bench.figures import Figure, at_most
from bench.hub.sender import start_sender
from bench.hub.site import KUBELET, Site
from bench.hub.watchers import Watcher

PODS = 1000
WATCHES = 200
PODS_PATH = "/api/v1/pods?fieldSelector=spec.nodeName%3Dbench-node"


def rss() -> Iterator[Figure]:
    """
    After the start; with the pods of a node in the cache; with watches besides.
    """
    with Site() as site:
        sender = start_sender(site, pods=PODS)
        hub = site.hub(sender.port)
        hub.wait_for_source("/readyz", "cloud")
        time.sleep(2.0)
        bare = hub.child.rss()
        detail = f"an interpreter with Twisted's reactor and TLS alone: {_bare_twisted(site):.0f} MB"
        yield at_most("RSS after the start", bare, "MB", 60, detail)
        hub.wait_for_source(PODS_PATH, "cloud")
        time.sleep(3.0)
        cached = hub.child.rss()
        yield at_most(f"RSS with {PODS:,} pods in the cache", cached, "MB", 70, f"{cached - bare:+.1f} MB")
        watchers = [Watcher(socket.create_connection(("127.0.0.1", hub.port)), KUBELET, PODS_PATH) for _ in range(WATCHES)]
        for watcher in watchers:
            watcher.wait_for_head()
        time.sleep(2.0)
        watched = hub.child.rss()
        yield at_most(f"RSS with {WATCHES} watches besides", watched, "MB", 80, f"{watched - cached:+.1f} MB")
        for watcher in watchers:
            watcher.close()


def _bare_twisted(site: Site) -> float:
    """
    The yardstick, in MB.
    """
    code = "import time; from twisted.internet import reactor, ssl; time.sleep(3600)"
    child = site.child("bare", sys.executable, "-c", code)
    time.sleep(2.0)
    return child.rss()
