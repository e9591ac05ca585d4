"""
Promises of seconds, on a machine that is busy with other things besides.
"""

from __future__ import annotations

import time
from pathlib import Path

PRESSURE = Path("/proc/pressure/cpu")
"""Pressure stall information: docs.kernel.org/accounting/psi.html."""
LEAST = 0.25
"""The part of the time that counts however long tasks had to wait for a processor."""


def waited() -> float:
    """
    Seconds since the machine's start in which some task waited for a processor; 0.0 where the kernel does not tell.
    """
    try:
        some = PRESSURE.read_text().splitlines()[0]
    except OSError:
        return 0.0
    return int(some.rpartition("total=")[2]) / 1e6


class Stopwatch:
    """
    The time since it was made, less that in which tasks of this machine waited for a processor.  On a quiet machine that is all
    of it.  Other clusters beside a test's own slow all down several times; a promise is not broken by that.
    """

    def __init__(self) -> None:
        self._began, self._waited = time.monotonic(), waited()

    @property
    def elapsed(self) -> float:
        """
        All seconds since it was made.
        """
        return time.monotonic() - self._began

    def net(self, seconds: float | None = None) -> float:
        """
        What counts of ``seconds`` that passed since it was made, or of all of them.
        """
        seconds = self.elapsed if seconds is None else seconds
        return max(seconds - (waited() - self._waited), seconds * LEAST)

    def __str__(self) -> str:
        return f"{self.elapsed:.2f} s, of which {self.net():.2f} s count"

    @property
    def part(self) -> float:
        """
        Which part of the time counts, from LEAST to 1.
        """
        return self.net() / self.elapsed
