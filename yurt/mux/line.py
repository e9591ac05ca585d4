"""
What is known of the line below a session: its round trip, and from that the window that a stream needs.
"""

from __future__ import annotations

from typing import Final

from yurt.mux.frames import MAX_UINT32
from yurt.mux.stream import Stream

SAMPLES: Final = 10
"""The shortest of so many round trips is taken for that of the line when nothing queues on it."""

STALE: Final = 5.0
"""Seconds after which a round trip is measured anew before a window grows because of it."""


class Line:
    """
    Pings under way, and what they told.  Times are seconds.
    """

    __slots__ = ("_samples", "measured_at", "pinged_at", "rtt", "value")

    def __init__(self, now: float) -> None:
        self.rtt: float | None = None
        self.measured_at = now
        self.pinged_at: float | None = None
        """When the ping was sent that is unanswered."""
        self.value = 0
        self._samples: tuple[float, ...] = ()

    def ping(self, now: float) -> int:
        """
        Begin to measure; returns the value to send.
        """
        self.pinged_at = self.measured_at = now
        self.value = (self.value + 1) & MAX_UINT32
        return self.value

    def pong(self, value: int, now: float) -> None:
        """
        An answer came; one to no ping of ours is ignored.
        """
        if self.pinged_at is not None and value == self.value:
            self.rtt = now - self.pinged_at
            self.pinged_at = None
            self._samples = (*self._samples[1 - SAMPLES :], self.rtt)

    def window(self, stream: Stream, elapsed: float, most: int) -> int:
        """
        The window that the stream should have: twice the product of the rate at which it was read since its credit was last
        returned, ``elapsed`` seconds ago, and the round trip; never smaller than now, at most doubled, at most ``most``.
        """
        if not self._samples or elapsed <= 0:
            return stream.window
        wanted = int(2 * stream.owed * min(self._samples) / elapsed)
        return max(stream.window, min(wanted, 2 * stream.window, most))
