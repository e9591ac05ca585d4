"""
When, and of which server, a watch that broke off is asked for again.  No I/O here.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yurt.hub.cloud import Cloud, Server

RESUME_JITTER = 1.0
"""Watches resume spread over so many seconds after the cloud is back."""

RESUME_PAUSE = 1.0
"""Seconds between attempts of one watch, doubled up to MAX_RESUME_PAUSE while they bear no fruit."""

MAX_RESUME_PAUSE = 15.0

REFUSED_FOR = 30.0
"""Seconds during which a refusal (4xx) of a resumed watch is tried again: an API server that has just started gives out 401, 403
and 404 until its authorizer has caught up."""

MAY_PASS = frozenset({408, 429})
"""Those 4xx that say nothing about the request itself."""


class Resumption:
    """
    What the attempts of one watch have come to; ``tried`` are the servers that failed it since the last good one.
    """

    def __init__(self, cloud: Cloud) -> None:
        self.tried: list[Server] = []
        self._cloud = cloud
        self._pause = RESUME_PAUSE
        self._refused_since: float | None = None

    def accepted(self) -> None:
        """
        A server has begun to answer with a stream.
        """
        self._refused_since = None

    def bore_fruit(self) -> None:
        """
        An attempt has lasted, or brought something.
        """
        self._pause = RESUME_PAUSE
        self.tried.clear()

    def failed(self, server: Server) -> None:
        """
        Rather another server next time.
        """
        self.tried.append(server)

    def is_refused_for_good(self, status: int, now: float) -> bool:
        """
        Whether an error status has come for so long that it will not pass.
        """
        if not 400 <= status < 500 or status in MAY_PASS:
            self._refused_since = None
            return False
        self._refused_since = now if self._refused_since is None else self._refused_since
        return now - self._refused_since >= REFUSED_FOR

    def has_other(self, server: Server) -> bool:
        """
        Whether a server is there that is neither this one nor has failed.
        """
        return self._cloud.other([*self.tried, server]) is not None

    def choose(self) -> Server | None:
        """
        The server for the next attempt; None when the cloud is not reachable.
        """
        return self._cloud.other(self.tried) or self._cloud.pick()

    def choose_other(self) -> Server | None:
        """
        A server that has not failed; None when there is none.
        """
        return self._cloud.other(self.tried)

    def next_delay(self) -> float | None:
        """
        Seconds until the next attempt; None while only the cloud's return can bring one.
        """
        if not self._cloud.reachable:
            return None
        if len(self._cloud.servers) > 1 and self.choose_other() is not None:
            return random.uniform(0.0, self._cloud.failover_spread)
        self.tried.clear()
        pause = self._pause
        self._pause = min(pause * 2, MAX_RESUME_PAUSE)
        return random.uniform(0.0, pause)

    def delay_after_return(self) -> float:
        """
        Seconds until the first attempt after the cloud's return, each watch at its own moment.
        """
        self.bore_fruit()
        return random.uniform(0.0, RESUME_JITTER)
