"""
What a session may use: bounds that are the same everywhere, and those that its owner chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_CONTROL_FRAMES: Final = 20_000
"""
Frames without data that wait to be sent: all that 4,096 streams can need, several times.  A peer that asks for more answers
than it reads ends its session.
"""

MAX_SKIPPED: Final = 4096
"""
Stream numbers that a peer left out and may still use: one that opens streams in several threads sends them out of order.
"""

MAX_GROWTH: Final = 64 * 1024 * 1024
"""What all streams of a session together may be given above :attr:`MuxLimits.window`, bytes."""

STREAM_BUFFER: Final = 256 * 1024
"""What a stream may hold unsent, waiting for the peer's window or for its turn, before its producer is paused."""

FEW_BYTES: Final = 4096
"""
A stream that writes no more than this in a round trip, as one with keystrokes does, need not wait for its turn, nor for the
peer to have taken what is on its way.
"""

AT_ONCE: Final = 16 * 1024
"""Longer pieces are worth the queue, which hands them on without a copy; shorter ones skip it when it is empty."""

BATCH: Final = 256 * 1024
"""
What is handed to the transport at once: all that one read of a busy socket brings.  A stream that has something to say at last
waits behind that, what the transport holds, and :data:`KERNEL_BUFFER`.
"""

KERNEL_BUFFER: Final = 128 * 1024
"""What the kernel may hold that is not yet on its way; without this bound it takes megabytes."""


@dataclass(frozen=True, slots=True)
class MuxLimits:
    """
    Sizes in bytes, times in seconds.
    """

    window: int = 1024 * 1024
    """What a stream may receive unread, given at once; the format's 256 KiB are the least."""

    max_window: int = 16 * 1024 * 1024
    """What it is grown to on a line whose bandwidth and delay ask for it."""

    max_frame: int = 64 * 1024
    """
    The longest data frame that is sent while another stream waits for its turn.  One that is alone fills a batch, which is handed
    to the transport at once anyway: each frame costs the reader as much, however long it is.
    """

    max_streams: int = 4096
    ping_after: float = 7.0
    """Silence in either direction after which the peer is pinged: what thousands of idle agents cost, in CPU and on the line."""

    ping_patience: float = 6.5
    """
    Further silence after which the peer is taken for dead: altogether a second and a half less than the 15 s that are promised,
    for the timers of a busy machine.
    """

    linger: float = 60.0
    """How long a stream that was closed here waits for the peer to close it, too, before it is reset."""

    @property
    def dead_after(self) -> float:
        """
        Silence after which the peer is taken for dead.
        """
        return self.ping_after + self.ping_patience
