"""
Clients that watch, and note how late events come.
"""

from __future__ import annotations

import selectors
import socket
import time
from dataclasses import dataclass, field

from bench.hub.sender import MARK, SENT

TAIL = 64
"""Bytes of a piece that are kept for a mark that its end may cut."""

_PIECE = bytearray(1 << 18)
"""What all watchers read into: a fresh buffer for each piece would cost more than the piece."""


@dataclass
class Watcher:
    """
    One watch over ``connection``, plain or TLS.
    """

    connection: socket.socket
    agent: str
    path: str
    delays: list[float] = field(default_factory=list)
    _rest: bytes = b""

    def __post_init__(self) -> None:
        separator = "&" if "?" in self.path else "?"
        target = f"{self.path}{separator}watch=true&resourceVersion=100000&allowWatchBookmarks=true"
        head = f"GET {target} HTTP/1.1\r\nHost: bench\r\nUser-Agent: {self.agent}\r\nAccept: application/json\r\n\r\n"
        self.connection.sendall(head.encode())

    def wait_for_head(self, timeout: float = 10.0) -> None:
        """
        Until the response has begun; raises RuntimeError unless it is a 200.
        """
        self.connection.settimeout(timeout)
        while b"\r\n\r\n" not in self._rest:
            data = self.connection.recv(65536)
            if not data:
                break
            self._rest += data
        if b" 200 " not in self._rest.split(b"\r\n", 1)[0]:
            raise RuntimeError(f"the watch was refused: {self._rest[:500]!r}")
        self._rest = b""

    def read(self) -> None:
        """
        Take what has come, and note the delay of each event in it.
        """
        data = self._rest + _PIECE[: self.connection.recv_into(_PIECE)]
        now = time.time()
        place = 0
        for match in SENT.finditer(data):
            self.delays.append(now - float(match[1]))
            place = match.end()
        self._rest = data[max(place, len(data) - TAIL) :] if MARK[:1] in data[-TAIL:] else b""

    def close(self) -> None:
        self.connection.close()


def read_for(watchers: list[Watcher], seconds: float) -> None:
    """
    Read all of them for so long.
    """
    with selectors.DefaultSelector() as selector:
        for watcher in watchers:
            selector.register(watcher.connection, selectors.EVENT_READ, watcher)
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                key.data.read()
