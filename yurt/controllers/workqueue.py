"""
The work that waits: keys, each of which is worked on by one at a time.  No I/O and no clock; ``now`` is in seconds.

::

    add ──▶ READY ── take ──▶ RUNNING ── finish ──▶ gone, or READY when it was added meanwhile
              ▲                  │
              └── due ── LATER ◀─┴─ retry: the pause doubles with each failure in a row

What is added again while it waits is still looked at once.  A key that failed sits its pause out whatever happens: what changes
meanwhile is seen then.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

FIRST_PAUSE, MAX_PAUSE = 0.2, 30.0
"""Seconds after a first failure, and the most after any; each pause is up to a half shorter, at random."""
MAX_STALE = 100
"""Entries of the heap that may be out of date, beside as many as there are keys in it."""


class WorkQueue:
    """
    A queue of keys, the one that waits longest first.  ``draw`` gives numbers from 0 up to 1.

    It holds a key once, however often it is added, and so at most as many keys as there are objects that make them.
    """

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._ready: dict[str, None] = {}
        self._running: set[str] = set()
        self._again: set[str] = set()
        self._later: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._failures: dict[str, int] = {}

    def __len__(self) -> int:
        """
        Keys that could be taken now, as far as is known.
        """
        return len(self._ready)

    @property
    def running(self) -> int:
        """
        Keys that are being worked on.
        """
        return len(self._running)

    @property
    def failing(self) -> int:
        """
        Keys whose last attempt failed.
        """
        return len(self._failures)

    def add(self, key: str) -> None:
        """
        Something about ``key`` changed.
        """
        if key in self._running:
            self._again.add(key)
        elif not self._pauses(key):
            self._later.pop(key, None)
            self._ready[key] = None

    def add_later(self, key: str, due: float) -> None:
        """
        Look at ``key`` at ``due``, if nothing makes that necessary before.
        """
        if key in self._ready or key in self._running or self._pauses(key):
            return
        if due < self._later.get(key, float("inf")):
            self._later[key] = due
            heapq.heappush(self._heap, (due, key))
            if len(self._heap) > 2 * len(self._later) + MAX_STALE:
                self._heap = [(at, one) for one, at in self._later.items()]
                heapq.heapify(self._heap)

    def _pauses(self, key: str) -> bool:
        """
        Whether a key waits because it failed.
        """
        return key in self._later and key in self._failures

    def take(self, now: float) -> str | None:
        """
        The next key to work on, to be given back by :meth:`finish` or :meth:`retry`; None when there is none now.
        """
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            if self._later.get(key) == due:
                del self._later[key]
                self._ready[key] = None
        if not self._ready:
            return None
        key = next(iter(self._ready))
        del self._ready[key]
        self._running.add(key)
        return key

    def finish(self, key: str) -> None:
        """
        The work on ``key`` is done.
        """
        self._running.remove(key)
        self._failures.pop(key, None)
        if key in self._again:
            self._again.remove(key)
            self._ready[key] = None

    def retry(self, key: str, now: float, at_least: float = 0.0) -> float:
        """
        The work on ``key`` failed; the seconds until it is taken again.
        """
        self._running.remove(key)
        self._again.discard(key)
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        ceiling = min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 30))
        seconds = max(at_least, ceiling * (1 - self._draw() / 2))
        self.add_later(key, now + seconds)
        return seconds

    def next_due(self) -> float | None:
        """
        When the first of the keys that wait for their time is due.
        """
        while self._heap and self._later.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
