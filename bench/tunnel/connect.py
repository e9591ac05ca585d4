"""
What the tunnel adds to a new connection and a small answer.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator

from bench.figures import Figure, at_most, percentile
from bench.tunnel.site import ADDRESS, TunnelSite
from bench.tunnel.ways import Way, direct, through

CONNECTIONS = 400
PATH = "/healthz"


def connect() -> Iterator[Figure]:
    """
    TCP, TLS that ends at kubelet, one GET, close.
    """
    with TunnelSite() as site:
        kubelet = site.kubelet()
        kubelet.serve(PATH, b"ok")
        site.server()
        site.agent(kubelet.port)
        context = ssl.create_default_context(cafile=str(site.certs / "ca.crt"))
        tunnel = through(site)
        without: list[float] = []
        with_tunnel: list[float] = []
        for _ in range(CONNECTIONS):
            without.append(_get(direct, kubelet.port, context))
            with_tunnel.append(_get(tunnel, kubelet.port, context))
        for name, part, target in (("p50", 0.5, 2.0), ("p99", 0.99, 10.0)):
            here, there = percentile(with_tunnel, part) * 1000, percentile(without, part) * 1000
            detail = f"through the tunnel {here:.2f} ms, direct {there:.2f} ms: {here / there:.1f} times"
            yield at_most(f"new connection and small GET, added {name}", here - there, "ms", target, detail)


def _get(way: Way, port: int, context: ssl.SSLContext) -> float:
    """
    Seconds.
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
