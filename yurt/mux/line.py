"""
What is known of the line below a session: its round trip, its rate, and from these how much may be on it.

A ping is answered when the peer has taken all that was sent before it, from the buffers of both kernels, too.  So pings tell how
much is on its way, and bound it: without that bound megabytes wait in the peer's kernel when the peer cannot keep up, and a
keystroke waits behind them.
"""

from __future__ import annotations

from math import inf
from typing import Final

from yurt.mux.frames import MAX_UINT32
from yurt.mux.stream import Stream

BASE_AGE: Final = 10.0
"""
Seconds of longer round trips than what is on its way explains, after which the line is asked, almost empty, for its own: the way
through the net may have become a longer one.
"""

RATE_ROUNDS: Final = 5
"""
Round trips, and at most twice as many, for which a long line's best rate counts: where a packet was lost, an answer waits until
it has come again, though the line carries as much as before.
"""

STALE: Final = 5.0
"""Seconds after which a round trip is measured anew before a window grows because of it."""

LONG: Final = 0.005
"""The round trip from which on a line counts as a long one, seconds."""

MAX_PINGS: Final = 16
"""Pings without an answer."""

QUEUE: Final = 0.002
"""Seconds that bytes may wait on their way beside the round trip of the line; on a long line as many as that."""

LONE_QUEUE: Final = 0.004
MAX_LONE: Final = 1024 * 1024
"""
Seconds by which the queue may be longer while all that is on its way is one stream's, and the most bytes of that: on a fast line
both sides work without waiting for each other then, and are woken half as often.
"""

MIN_FLIGHT: Final = 512 * 1024
MAX_FLIGHT: Final = 64 * 1024 * 1024
"""Bounds of what may be on its way, bytes; between them it is what the line carries in its round trip and the queue's."""

FIRST_FLIGHT: Final = 64 * 1024
"""What may be on its way before anything is known of the line's rate, bytes."""

THIN_FLIGHT: Final = 32 * 1024
"""The lower bound where the line carries MIN_FLIGHT in more than THIN_QUEUE: what it carries in that time, but at least this."""

THIN_QUEUE: Final = 0.25
"""Seconds."""

THIN_FRAME: Final = 16 * 1024
"""The longest data frame on such a line, bytes: one record of TLS."""

LATE: Final = 1.0
"""Seconds beyond the line's round trip after which so much too much is on its way that it becomes less at once, not by and by."""


