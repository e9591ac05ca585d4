"""
What the server refuses: counted, all of it, and written to the log, as much of it as anybody can read.
"""

from __future__ import annotations

from collections import Counter

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from yurt.tunnel.server.metrics import ServerMetrics

LOG_INTERVAL = 10.0
MAX_LINES = 20
"""Lines of refusals within LOG_INTERVAL seconds; of further ones only their number is told, with the next line."""


class Refusals:
    """
    Tells operators what was refused and why, without filling their disks when a client asks again and again.
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
        now = self._seconds()
        if now - self._since >= LOG_INTERVAL:
            self._since, self._lines = now, 0
        if self._lines >= MAX_LINES:
            self._untold[word] += 1
            return
        self._lines += 1
        if self._untold:
            counts = ", ".join(f"{count} × {word}" for word, count in sorted(self._untold.items()))
            self.log.warn("refused in the meantime, without a line each: {counts}", counts=counts)
            self._untold.clear()
        self.log.warn("refused ({word}): {what}", word=word, what=message)
