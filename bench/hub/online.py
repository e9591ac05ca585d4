"""
With the cloud: what the hub costs on the way.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from bench.figures import Figure, at_least, at_most, median
from bench.hub.clients import wrk
from bench.hub.objects import body, configmap
from bench.hub.site import KUBELET, UNCACHED, Site

OBJECT = "/api/v1/namespaces/default/configmaps/config-1"
ROUNDS = 5
"""Both sides are measured in turn so many times, and the median of the ratios taken: the machine may be noisy."""
SECONDS = 3
BULK = "/bulk"
BULK_BYTES = 1 << 30


def small_get() -> Iterator[Figure]:
    """
    Small GETs of a component that is not cached.
    """
    yield from _against_nginx("small GETs, uncached component, 16 connections", UNCACHED, 25)


def small_get_cached() -> Iterator[Figure]:
    """
    The same of a component that is cached.
    """
    yield from _against_nginx("small GETs, cached component, 16 connections", KUBELET, 20)


def _against_nginx(name: str, agent: str, target: float) -> Iterator[Figure]:
    with Site() as site:
        cloud = site.cloud()
        cloud.serve(OBJECT, body("ConfigMap", configmap(1)))
        proxy, hub = site.proxy(cloud), site.hub(cloud.port)
        hub.wait_for_source(OBJECT, "cloud", agent)
        rates, peers, costs = [], [], []
        for _ in range(ROUNDS):
            peers.append(wrk(f"http://127.0.0.1:{proxy.port}{OBJECT}", connections=16, seconds=SECONDS, agent=agent).rate)
            before = hub.child.cpu()
            rates.append(wrk(hub.url(OBJECT), connections=16, seconds=SECONDS, agent=agent).rate)
            costs.append((hub.child.cpu() - before) / (rates[-1] * SECONDS) * 1000)
        detail = f"hub {median(rates):,.0f}/s at {median(costs):.3f} ms of CPU each, one nginx worker {median(peers):,.0f}/s"
        shares = [100 * rate / peer for rate, peer in zip(rates, peers, strict=True)]
        yield at_least(name, median(shares), "% of nginx", target, detail)


def latency() -> Iterator[Figure]:
    """
    What the hub adds to a small GET at one connection.
    """
    with Site() as site:
        cloud = site.cloud()
        cloud.serve(OBJECT, body("ConfigMap", configmap(1)))
        hub = site.hub(cloud.port)
        hub.wait_for_source(OBJECT, "cloud", UNCACHED)
        through, direct = [], []
        for _ in range(ROUNDS):
            direct.append(wrk(f"https://127.0.0.1:{cloud.port}{OBJECT}", connections=1, seconds=SECONDS, agent=UNCACHED))
            through.append(wrk(hub.url(OBJECT), connections=1, seconds=SECONDS, agent=UNCACHED))
        for part, target in (("p50", 0.3), ("p99", 2.0)):
            with_hub, without = (median([getattr(load, part) for load in loads]) for loads in (through, direct))
            detail = f"through the hub {with_hub:.3f} ms, direct TLS {without:.3f} ms: {with_hub / without:.1f} times"
            yield at_most(f"added latency {part}, 1 connection", with_hub - without, "ms", target, detail)


def bulk() -> Iterator[Figure]:
    """
    A body of 1 GiB, and what it leaves in the hub's memory.
    """
    with Site() as site:
        cloud = site.cloud()
        with (cloud.www / BULK.lstrip("/")).open("wb") as file:
            file.truncate(BULK_BYTES)
        hub = site.hub(cloud.port)
        hub.wait_for_source("/readyz", "cloud", UNCACHED)
        idle, peak = hub.child.rss(), 0.0
        speeds, peers = [], []
        for _ in range(3):
            peers.append(_download(f"https://127.0.0.1:{cloud.port}{BULK}", "--cacert", str(site.certs / "ca.crt")))
            # The download keeps nginx's one worker busy, which may leave the hub's probes without an answer for too long.
            hub.wait_for_source("/readyz", "cloud", UNCACHED)
            speeds.append(_download(hub.url(BULK)))
            peak = max(peak, hub.child.rss())
        share = 100 * median(speeds) / median(peers)
        detail = f"hub {median(speeds):,.0f} MB/s, direct TLS {median(peers):,.0f} MB/s"
        yield at_least("1 GiB through the hub", share, "% of direct", 50, detail)
        yield at_most("RSS above idle after 1 GiB bodies", peak - idle, "MB", 20, f"{idle:.0f} MB before, {peak:.0f} MB after")


def _download(url: str, *options: str) -> float:
    """
    MB a second.
    """
    what = ["--fail", "--silent", "--output", "/dev/null", "--write-out", "%{size_download} %{time_total}"]
    output = subprocess.run(["curl", *what, *options, url], capture_output=True, text=True, check=True).stdout
    size, seconds = output.split()
    if int(size) != BULK_BYTES:
        raise RuntimeError(f"{url}: {size} bytes instead of {BULK_BYTES}")
    return int(size) / float(seconds) / 1e6
