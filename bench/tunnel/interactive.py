"""
A terminal beside others that take all they can, or nothing at all.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.children import Child, is_listening
from bench.figures import Figure, at_most, median, percentile
from bench.tunnel.site import ADDRESS, TunnelSite
from bench.tunnel.ways import Way, direct, through
from tests.ports import free_port

KEYSTROKES = 1000
PAUSE = 0.005
"""Seconds between two keystrokes."""
BULK_STREAMS = 4
GIGABIT = 125_000_000
"""Bytes a second."""
BULK_PATH = "/bulk"
BULK_BYTES = 1 << 28
"""
Small enough to stay in memory: a kernel that makes room for a file that it has not yet read holds a processor for tens of
milliseconds on a virtual machine, and whatever else is to run waits for that.
"""
DOWNLOADS = 1 << 16
"""How often each client fetches it; more than it can while a row is measured."""

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
    A byte to the node and back, while four downloads run: such as fill a link, and such as take all that the machine has.
    """
    with TunnelSite() as site:
        echo, bulk_port, *daemons = _node(site)
        tunnel = through(site)
        with tunnel(echo) as terminal, direct(echo) as beside:
            calm = percentile(_type(terminal), 0.99)
            for which, rate in (("that fill a link of 1 Gbit/s", GIGABIT // BULK_STREAMS), ("as fast as they go", 0)):
                with _downloads(site, bulk_port, BULK_STREAMS, rate):
                    began, waited = time.monotonic(), sum(child.waited() for child in daemons)
                    busy = percentile(_type(terminal), 0.99)
                    share = 100 * (sum(child.waited() for child in daemons) - waited) / (time.monotonic() - began)
                    peer = percentile(_type(beside), 0.99)
                detail = (
                    f"without downloads {1000 * calm:.2f} ms; direct, beside them, {1000 * peer:.2f} ms; server and agent "
                    f"together waited for a processor {share:.0f} % of the time"
                )
                yield at_most(f"keystroke round trip beside {BULK_STREAMS} downloads {which}, p99", busy * 1000, "ms", 15, detail)


def stalled_reader() -> Iterator[Figure]:
    """
    The same beside one download that nobody reads, against another tunnel without one.  Keystrokes go to both in turn, so that
    what else the machine does meets both, and the tunnels change places.
    """
    with TunnelSite() as first, TunnelSite() as second:
        ways = []
        for site in (first, second):
            echo, bulk_port, *_ = _node(site)
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


def _node(site: TunnelSite) -> tuple[int, int, Child, Child]:
    """
    Two ports of the node, one that echoes and one that serves a large file; server and agent.
    """
    kubelet = site.kubelet()
    kubelet.serve(BULK_PATH, bytes(BULK_BYTES))
    echo = free_port()
    child = site.child("echo", sys.executable, "-c", ECHO, str(echo))
    child.wait_until(lambda: is_listening(echo), "an echo")
    return echo, kubelet.plain_port, site.server(), site.agent(echo, kubelet.plain_port)


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
def _downloads(site: TunnelSite, port: int, count: int, rate: int) -> Iterator[None]:
    """
    Downloads through the tunnel that go on meanwhile; ``rate`` is what each may take, bytes a second, 0 for all it can.
    """
    url = f"http://{ADDRESS}:{port}{BULK_PATH}?[1-{DOWNLOADS}]"
    way = ["--proxytunnel", "--proxy", site.through(), "--limit-rate", str(rate)]
    command = ["curl", "--silent", "--output", "/dev/null", *way, url]
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
