"""
One stream as its session sees it: numbers, and what waits to be sent.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from yurt.mux.frames import INITIAL_WINDOW

if TYPE_CHECKING:
    from yurt.mux.session import Session


class Stream:
    """
    A stream.  A subclass fills in the methods that say what happened; the session calls them, and nothing is said twice.

    ``open`` ends when both directions have ended, or either side has reset the stream.  ``credit`` is what may be sent,
    ``receivable`` what may come, ``window`` what may be here unread at most.
    """

    __slots__ = (
        "bytes_received",
        "bytes_sent",
        "burst",
        "burst_of",
        "credit",
        "credited_at",
        "fin_sent",
        "finishing",
        "number",
        "offset",
        "open",
        "owed",
        "peer_fin",
        "queue",
        "queued",
        "ready",
        "receivable",
        "session",
        "window",
    )

    def __init__(self, session: Session, number: int) -> None:
        self.session = session
        self.number = number
        self.open = True
        self.credit = INITIAL_WINDOW
        self.window = self.receivable = max(INITIAL_WINDOW, session.limits.window)
        self.bytes_received = 0
        self.bytes_sent = 0
        self.queued = 0
        """Bytes that wait to be sent: those in ``queue`` but for the first ``offset``."""
        self.queue: deque[bytes] | None = None
        self.offset = 0
        self.ready = False
        """Whether the stream waits for its turn to send."""
        self.burst = 0
        self.burst_of = 0
        """What the stream wrote since the line's round trip was measured for the so-manieth time."""
        self.finishing = False
        self.fin_sent = False
        self.peer_fin = False
        self.owed = 0
        """Bytes that were read, and whose credit was not yet given back."""
        self.credited_at = 0.0

    def take(self, size: int, out: list[bytes]) -> None:
        """
        Move the first ``size`` bytes that wait to ``out``; whole pieces are not copied.
        """
        self.queued -= size
        queue, offset = self.queue, self.offset
        assert queue is not None
        while size:
            first = queue[0]
            end = offset + size
            if end < len(first):
                out.append(first[offset:end])
                self.offset = end
                return
            out.append(first[offset:] if offset else first)
            size -= len(first) - offset
            queue.popleft()
            offset = self.offset = 0

    def received(self, data: bytes | memoryview) -> None:
        """
        Bytes came; a view does not outlast the call.  Whoever has read them calls :meth:`~yurt.mux.session.Session.consumed`.
        """

    def peer_finished(self) -> None:
        """
        The peer writes no more.
        """

    def was_reset(self) -> None:
        """
        The peer has ended both directions.
        """

    def sent(self) -> None:
        """
        Some of what was queued has left.
        """

    def finished(self) -> None:
        """
        All that was written has left, and the end behind it.
        """
