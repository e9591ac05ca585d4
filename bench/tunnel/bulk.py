"""
One large download.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from bench.figures import Figure, at_least, median
from bench.tunnel.site import ADDRESS, TunnelSite

PATH = "/bulk"
BULK_BYTES = 1 << 30
ROUNDS = 7
SPEED_OF_A_FAST_MACHINE = 400.0
"""MB/s of the direct path from which on an absolute speed is to be reached too."""


def bulk() -> Iterator[Figure]:
    """
    1 GiB over TLS that ends at kubelet, as the API server fetches it.
    """
    with TunnelSite() as site:
        kubelet = site.kubelet()
        with (kubelet.www / PATH.lstrip("/")).open("wb") as file:
            file.truncate(BULK_BYTES)
        server, agent = site.server(), site.agent(kubelet.port)
        url = f"https://{ADDRESS}:{kubelet.port}{PATH}"
        speeds, peers, costs = [], [], []
        for _ in range(ROUNDS):
            peers.append(_download(site, url))
            before = server.cpu(), agent.cpu()
            speeds.append(_download(site, url, "--proxytunnel", "--proxy", site.through()))
            costs.append((server.cpu() - before[0], agent.cpu() - before[1]))
        share = median([100 * speed / peer for speed, peer in zip(speeds, peers, strict=True)])
        detail = (
            f"through server and agent {median(speeds):,.0f} MB/s, direct {median(peers):,.0f} MB/s; seconds of CPU for 1 GiB: "
            f"server {median([one[0] for one in costs]):.2f}, agent {median([one[1] for one in costs]):.2f}"
        )
        yield at_least("download of 1 GiB", share, "% of direct", 40, detail)
        if median(peers) >= SPEED_OF_A_FAST_MACHINE:
            yield at_least("download of 1 GiB", median(speeds), "MB/s", 150)


def _download(site: TunnelSite, url: str, *options: str) -> float:
    """
    MB a second.
    """
    what = ["--fail", "--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{size_download} %{time_total}"]
    trust = ["--cacert", str(site.certs / "ca.crt")]
    output = subprocess.run(["curl", *what, *trust, *options, url], capture_output=True, text=True, check=True).stdout
    size, seconds = output.split()
    if int(size) != BULK_BYTES:
        raise RuntimeError(f"{url}: {size} bytes instead of {BULK_BYTES}")
    return int(size) / float(seconds) / 1e6
