"""
The time of day, as far as it is known: boxes without a battery for their clock start in 1970, or when their image was built.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import inf
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from yurt.http.heads import get_header
from yurt.http.interfaces import Headers
from yurt.hub.timers import Timers

KEEP_INTERVAL = 600.0
"""Seconds between two writes of the known time: so much a box lacks that reboots without the cloud, and its flash lives long."""

TOLERANCE = 60.0
"""Seconds that this machine's clock and the cloud's may differ without a word."""

KEY = b"time"


class TimeTable(Protocol):
    """
    The part of a store table that is needed here.
    """

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None: ...


since_boot = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds since the machine started, those in which it slept included."""


class KnownTime:
    """
    Called, it tells the time of day in seconds: by the machine's clock or by what the cloud last said, whichever is later.

    What the cloud said goes on by ``steady``, and is kept in ``table`` over restarts, over which it stands still.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        table: TimeTable,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = since_boot,
    ) -> None:
        self._table = table
        self._wall = wall
        self._steady = steady
        self._timers = Timers(reactor)
        self._ahead = -inf
        """What is known, less what ``steady`` says."""
        self._heard = False
        self._warned = False

    def __call__(self) -> float:
        return max(self._wall(), self._ahead + self._steady())

    def start(self) -> None:
        """
        Read what was known before, and keep it from now on.
        """
        kept = self._table.get(KEY)
        if kept is not None and kept.isdigit():
            self._know(float(kept))
        self._timers.set("keep", KEEP_INTERVAL, self._keep_again)

    def stop(self) -> None:
        """
        Keep what is known for the next start.
        """
        self._timers.cancel_all()
        self.keep()

    def told(self, headers: Headers) -> None:
        """
        These came with an answer of the cloud, just now.
        """
        said = get_header(headers, b"date")
        with suppress(ValueError):
            then = time.strptime("" if said is None else said.decode("latin-1"), "%a, %d %b %Y %H:%M:%S GMT")
            self._heard = True
            self._know(float(calendar.timegm(then)))

    def keep(self) -> None:
        """
        Write down what is known.
        """
        known = self._ahead + self._steady()
        if known > 0:
            self._table.put(KEY, b"%d" % known)

    @property
    def problem(self) -> str:
        """
        How the machine's clock differs from the cloud's; empty when it does not, as far as is known.
        """
        off = self._wall() - self._ahead - self._steady()
        if off < -TOLERANCE:
            return f"this machine's clock is {-off:.0f} s behind the cloud's; tokens are judged by the cloud's"
        if off > TOLERANCE and self._heard:
            return f"this machine's clock is {off:.0f} s ahead of the cloud's; without the cloud tokens end so much too early"
        return ""

    def _keep_again(self) -> None:
        self.keep()
        self._timers.set("keep", KEEP_INTERVAL, self._keep_again)

    def _know(self, then: float) -> None:
        self._ahead = then - self._steady()
        problem = self.problem
        if problem and not self._warned:
            self.log.warn("{problem}", problem=problem)
        self._warned = bool(problem)
