"""
What the server refuses, and what breaks: written to the log, as much of it as anybody can read; refusals are all counted.
"""

from __future__ import annotations

from collections import Counter

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from yurt.tunnel.server.metrics import ServerMetrics

LOG_INTERVAL = 10.0
MAX_LINES = 20
"""Lines within LOG_INTERVAL seconds; of what else happened only the number is told, with the next line."""

BROKEN = "broken connections"


class Refusals:
    """
    Tells operators what was refused or broke, and why, without filling their disks when a client asks again and again, or a
    link with a thousand streams ends.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime, metrics: ServerMetrics) -> None:
        self.metrics = metrics
        self._seconds = reactor.seconds
        self._since = reactor.seconds()
        self._lines = 0
        self._untold: Counter[str] = Counter()

    def refuse(self, word: str, message: str) -> None:
        """
        Count one of :data:`~yurt.tunnel.server.metrics.REFUSALS` and log what happened, for whom, and why.
        """
        self.metrics.refused(word)
        self._tell(word, f"refused ({word}): {message}")

    def broke(self, message: str) -> None:
        """
        Log that an answer ended in the middle, or a connection was reset, whose, and why.
        """
        self._tell(BROKEN, message)

    def _tell(self, kind: str, line: str) -> None:
        now = self._seconds()
        if now - self._since >= LOG_INTERVAL:
            self._since, self._lines = now, 0
        if self._lines >= MAX_LINES:
            self._untold[kind] += 1
            return
        self._lines += 1
        if self._untold:
            counts = ", ".join(f"{count} × {kind}" for kind, count in sorted(self._untold.items()))
            self.log.warn("refused or broken in the meantime, without a line each: {counts}", counts=counts)
            self._untold.clear()
        self.log.warn("{line}", line=line)