class Line:
    """
    Pings under way, and what they told.  Times are seconds, amounts bytes.
    """

    __slots__ = (
        "_emptied",
        "_explained_at",
        "_flight",
        "_marked",
        "_more",
        "_pings",
        "_rated_at",
        "_rates",
        "_sender",
        "_sole_since",
        "acked",
        "answers",
        "base",
        "credit_shift",
        "flight",
        "longest_frame",
        "measured_at",
        "rtt",
        "sent",
        "stretch",
        "value",
    )

    def __init__(self, now: float) -> None:
        self.rtt: float | None = None
        self.measured_at = now
        self.value = 0
        self.answers = 0
        self.sent = 0
        self.acked = 0
        """How much of what was sent the peer has taken for sure."""
        self._pings: list[tuple[int, float, int, int]] = []
        """Those without an answer: value, when it was sent, and how much was sent and taken then."""
        self._marked = 0
        self._flight = FIRST_FLIGHT
        self._more = 0
        self._sender = 0
        self._sole_since = inf
        """The stream that sent last, and how much was sent when it began to be the only one."""
        self.base = inf
        """The round trip when nothing queues on the line; infinite when none was measured."""
        self._explained_at = now
        """When a round trip was last no longer than that and what may queue."""
        self._emptied = inf
        """While the line is kept almost empty: how much was sent before."""
        self._rates = (0.0, 0.0)
        self._rated_at = now
        """The best of the last round trips and of those before them, and since when; bytes a second."""
        self.credit_shift = 2
        """
        Credit is returned when the window shifted by so much was read: each half on a short line, each quarter on a long one,
        where a window of which half is always on its way back would carry only half of what it should.
        """
        self.flight = FIRST_FLIGHT
        """How much may be on its way."""
        self.stretch = FIRST_FLIGHT >> 2
        """How much is sent between two pings."""
        self.longest_frame = MIN_FLIGHT
        """How long a data frame may be: where little may be on its way, one must not be twice that."""

    @property
    def awaits_answer(self) -> bool:
        """
        Whether a ping is unanswered.
        """
        return bool(self._pings)

    @property
    def asked_at(self) -> float:
        """
        When the oldest ping without an answer was sent; infinite when all are answered.
        """
        return self._pings[0][1] if self._pings else inf

    @property
    def room(self) -> int:
        """
        How much more may be sent now.  A peer that never answered a ping is trusted to know what it can take.
        """
        return self.flight - (self.sent - self.acked) if self.answers else MAX_FLIGHT

    @property
    def wants_ping(self) -> bool:
        """
        Whether so much was sent since the last ping that another one is worth its while.
        """
        return self.sent - self._marked >= self.stretch and len(self._pings) < MAX_PINGS

    def carry(self, stream: int, size: int) -> None:
        """
        So much of a stream is sent.
        """
        if stream != self._sender:
            self._sender = stream
            self._sole_since = self.sent
            self._reckon()
        self.sent += size

    def ping(self, now: float) -> int:
        """
        Begin to measure; returns the value to send.
        """
        self.measured_at = now
        self.value = (self.value + 1) & MAX_UINT32
        self._pings.append((self.value, now, self.sent, self.acked))
        self._marked = self.sent
        return self.value

    def pong(self, value: int, now: float) -> None:
        """
        An answer came; one to no ping of ours is ignored, and so is one that another overtook.
        """
        for place, (asked, at, sent, acked) in enumerate(self._pings):
            if asked == value:
                del self._pings[: place + 1]
                self.answers += 1
                self.acked = sent
                self.rtt = now - at
                self._note_base(self.rtt, sent - acked, acked, now)
                self._adapt(sent - acked, self.rtt, now)
                self.credit_shift = 1 if self.base < LONG else 2
                self._reckon()
                self.longest_frame = THIN_FRAME if self._flight < MIN_FLIGHT else MIN_FLIGHT
                return

    def _reckon(self) -> None:
        sole = self.acked >= self._sole_since
        self.flight = min(MAX_FLIGHT, self._flight + self._more) if sole else self._flight
        if self._emptied < inf:
            self.flight = self._flight >> 2
        self.stretch = self.flight >> self.credit_shift

    def _note_base(self, rtt: float, carried: int, acked: int, now: float) -> None:
        """
        The shortest round trip is the line's own, until for BASE_AGE all were longer than it and what may queue explain, and so
        is one that had next to nothing before it.
        """
        queue = THIN_QUEUE if carried and self._flight < MIN_FLIGHT else 0.0
        is_explained = rtt <= max(2 * self.base, 4 * LONG) + queue
        if not is_explained and now - self._explained_at <= BASE_AGE:
            return
        if is_explained or not carried or acked >= self._emptied:
            self.base = min(rtt, self.base) if is_explained else rtt
            self._explained_at = now
            self._emptied = inf
        elif self._emptied == inf:
            self._emptied = self.sent

    def _rate(self, rate: float, now: float) -> float:
        """
        What the line carries, by the rate of the last round trip: on a long one the best of some.
        """
        if self.base < LONG:
            return rate
        newer, older = self._rates
        if now - self._rated_at > RATE_ROUNDS * self.base:
            self._rates, self._rated_at = (rate, newer), now
        else:
            self._rates = (max(rate, newer), older)
        return max(self._rates)

    def _adapt(self, carried: int, rtt: float, now: float) -> None:
        """
        Let the flight follow what the line carries in one round trip; one that was not full tells nothing against it.
        """
        is_late = rtt - self.base > LATE
        if rtt > 0:
            self._more = min(MAX_LONE, int(carried * LONE_QUEUE / rtt))
            rate = carried / rtt if is_late else self._rate(carried / rtt, now)
            wanted = int(rate * (self.base + max(self.base, QUEUE)))
            least = max(THIN_FLIGHT, min(MIN_FLIGHT, int(rate * THIN_QUEUE)))
        else:
            wanted, least = 2 * carried, MIN_FLIGHT
        flight, step = self._flight, self._flight >> 2
        if wanted > flight or least > flight or 2 * carried > flight:
            lower = wanted if is_late else max(wanted, flight - step)
            self._flight = max(least, min(MAX_FLIGHT, flight + step, lower))

    def window(self, stream: Stream, elapsed: float, most: int) -> int:
        """
        The window that the stream should have: twice the product of the rate at which it was read since its credit was last
        returned, ``elapsed`` seconds ago, and the round trip; never smaller than now, at most doubled, at most ``most``.
        """
        if elapsed <= 0 or not self.answers:
            return stream.window
        wanted = int(2 * stream.owed * self.base / elapsed)
        return max(stream.window, min(wanted, 2 * stream.window, most))
