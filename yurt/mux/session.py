"""
A yamux session without I/O: bytes go in by :meth:`Session.receive`, bytes come out by :meth:`Session.output`.

What happens to a stream is told to it by the methods of :class:`Stream` that a subclass fills in; nothing is told twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from yurt.mux.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEAD,
    HEAD_BYTES,
    INITIAL_WINDOW,
    INTERNAL_ERROR,
    MAX_UINT32,
    NORMAL,
    PING,
    PROTOCOL_ERROR,
    RST,
    SYN,
    WINDOW_UPDATE,
    IllegalFrame,
    MuxClosed,
    PeerWentAway,
    head,
)

MAX_CONTROL_BYTES: Final = 256 * 1024
"""
Frames without data that wait to be sent.  A peer that asks for more answers than it reads ends its session.
"""

MAX_SKIPPED: Final = 4096
"""
Stream numbers that a peer left out and may still use: one that opens streams in several threads sends them out of order.
"""

MAX_GROWTH: Final = 64 * 1024 * 1024
"""What all streams of a session together may be given above :attr:`MuxLimits.window`, bytes."""

RTT_SAMPLES: Final = 10
"""The shortest of so many round trips is taken for that of the line when nothing queues on it."""

EARLY_CREDIT: Final = 4096
"""
Credit that is returned after a second even when half a window is not reached: on a thin line the sender would hear nothing for
minutes otherwise.
"""


@dataclass(frozen=True, slots=True)
class MuxLimits:
    """
    Sizes in bytes, times in seconds.
    """

    window: int = 1024 * 1024
    """What a stream may receive unread, given at once."""

    max_window: int = 16 * 1024 * 1024
    """What it is grown to on a line whose bandwidth and delay ask for it."""

    max_frame: int = 64 * 1024
    """The longest data frame that is sent: what a stream sends before the next one has its turn."""

    max_streams: int = 4096
    ping_after: float = 5.0
    """Silence in either direction after which the peer is pinged."""

    ping_patience: float = 10.0
    """Further silence after which the peer is taken for dead."""

    linger: float = 60.0
    """How long a stream that was closed here waits for the peer to close it, too."""


class Stream:
    """
    One stream, as the session sees it.
    """

    __slots__ = (
        "_credited_at",
        "_fin_sent",
        "_finishing",
        "_held_window",
        "_offset",
        "_owed",
        "_peer_finished",
        "_queue",
        "_ready",
        "bytes_received",
        "bytes_sent",
        "credit",
        "number",
        "open",
        "queued",
        "receivable",
        "session",
    )

    def __init__(self, session: Session, number: int) -> None:
        self.session = session
        self.number = number
        self.open = True
        self.credit = INITIAL_WINDOW
        self.receivable = INITIAL_WINDOW
        self.queued = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self._held_window = session.limits.window
        self._owed = 0
        self._credited_at = session.clock()
        self._queue: deque[bytes] | None = None
        self._offset = 0
        self._ready = False
        self._finishing = False
        self._fin_sent = False
        self._peer_finished = False

    # What happens; a subclass fills them in.

    def received(self, data: bytes) -> None:
        """
        Bytes came.  Whoever took them calls :meth:`Session.consumed`.
        """

    def peer_finished(self) -> None:
        """
        The peer writes no more.
        """

    def was_reset(self) -> None:
        """
        The peer ended both directions.
        """

    def sent(self) -> None:
        """
        Some of what was queued has left.
        """

    def finished(self) -> None:
        """
        All that was written has left, and the end behind it.
        """


class Session:
    """
    One side of a connection.  ``client``: whether our streams have odd numbers.  ``make`` makes a stream's object, for those that
    the peer opens and for our own; ``accept`` is told of each that the peer opened.
    """

    def __init__(
        self,
        *,
        client: bool,
        limits: MuxLimits,
        make: Callable[[Session, int], Stream],
        accept: Callable[[Stream], None],
        clock: Callable[[], float],
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.streams: dict[int, Stream] = {}
        self.ended = False
        self.going_away = False
        self.peer_going_away = False
        self.rtt: float | None = None
        self.bytes_received = 0
        self.bytes_sent = 0
        self._make = make
        self._accept = accept
        self._next = 1 if client else 2
        self._parity = 0 if client else 1
        self._highest = 0 if client else -1
        self._skipped: dict[int, None] | None = None
        self._control: list[bytes] = []
        self._ready: deque[Stream] = deque()
        self._partial = b""
        self._body = 0
        self._body_stream: Stream | None = None
        self._body_fin = False
        self._growth = 0
        self._ping_value = 0
        self._pinged_at: float | None = None
        self._measured_at = clock()
        self._samples: list[float] = []

    # Our side

    def open(self) -> Stream:
        """
        Open a stream; raises :class:`MuxClosed`.
        """
        if self.ended:
            raise MuxClosed("the session has ended")
        if self.peer_going_away or self.going_away:
            raise MuxClosed("the peer is going away" if self.peer_going_away else "this side is going away")
        if len(self.streams) >= self.limits.max_streams or self._next > MAX_UINT32:
            raise MuxClosed(f"all {self.limits.max_streams} streams of the connection are in use")
        number, self._next = self._next, self._next + 2
        stream = self._make(self, number)
        self._begin(stream, SYN)
        return stream

    def _begin(self, stream: Stream, flag: int) -> None:
        self.streams[stream.number] = stream
        more = max(0, self.limits.window - INITIAL_WINDOW)
        stream.receivable = INITIAL_WINDOW + more
        stream._held_window = stream.receivable
        self._tell(head(WINDOW_UPDATE, flag, stream.number, more))

    def write(self, stream: Stream, data: bytes) -> None:
        """
        Queue bytes; ignored when the stream no longer takes any.
        """
        if not data or not stream.open or stream._finishing:
            return
        if stream._queue is None:
            stream._queue = deque()
        stream._queue.append(data)
        stream.queued += len(data)
        if not stream._ready and stream.credit:
            stream._ready = True
            self._ready.append(stream)

    def finish(self, stream: Stream) -> None:
        """
        End the writing direction behind what was written.
        """
        if not stream.open or stream._finishing:
            return
        stream._finishing = True
        if not stream._ready and not stream.queued:
            stream._ready = True
            self._ready.append(stream)

    def reset(self, stream: Stream) -> None:
        """
        End both directions now; what was not sent is dropped, and the stream is told nothing more.
        """
        if stream.open:
            self._forget(stream)
            self._tell(head(WINDOW_UPDATE, RST, stream.number, 0))

    def consumed(self, stream: Stream, count: int) -> None:
        """
        Bytes were delivered: let the peer send as many more, some at a time.
        """
        stream._owed += count
        if stream._peer_finished or not stream.open:
            return
        enough = stream._owed * 2 >= stream._held_window
        if enough or stream._owed >= EARLY_CREDIT:
            now = self.clock()
            elapsed = now - stream._credited_at
            if enough or elapsed >= 1.0:
                self._return_credit(stream, now, elapsed)

    def _return_credit(self, stream: Stream, now: float, elapsed: float) -> None:
        more = self._growth_of(stream, elapsed)
        credit = stream._owed + more
        stream._held_window += more
        stream.receivable += credit
        stream._owed = 0
        stream._credited_at = now
        self._growth += more
        self._tell(head(WINDOW_UPDATE, 0, stream.number, credit))

    def _growth_of(self, stream: Stream, elapsed: float) -> int:
        """
        How much the window is to grow towards twice the product of the rate seen and the line's round trip.
        """
        if not self._samples or stream._held_window >= self.limits.max_window:
            return 0
        wanted = 2 * stream._owed * min(self._samples) / max(elapsed, 1e-6)
        if wanted <= stream._held_window:
            return 0
        wanted = min(wanted, 2 * stream._held_window, self.limits.max_window)
        return min(int(wanted) - stream._held_window, MAX_GROWTH - self._growth)

    def go_away(self, code: int = NORMAL) -> None:
        """
        Take no new streams, and say so.
        """
        if not self.going_away:
            self.going_away = True
            self._tell(head(GO_AWAY, 0, 0, code))

    def ping(self) -> None:
        """
        Ask for a sign of life, unless an answer is awaited already.
        """
        if self._pinged_at is None:
            self._ping_value = (self._ping_value + 1) & MAX_UINT32
            self._pinged_at = self._measured_at = self.clock()
            self._tell(head(PING, SYN, 0, self._ping_value))

    @property
    def awaits_pong(self) -> bool:
        """
        Whether a ping is unanswered.
        """
        return self._pinged_at is not None

    def end(self) -> list[Stream]:
        """
        End the session; the streams that were open are told nothing, and returned.
        """
        self.ended = True
        streams, self.streams = list(self.streams.values()), {}
        for stream in streams:
            stream.open = False
            stream._queue = None
        self._ready.clear()
        self._body_stream = None
        return streams

    # Bytes out

    @property
    def has_output(self) -> bool:
        """
        Whether :meth:`output` would give anything.
        """
        return bool(self._control or self._ready)

    def output(self, most: int) -> bytes:
        """
        Frames to send: all those without data, then data, a frame of each stream in turn, until there are ``most`` bytes.
        """
        out, self._control = self._control, []
        ready = self._ready
        while ready and most > 0:
            most -= self._put_frame(ready.popleft(), out)
        return out[0] if len(out) == 1 else b"".join(out)

    def _put_frame(self, stream: Stream, out: list[bytes]) -> int:
        if not stream.open:
            return 0
        size = min(stream.queued, stream.credit, self.limits.max_frame)
        stream.queued -= size
        stream.credit -= size
        last = stream._finishing and not stream.queued
        out.append(head(DATA if size else WINDOW_UPDATE, FIN if last else 0, stream.number, size))
        if size:
            stream.bytes_sent += size
            self.bytes_sent += size
            _take(stream, size, out)
        if stream.queued and stream.credit:
            self._ready.append(stream)
        else:
            stream._ready = False
        if last:
            stream._fin_sent = True
            if stream._peer_finished:
                self._forget(stream)
            stream.finished()
        else:
            stream.sent()
        return size + HEAD_BYTES

    def _tell(self, frame: bytes) -> None:
        if not self.ended:
            self._control.append(frame)

    # Bytes in

    def receive(self, data: bytes) -> None:
        """
        Take bytes; raises :class:`IllegalFrame` or :class:`PeerWentAway`, after which nothing may follow but :meth:`end`.
        """
        if self._partial:
            data, self._partial = self._partial + data, b""
        position, size = 0, len(data)
        while position < size and not self.ended:
            if self._body:
                take = min(self._body, size - position)
                self._body -= take
                self._take_body(data if take == size else data[position : position + take])
                position += take
            elif size - position < HEAD_BYTES:
                self._partial = data[position:]
                return
            else:
                version, kind, flags, number, length = HEAD.unpack_from(data, position)
                position += HEAD_BYTES
                if version:
                    raise self._illegal("version", f"version {version}")
                if kind == DATA:
                    self._data_head(flags, number, length)
                elif kind == WINDOW_UPDATE:
                    self._window_update(flags, number, length)
                elif kind == PING:
                    self._ping(flags, number, length)
                elif kind == GO_AWAY:
                    self._go_away(number, length)
                else:
                    raise self._illegal("type", f"a frame of type {kind}")
        if len(self._control) * HEAD_BYTES > MAX_CONTROL_BYTES:
            raise self._illegal("flood", "it asks for more answers than it reads")

    def _illegal(self, name: str, what: str) -> IllegalFrame:
        self._control.append(head(GO_AWAY, 0, 0, PROTOCOL_ERROR))
        return IllegalFrame(name, what)

    def _take_body(self, data: bytes) -> None:
        stream = self._body_stream
        if stream is not None and stream.open:
            stream.bytes_received += len(data)
            self.bytes_received += len(data)
            stream.received(data)
        if not self._body:
            self._body_stream = None
            if self._body_fin:
                self._body_fin = False
                if stream is not None:
                    self._peer_finished(stream)

    def _data_head(self, flags: int, number: int, length: int) -> None:
        stream = self._find(flags, number)
        if stream is not None:
            if stream._peer_finished and length:
                raise self._illegal("data-after-fin", f"data behind the end of stream {number}")
            if length > stream.receivable:
                raise self._illegal("window", f"{length} bytes for stream {number}, which may take {stream.receivable}")
            stream.receivable -= length
        if flags & RST:
            self._was_reset(stream)
            stream = None
        self._body = length
        self._body_stream = stream
        self._body_fin = bool(flags & FIN)
        if not length and stream is not None and self._body_fin:
            self._body_fin = False
            self._peer_finished(stream)

    def _window_update(self, flags: int, number: int, length: int) -> None:
        stream = self._find(flags, number)
        if stream is None:
            return
        if length:
            stream.credit += length
            if stream.credit > MAX_UINT32:
                raise self._illegal("window-overflow", f"a window of {stream.credit} bytes for stream {number}")
            if stream.queued and not stream._ready:
                stream._ready = True
                self._ready.append(stream)
        if flags & RST:
            self._was_reset(stream)
        elif flags & FIN:
            self._peer_finished(stream)

    def _find(self, flags: int, number: int) -> Stream | None:
        """
        The stream of a frame; None when it was closed or refused, so that the frame is to be dropped.
        """
        if flags & SYN:
            return self._opened(number)
        stream = self.streams.get(number)
        if stream is None and self._is_unknown(number):
            raise self._illegal("unknown-stream", f"a frame for stream {number}, which was never opened")
        return stream

    def _is_unknown(self, number: int) -> bool:
        if number & 1 == self._parity:
            return number > self._highest or number == 0 or (self._skipped is not None and number in self._skipped)
        return number >= self._next

    def _opened(self, number: int) -> Stream | None:
        if number == 0 or number & 1 != self._parity:
            raise self._illegal("parity", f"it opened stream {number}, whose number is not its own to choose")
        if not self._is_unknown(number):
            raise self._illegal("duplicate", f"it opened stream {number} twice")
        self._note_number(number)
        if self.going_away or len(self.streams) >= self.limits.max_streams:
            self._tell(head(WINDOW_UPDATE, RST, number, 0))
            return None
        stream = self._make(self, number)
        self._begin(stream, ACK)
        self._accept(stream)
        return stream

    def _note_number(self, number: int) -> None:
        if number < self._highest:
            assert self._skipped is not None
            del self._skipped[number]
            return
        if number > self._highest + 2:
            skipped = self._skipped = self._skipped or {}
            if (number - self._highest) // 2 + len(skipped) > MAX_SKIPPED:
                raise self._illegal("skipped", f"it opened stream {number} after {max(0, self._highest)}")
            skipped.update(dict.fromkeys(range(self._highest + 2, number, 2)))
        self._highest = number

    def _peer_finished(self, stream: Stream) -> None:
        if stream.open and not stream._peer_finished:
            stream._peer_finished = True
            if stream._fin_sent:
                self._forget(stream)
            stream.peer_finished()

    def _was_reset(self, stream: Stream | None) -> None:
        if stream is not None and stream.open:
            self._forget(stream)
            stream.was_reset()

    def _forget(self, stream: Stream) -> None:
        stream.open = False
        stream._queue = None
        stream.queued = 0
        self._growth -= max(0, stream._held_window - max(self.limits.window, INITIAL_WINDOW))
        del self.streams[stream.number]

    def _ping(self, flags: int, number: int, value: int) -> None:
        if number:
            raise self._illegal("ping", f"a ping on stream {number}")
        if flags & SYN:
            self._tell(head(PING, ACK, 0, value))
        elif flags & ACK and value == self._ping_value and self._pinged_at is not None:
            self.rtt = self.clock() - self._pinged_at
            self._pinged_at = None
            self._samples = [*self._samples[1 - RTT_SAMPLES :], self.rtt]

    def _go_away(self, number: int, code: int) -> None:
        if number:
            raise self._illegal("go-away", f"go away on stream {number}")
        if code != NORMAL:
            why = {PROTOCOL_ERROR: "protocol error", INTERNAL_ERROR: "internal error"}.get(code, f"code {code}")
            raise PeerWentAway(f"the peer ended the session: {why}")
        self.peer_going_away = True


def _take(stream: Stream, size: int, out: list[bytes]) -> None:
    """
    Move the first ``size`` queued bytes of a stream to ``out``.
    """
    queue = stream._queue
    assert queue is not None
    while size:
        first = queue[0]
        rest = len(first) - stream._offset
        if rest <= size:
            out.append(memoryview(first)[stream._offset :] if stream._offset else first)  # type: ignore[arg-type]  # for join
            queue.popleft()
            stream._offset = 0
            size -= rest
        else:
            out.append(memoryview(first)[stream._offset : stream._offset + size])  # type: ignore[arg-type]  # for join
            stream._offset += size
            size = 0
