"""
Without the cloud: answers from the disk.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

from bench.figures import Figure, at_least, at_most, median, percentile
from bench.hub.clients import Caller, wrk
from bench.hub.objects import body, configmap, list_body
from bench.hub.site import KUBELET, HubUnderTest, Site
from bench.nginx import NginxCloud
from bench.place import TWISTD

COLLECTION = "/api/v1/namespaces/default/configmaps"
OBJECT = f"{COLLECTION}/config-1"
OTHER = "/api/v1/namespaces/other/configmaps"
LISTED = 1000
ROUNDS = 3
SECONDS = 3
STARTS = 5


def _serve_object(cloud: NginxCloud) -> None:
    cloud.serve(OBJECT, body("ConfigMap", configmap(1)))


def _serve_list(cloud: NginxCloud) -> None:
    cloud.serve(COLLECTION, list_body("ConfigMap", [configmap(number) for number in range(LISTED)]))


def _go_offline(cloud: NginxCloud, hub: HubUnderTest, path: str) -> None:
    """
    Have ``path`` cached, and the cloud gone and known to be.
    """
    hub.wait_for_source(path, "cloud")
    cloud.stop()
    hub.wait_for_source(path, "cache")


def _plain_nginx(cloud: NginxCloud, path: str, connections: int) -> float:
    """
    What nginx does with the same bytes from a file, without TLS: the yardstick.
    """
    return wrk(f"http://127.0.0.1:{cloud.plain_port}{path}", connections=connections, seconds=SECONDS, agent=KUBELET).rate


def get() -> Iterator[Figure]:
    """
    GET of one object.
    """
    with Site() as site:
        cloud = site.cloud()
        _serve_object(cloud)
        yardstick = _plain_nginx(cloud, OBJECT, 16)
        hub = site.hub(cloud.port)
        _go_offline(cloud, hub, OBJECT)
        rates = [wrk(hub.url(OBJECT), connections=16, seconds=SECONDS, agent=KUBELET).rate for _ in range(ROUNDS)]
        detail = f"{100 * median(rates) / yardstick:.0f} % of nginx with the same bytes from a file ({yardstick:,.0f}/s)"
        yield at_least("offline GET of one object, 16 connections", median(rates), "/s", 12_000, detail)


def list_() -> Iterator[Figure]:
    """
    LIST of 1,000 ConfigMaps of 1.5 KB.
    """
    with Site() as site:
        cloud = site.cloud()
        _serve_list(cloud)
        cloud.serve(OTHER, list_body("ConfigMap", []))
        yardstick = _plain_nginx(cloud, COLLECTION, 4)
        hub = site.hub(cloud.port)
        hub.wait_for_source(OTHER, "cloud")
        _go_offline(cloud, hub, COLLECTION)
        caller = Caller(hub.port, KUBELET)
        times = [caller.get(COLLECTION).took * 1000 for _ in range(50)]
        anew = []
        for _ in range(50):
            caller.get(OTHER)
            anew.append(caller.get(COLLECTION).took * 1000)
        rates = [wrk(hub.url(COLLECTION), connections=4, seconds=SECONDS, agent=KUBELET).rate for _ in range(ROUNDS)]
        name = f"offline LIST of {LISTED:,} ConfigMaps of 1.5 KB"
        yield at_most(f"{name}, median of one at a time", median(times), "ms", 10, f"p99 {percentile(times, 0.99):.1f} ms")
        detail = f"another list is asked for between any two, so that none is told again; p99 {percentile(anew, 0.99):.1f} ms"
        yield at_most(f"{name}, median, each read from the disk", median(anew), "ms", 10, detail)
        detail = f"{100 * median(rates) / yardstick:.0f} % of nginx with the same bytes from a file ({yardstick:,.0f}/s)"
        yield at_least(f"{name}, 4 connections", median(rates), "/s", 100, detail)


def start() -> Iterator[Figure]:
    """
    From exec without the cloud to the first answer from the disk.
    """
    with Site() as site:
        cloud = site.cloud()
        _serve_list(cloud)
        hub = site.hub(cloud.port)
        _go_offline(cloud, hub, COLLECTION)
        times = []
        for _ in range(STARTS):
            hub.child.stop()
            began = time.perf_counter()
            hub.start()
            caller = Caller(hub.port, KUBELET)
            hub.child.wait_until(lambda caller=caller: caller.source(COLLECTION) == "cache", "an answer from the disk", 0.005)  # type: ignore[misc]
            times.append(time.perf_counter() - began)
            caller.close()
        detail = f"median of {STARTS}; slowest {max(times):.2f} s; a bare twistd needs {_bare_twistd():.2f} s to say its version"
        yield at_most("start without the cloud, from exec to the first list from the disk", median(times), "s", 1.0, detail)


def _bare_twistd() -> float:
    """
    Seconds that the interpreter and Twisted's imports take by themselves.
    """
    began = time.perf_counter()
    subprocess.run([TWISTD, "--version"], check=True, capture_output=True)
    return time.perf_counter() - began
