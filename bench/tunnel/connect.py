"""
What the tunnel adds to a new connection and a small answer.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.figures import Figure, at_most, percentile
from bench.tunnel.site import ADDRESS, TunnelSite
from bench.tunnel.ways import Way, direct, through

CONNECTIONS = 400
PATH = "/healthz"


@dataclass
class Times:
    """
    Seconds that each connection took, and of a processor for each on either side of the tunnel.
    """

    without: list[float] = field(default_factory=list)
    through: list[float] = field(default_factory=list)
    server_cpu: float = 0.0
    agent_cpu: float = 0.0


def connect() -> Iterator[Figure]:
    """
    By CONNECT, as an API server with an egress selector asks for it: answered when the agent has connected.
    """
    with TunnelSite() as site:
        yield from figures("by CONNECT", measure(site, direct, through(site)))


def measure(site: TunnelSite, without: Way, tunnel: Way) -> Times:
    """
    Connect by both ways in turn.
    """
    kubelet = site.kubelet()
    kubelet.serve(PATH, b"ok")
    server, agent = site.server(), site.agent(kubelet.port)
    site.divert(kubelet.port)
    context = ssl.create_default_context(cafile=str(site.certs / "ca.crt"))
    times = Times()
    before = server.cpu(), agent.cpu()
    for _ in range(CONNECTIONS):
        times.without.append(_get(without, kubelet.port, context))
        times.through.append(_get(tunnel, kubelet.port, context))
    times.server_cpu = (server.cpu() - before[0]) / CONNECTIONS
    times.agent_cpu = (agent.cpu() - before[1]) / CONNECTIONS
    return times


def figures(how: str, times: Times) -> Iterator[Figure]:
    """
    What the tunnel adds.
    """
    cost = (
        f"a connection takes {1000 * times.server_cpu:.2f} ms of CPU in the server, {1000 * times.agent_cpu:.2f} ms in the agent"
    )
    for name, part, target in (("p50", 0.5, 2.0), ("p99", 0.99, 10.0)):
        here, there = percentile(times.through, part) * 1000, percentile(times.without, part) * 1000
        detail = f"through the tunnel {here:.2f} ms, direct {there:.2f} ms: {here / there:.1f} times; {cost}"
        yield at_most(f"new connection and small GET, {how}, added {name}", here - there, "ms", target, detail)


def _get(way: Way, port: int, context: ssl.SSLContext) -> float:
    """
    TCP, TLS that ends at kubelet, one GET, close; seconds.
    """
    began = time.perf_counter()
    with way(port) as raw, context.wrap_socket(raw, server_hostname=ADDRESS) as connection:
        connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: kubelet\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while data := connection.recv(65536):
            answer += data
    took = time.perf_counter() - began
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"kubelet answered {answer[:80]!r}")
    return took
