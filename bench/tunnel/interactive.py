"""
A terminal beside others that take all they can, or nothing at all.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.children import Child, free_port, is_listening
from bench.figures import Figure, at_most, median, percentile
from bench.tunnel.site import ADDRESS, TunnelSite
from bench.tunnel.ways import Way, direct, through

KEYSTROKES = 1000
PAUSE = 0.005
"""Seconds between two keystrokes."""
BULK_STREAMS = 4
BULK_PATH = "/bulk"
BULK_BYTES = 1 << 36
"""More than flows while a row is measured; the file is sparse."""

ECHO = """
import socketserver, sys
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.setsockopt(6, 1, 1)
        while data := self.request.recv(4096):
            self.request.sendall(data)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
"""


def keystroke() -> Iterator[Figure]:
    """
    A byte to the node and back, while four downloads run.
    """
    with TunnelSite() as site:
        echo, bulk_port = _node(site)
        tunnel = through(site)
        with tunnel(echo) as terminal, direct(echo) as beside:
            calm = _type(terminal)
            with _downloads(site, bulk_port, BULK_STREAMS):
                busy, peer = _type(terminal), _type(beside)
        figures = [percentile(times, 0.99) * 1000 for times in (busy, calm, peer)]
        detail = f"without downloads {figures[1]:.2f} ms; direct, with the downloads going on, {figures[2]:.2f} ms"
        yield at_most(f"keystroke round trip beside {BULK_STREAMS} downloads, p99", figures[0], "ms", 15, detail)


def stalled_reader() -> Iterator[Figure]:
    """
    The same beside one download that nobody reads, against another tunnel without one.  Keystrokes go to both in turn, so that
    what else the machine does meets both, and the tunnels change places.
    """
    with TunnelSite() as first, TunnelSite() as second:
        ways = []
        for site in (first, second):
            echo, bulk_port = _node(site)
            ways.append((through(site), echo, bulk_port))
        beside, calm = [], []
        with ways[0][0](ways[0][1]) as one, ways[1][0](ways[1][1]) as another:
            terminals = (one, another)
            for stalled, idle in ((0, 1), (1, 0)):
                tunnel, _, bulk_port = ways[stalled]
                with _stalled(tunnel, bulk_port):
                    for _ in range(2 * KEYSTROKES):
                        beside.append(_keystroke(terminals[stalled]))
                        calm.append(_keystroke(terminals[idle]))
        detail = f"median round trip {median(beside) * 1000:.2f} ms beside it, {median(calm) * 1000:.2f} ms without"
        yield at_most("latency beside a stalled reader", 100 * (median(beside) / median(calm) - 1), "% more", 10, detail)


def _node(site: TunnelSite) -> tuple[int, int]:
    """
    Server, agent, and two ports of the node: one that echoes, one that serves a large file.
    """
    kubelet = site.kubelet()
    with (kubelet.www / BULK_PATH.lstrip("/")).open("wb") as file:
        file.truncate(BULK_BYTES)
    echo = free_port()
    child = site.child("echo", sys.executable, "-c", ECHO, str(echo))
    child.wait_until(lambda: is_listening(echo), "an echo")
    site.server()
    site.agent(echo, kubelet.plain_port)
    return echo, kubelet.plain_port


def _type(terminal: socket.socket) -> list[float]:
    """
    Seconds that each keystroke took to come back.
    """
    return [_keystroke(terminal) for _ in range(KEYSTROKES)]


def _keystroke(terminal: socket.socket) -> float:
    began = time.perf_counter()
    terminal.sendall(b"k")
    if terminal.recv(1) != b"k":
        raise RuntimeError("the terminal's connection ended")
    took = time.perf_counter() - began
    time.sleep(PAUSE)
    return took


@contextmanager
def _downloads(site: TunnelSite, port: int, count: int) -> Iterator[None]:
    """
    Downloads through the tunnel that go on meanwhile.
    """
    url = f"http://{ADDRESS}:{port}{BULK_PATH}"
    command = ["curl", "--silent", "--output", "/dev/null", "--proxytunnel", "--proxy", site.through(), url]
    running = [Child(command, site.folder / f"download-{number}.log") for number in range(count)]
    try:
        time.sleep(1.0)
        yield
        if any(child.has_ended() for child in running):
            raise RuntimeError("a download ended before the measurement")
    finally:
        for child in running:
            child.stop()


@contextmanager
def _stalled(tunnel: Way, port: int) -> Iterator[None]:
    """
    A download that is asked for and never read.
    """
    with tunnel(port) as connection:
        connection.sendall(f"GET {BULK_PATH} HTTP/1.1\r\nHost: kubelet\r\n\r\n".encode())
        time.sleep(1.0)
        yield
