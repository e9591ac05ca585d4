"""
A yamux session without I/O: bytes go in by :meth:`Session.receive` and come out by :meth:`Session.output`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

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
    NoStreamLeft,
    PeerWentAway,
    head,
)
from yurt.mux.limits import AT_ONCE, FEW_BYTES, MAX_CONTROL_FRAMES, MAX_GROWTH, MAX_SKIPPED, MuxLimits
from yurt.mux.line import STALE, Line
from yurt.mux.stream import Stream

EARLY_CREDIT_BYTES = 4096
EARLY_CREDIT_AFTER = 1.0
"""
Credit for so many bytes is returned after so many seconds even when they are not half a window: on a thin line the sender
would not hear for minutes that all is well.
"""


class Session:
    """
    One side of a connection.  ``client``: whether our streams have odd numbers.  ``make`` makes the object of a stream, the
    peer's or our own; ``accept`` is told of each that the peer opened.  ``clock`` counts seconds.
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
        self.line = Line(clock())
        self.streams: dict[int, Stream] = {}
        self.ended = False
        self.going_away = False
        self.peer_going_away = False
        self.bytes_received = 0
        self._make = make
        self._accept = accept
        self._next = 1 if client else 2
        # Numbers of the peer's streams: odd or even, the highest that was used, and those below it that were not yet.
        self._peer_parity = 0 if client else 1
        self._highest = self._peer_parity - 2 if self._peer_parity else 0
        self._skipped: dict[int, None] | None = None
        # Bytes by which the windows of all streams together have grown beyond those that they began with.
        self._growth = 0
        self._greatest_window = max(INITIAL_WINDOW, limits.window, limits.max_window)
        # Frames without data: those to be sent now, and those that go with whatever is said next.
        self._control: list[bytes] = []
        self._late: list[bytes] = []
        # Streams that may send: those with much to say, each in its turn, and those with little, which go before them.
        # Lists, though their heads are taken: an empty deque is larger than all else here, and servers have thousands of them.
        self._ready: list[Stream] = []
        self._first: list[Stream] = []
        self._partial = b""
        # The data frame that has begun: what is missing of it, whose it is (None: to be dropped), whether it ends its stream.
        self._missing = 0
        self._body_of: Stream | None = None
        self._body_fin = False

    # What our side wants

    def open(self) -> Stream:
        """
        Open a stream; raises :class:`MuxClosed`.
        """
        if self.ended:
            raise MuxClosed("the session has ended")
        if self.peer_going_away or self.going_away:
            raise MuxClosed("the peer is going away" if self.peer_going_away else "this side is going away")
        if len(self.streams) >= self.limits.max_streams:
            raise NoStreamLeft(f"all {self.limits.max_streams} streams of the connection are in use")
        number, self._next = self._next, self._next + 2
        stream = self._begin(number, SYN)
        if self._next > MAX_UINT32:
            self.go_away()  # this was the last number, and the peer comes again
        return stream

    def _begin(self, number: int, flag: int) -> Stream:
        stream = self.streams[number] = self._make(self, number)
        stream.credited_at = self.clock()
        # Nobody waits for an ACK: the format gives a stream its first credit, and the answer that it asks for comes soon.
        frames = self._late if flag == ACK else self._control
        frames.append(head(WINDOW_UPDATE, flag, number, stream.window - INITIAL_WINDOW))
        return stream

    def write(self, stream: Stream, data: bytes) -> None:
        """
        Queue bytes; they are dropped when the stream takes no more.
        """
        if not data or not stream.open or stream.finishing:
            return
        if stream.queue is None:
            stream.queue = deque()
        stream.queue.append(data)
        stream.queued += len(data)
        if stream.burst_of != self.line.answers:
            stream.burst_of, stream.burst = self.line.answers, 0
        stream.burst += len(data)
        if stream.credit and not stream.ready:
            stream.ready = True
            (self._first if stream.burst <= FEW_BYTES else self._ready).append(stream)

    def write_at_once(self, stream: Stream, data: bytes) -> bytes | None:
        """
        What to send for bytes that need not wait, as no other stream's do and there is room; None when they are to be queued.
        Frames without data that wait go before them.
        """
        size, line = len(data), self.line
        if self._first or self._ready or not stream.open or stream.finishing or stream.queued:
            return None
        if not 0 < size <= min(AT_ONCE, stream.credit, line.longest_frame):
            return None
        burst = stream.burst + size if stream.burst_of == line.answers else size
        if (burst > FEW_BYTES and line.room < size) or line.wants_ping:
            return None
        stream.burst_of, stream.burst = line.answers, burst
        stream.credit -= size
        stream.bytes_sent += size
        line.carry(stream.number, size)
        frame = head(DATA, 0, stream.number, size)
        if self._control or self._late:
            return b"".join((*self._take_control(), frame, data))
        return frame + data

    def finish(self, stream: Stream) -> None:
        """
        End the writing direction behind what was written.
        """
        if stream.open and not stream.finishing:
            stream.finishing = True
            if not stream.queued and not stream.ready:
                stream.ready = True
                self._first.append(stream)

    def reset(self, stream: Stream) -> None:
        """
        End both directions now: what was not sent is dropped, and the stream is told nothing more.
        """
        if stream.open:
            self._forget(stream)
            self._control.append(head(WINDOW_UPDATE, RST, stream.number, 0))

    def consumed(self, stream: Stream, count: int) -> None:
        """
        Bytes were read: let the peer send as many more, half or a quarter of a window at a time.
        """
        stream.owed += count
        if stream.owed < EARLY_CREDIT_BYTES or stream.peer_fin or not stream.open:
            return
        enough = stream.owed >= stream.window >> self.line.credit_shift
        now = self.clock()
        elapsed = now - stream.credited_at
        if enough or elapsed >= EARLY_CREDIT_AFTER:
            more = self._growth_for(stream, now, elapsed) if enough else 0
            credit = stream.owed + more
            self._growth += more
            stream.window += more
            stream.receivable += credit
            stream.owed = 0
            stream.credited_at = now
            self._control.append(head(WINDOW_UPDATE, 0, stream.number, credit))

    def _growth_for(self, stream: Stream, now: float, elapsed: float) -> int:
        more = self.line.window(stream, elapsed, self.limits.max_window) - stream.window
        if more > 0 and now - self.line.measured_at > STALE:
            self.ping()
            return 0
        return max(0, min(more, MAX_GROWTH - self._growth))

    def go_away(self) -> None:
        """
        Take no new streams, and say so.
        """
        if not self.going_away:
            self.going_away = True
            self._control.append(head(GO_AWAY, 0, 0, NORMAL))

    def ping(self) -> None:
        """
        Ask for a sign of life, and measure the round trip, unless an answer is awaited already.
        """
        if not self.line.awaits_answer:
            self._control.append(head(PING, SYN, 0, self.line.ping(self.clock())))

    def end(self) -> list[Stream]:
        """
        End the session.  The streams that were open are returned, and told nothing.
        """
        self.ended = True
        streams, self.streams = list(self.streams.values()), {}
        for stream in streams:
            stream.open = False
            stream.queue = None
            stream.queued = 0
        self._ready.clear()
        self._first.clear()
        self._control, self._late = [], []
        self._partial = b""
        self._body_of = None
        return streams

    def _forget(self, stream: Stream) -> None:
        stream.open = False
        stream.queue = None
        stream.queued = 0
        self._growth -= stream.window - max(INITIAL_WINDOW, self.limits.window)
        self.streams.pop(stream.number, None)

    # Bytes out

    def hurry(self) -> None:
        """
        Send soon what would have waited for something else to be said.
        """
        self._control, self._late = self._late + self._control, []

    @property
    def has_late(self) -> bool:
        """
        Whether anything waits for something else to be said.
        """
        return bool(self._late)

    @property
    def has_output(self) -> bool:
        """
        Whether there is anything to send that must not wait: a ping, too, where the line has become a thin one at once, for
        without an answer there would be no room again.
        """
        return bool(self._control or self._first or (self._ready and (self.line.room > 0 or self.line.wants_ping)))

    def output(self, most: int) -> list[bytes]:
        """
        What to send now: all frames without data, then those of streams with little to say, then a frame of each other stream
        in turn, until there are ``most`` bytes or the line holds enough.  A stream that is alone takes all in one frame.  They
        are given in pieces as they were written.
        """
        out = self._take_control()
        first, ready, line = self._first, self._ready, self.line
        longest = min(self.limits.max_frame, line.longest_frame)
        while first:
            most -= self._put_frame(first.pop(0), out, longest)
        if ready:
            most = min(most, line.room, line.stretch if line.answers else most)
        while ready and most > 0:
            stream = ready.pop(0)
            most -= self._put_frame(stream, out, longest if ready else max(longest, min(most, line.longest_frame)))
        if line.wants_ping:
            out.append(head(PING, SYN, 0, line.ping(self.clock())))
        return out

    def _take_control(self) -> list[bytes]:
        """
        All frames without data, which are sent now.
        """
        if self._late:
            self.hurry()
        control, self._control = self._control, []
        return control

    def _put_frame(self, stream: Stream, out: list[bytes], longest: int) -> int:
        if not stream.open:
            return 0
        size = min(stream.queued, stream.credit, longest)
        if size:
            stream.credit -= size
            stream.bytes_sent += size
            self.line.carry(stream.number, size)
            out.append(head(DATA, 0, stream.number, size))
            stream.take(size, out)
        if stream.queued and stream.credit:
            self._ready.append(stream)
        else:
            stream.ready = False
        if stream.finishing and not stream.queued:
            # In a frame of its own: the Go original looks at the flag before it has read the data, and may lose it.
            out.append(head(WINDOW_UPDATE, FIN, stream.number, 0))
            stream.fin_sent = True
            if stream.peer_fin:
                self._forget(stream)
            stream.finished()
        else:
            stream.sent()
        return size + HEAD_BYTES

    # Bytes in

    def receive(self, data: bytes | memoryview) -> None:
        """
        Take bytes; a view need not outlast the call.  Raises :class:`IllegalFrame` or :class:`PeerWentAway`, after which nothing
        may follow but :meth:`output`, for what the peer is to be told, and :meth:`end`.
        """
        position, size = 0, len(data)
        if self._partial:
            position = min(HEAD_BYTES - len(self._partial), size)
            self._partial += data[:position]
            if len(self._partial) < HEAD_BYTES:
                return
            first, self._partial = self._partial, b""
            self._frame(*HEAD.unpack(first))
        unpack = HEAD.unpack_from
        while position < size and not self.ended:
            if self._missing:
                end = min(size, position + self._missing)
                self._body(data[position:end])
                position = end
                continue
            if size - position < HEAD_BYTES:
                self._partial = bytes(data[position:])
                break
            version, kind, flags, number, length = unpack(data, position)
            position += HEAD_BYTES
            if kind == DATA and not (version or flags) and 0 < length <= size - position:
                stream = self.streams.get(number)
                if stream is not None and length <= stream.receivable and not stream.peer_fin:
                    # Most frames are so: whole, and nothing but data of a stream that is open.
                    stream.receivable -= length
                    stream.bytes_received += length
                    self.bytes_received += length
                    stream.received(data[position : position + length])
                    position += length
                    continue
            self._frame(version, kind, flags, number, length)
        if len(self._control) + len(self._late) > MAX_CONTROL_FRAMES:
            raise self._illegal("flood", "it asks for more answers than it reads")

    def _frame(self, version: int, kind: int, flags: int, number: int, length: int) -> None:
        if version:
            raise self._illegal("version", f"version {version}")
        if kind == DATA:
            self._data(flags, number, length)
        elif kind == WINDOW_UPDATE:
            self._window_update(flags, number, length)
        elif kind > GO_AWAY:
            raise self._illegal("type", f"a frame of type {kind}")
        elif number:
            raise self._illegal("session-stream", f"a {'ping' if kind == PING else 'go away'} on stream {number}")
        elif kind == PING:
            if flags & SYN:
                self._control.append(head(PING, ACK, 0, length))
            elif flags & ACK:
                self.line.pong(length, self.clock())
        elif length == NORMAL:
            self.peer_going_away = True
        else:
            why = {PROTOCOL_ERROR: "protocol error", INTERNAL_ERROR: "internal error"}.get(length, f"code {length}")
            raise PeerWentAway(f"the peer ended the session: {why}")

    def _illegal(self, name: str, what: str) -> IllegalFrame:
        self._control, self._late = [head(GO_AWAY, 0, 0, PROTOCOL_ERROR)], []
        self._ready.clear()
        self._first.clear()
        return IllegalFrame(name, what)

    def _data(self, flags: int, number: int, length: int) -> None:
        stream = self._stream_of(flags, number)
        if stream is not None:
            if length and stream.peer_fin:
                raise self._illegal("data-after-fin", f"data behind the end of stream {number}")
            if length > stream.receivable:
                raise self._illegal("window", f"{length} bytes for stream {number}, which may take {stream.receivable}")
            stream.receivable -= length
            if flags & RST:
                self._peer_reset(stream)
                stream = None
        elif length > self._greatest_window:
            raise self._illegal("window", f"{length} bytes for stream {number}, which is closed; no window is so large")
        self._missing = length
        self._body_of = stream
        self._body_fin = flags & FIN != 0
        if not length:
            self._end_of_frame()

    def _body(self, data: bytes | memoryview) -> None:
        self._missing -= len(data)
        stream = self._body_of
        if stream is not None and stream.open:
            stream.bytes_received += len(data)
            self.bytes_received += len(data)
            stream.received(data)
        if not self._missing:
            self._end_of_frame()

    def _end_of_frame(self) -> None:
        stream, self._body_of = self._body_of, None
        if self._body_fin and stream is not None:
            self._peer_finished(stream)

    def _window_update(self, flags: int, number: int, length: int) -> None:
        stream = self._stream_of(flags, number)
        if stream is None:
            return
        if length:
            stream.credit += length
            if stream.credit > MAX_UINT32:
                raise self._illegal("window-overflow", f"a window of {stream.credit} bytes for stream {number}")
            if stream.queued and not stream.ready:
                stream.ready = True
                self._ready.append(stream)
        if flags & RST:
            self._peer_reset(stream)
        elif flags & FIN:
            self._peer_finished(stream)

    def _peer_finished(self, stream: Stream) -> None:
        if stream.open and not stream.peer_fin:
            stream.peer_fin = True
            if stream.fin_sent:
                self._forget(stream)
            stream.peer_finished()

    def _peer_reset(self, stream: Stream) -> None:
        if stream.open:
            self._forget(stream)
            stream.was_reset()

    # Whose a frame is

    def _stream_of(self, flags: int, number: int) -> Stream | None:
        """
        The stream of a frame; None when it was closed or refused, so that the frame is to be dropped.
        """
        if flags & SYN:
            return self._opened(number)
        stream = self.streams.get(number)
        if stream is None and (number == 0 or self._is_new(number)):
            raise self._illegal("unknown-stream", f"a frame for stream {number}, which was never opened")
        return stream

    def _is_new(self, number: int) -> bool:
        if number & 1 == self._peer_parity:
            return number > self._highest or (self._skipped is not None and number in self._skipped)
        return number >= self._next

    def _opened(self, number: int) -> Stream | None:
        if number == 0 or number & 1 != self._peer_parity:
            raise self._illegal("parity", f"it opened stream {number}, whose number is not its to choose")
        if not self._is_new(number):
            raise self._illegal("duplicate", f"it opened stream {number} twice")
        self._note(number)
        if self.going_away or len(self.streams) >= self.limits.max_streams:
            self._control.append(head(WINDOW_UPDATE, RST, number, 0))
            return None
        stream = self._begin(number, ACK)
        self._accept(stream)
        return stream

    def _note(self, number: int) -> None:
        """
        Remember that a number was used, and which ones were left out.
        """
        if number < self._highest:
            assert self._skipped is not None
            del self._skipped[number]
            return
        if number > self._highest + 2:
            skipped = self._skipped = self._skipped or {}
            if (number - self._highest) // 2 + len(skipped) > MAX_SKIPPED:
                raise self._illegal("skipped", f"it opened stream {number} long before its turn")
            skipped.update(dict.fromkeys(range(self._highest + 2, number, 2)))
        self._highest = number
