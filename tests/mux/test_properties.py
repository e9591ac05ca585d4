"""
Properties of two sessions joined by a pipe that cuts its bytes anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.mux.sessions import Recorder, Side, join, pair
from yurt.mux.frames import MuxClosed
from yurt.mux.limits import MuxLimits

LIMITS = MuxLimits(max_frame=5000, max_streams=6)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.booleans()),
        st.tuples(st.just("write"), st.booleans(), st.integers(0, 5), st.integers(1, 400_000)),
        st.tuples(st.just("finish"), st.booleans(), st.integers(0, 5)),
        st.tuples(st.just("reset"), st.booleans(), st.integers(0, 5)),
        st.tuples(st.just("read"), st.booleans(), st.integers(0, 5)),
        st.tuples(st.just("carry"), st.booleans(), st.integers(1, 100_000)),
        st.tuples(st.just("go away"), st.booleans()),
    ),
    max_size=60,
)


class Pipe:
    """
    Two sessions, and what is on the way from each to the other one.
    """

    def __init__(self) -> None:
        self.sides = pair(LIMITS)
        self.streams: tuple[list[Recorder], list[Recorder]] = ([], [])
        self.resets: set[int] = set()
        self.written: dict[tuple[bool, int], bytearray] = {}
        self.way = (bytearray(), bytearray())
        for side in self.sides:
            side.reading = False

    def step(self, what: str, at: bool, *values: Any) -> None:
        """
        Do one thing on side ``at``.
        """
        side = self.sides[at]
        if what == "open":
            self.open(at)
        elif what == "carry":
            self.carry(at, values[0])
        elif what == "go away":
            side.session.go_away()
        elif stream := self.pick(at, values[0]):
            if what == "write":
                self.write(at, stream, values[1])
            elif what == "read":
                stream.read_all()
            elif what == "finish":
                side.session.finish(stream)
            else:
                self.resets.add(stream.number)
                side.session.reset(stream)

    def open(self, at: bool) -> None:
        """
        Open a stream where that is allowed.
        """
        try:
            self.streams[at].append(self.sides[at].open())
        except MuxClosed:
            pass

    def pick(self, at: bool, which: int) -> Recorder | None:
        """
        One of the streams of a side, its own or accepted.
        """
        known = [*self.streams[at], *self.sides[at].accepted]
        return known[which] if which < len(known) else None

    def write(self, at: bool, stream: Recorder, size: int) -> None:
        """
        Write bytes that tell where they belong.
        """
        if stream.open and not stream.finishing:
            sent = self.written.setdefault((at, stream.number), bytearray())
            data = bytes((stream.number + len(sent) + n) & 0xFF for n in range(min(size, 256))) * (size // 256 + 1)
            sent += data
            self.sides[at].session.write(stream, data)

    def carry(self, at: bool, size: int) -> None:
        """
        Carry some bytes from side ``at`` to the other one.
        """
        way = self.way[at]
        way += b"".join(self.sides[at].session.output(size))
        piece = bytes(way[:size])
        del way[:size]
        self.sides[not at].session.receive(piece)

    def settle(self) -> None:
        """
        Read everything, end everything, and carry all there is.
        """
        for at in (False, True):
            for stream in [*self.streams[at], *self.sides[at].accepted]:
                stream.read_all()
        for at in (False, True):
            self.carry(at, len(self.way[at]) + 1_000_000)
        while any(self.way) or any(side.session.has_output for side in self.sides):
            for at in (False, True):
                for stream in self.sides[at].accepted:
                    if not stream.reading:
                        stream.read_all()
                self.carry(at, 1_000_000)

    def all_streams(self) -> list[tuple[bool, Recorder]]:
        """
        Each stream, and its side.
        """
        return [(at, stream) for at in (False, True) for stream in [*self.streams[at], *self.sides[at].accepted]]


class PipeTests(SynchronousTestCase):
    """
    Tests of :class:`~yurt.mux.session.Session` against itself.
    """

    @settings(max_examples=60, deadline=None)
    @given(STEPS)
    def test_everything_arrives(self, steps: list[tuple[Any, ...]]) -> None:
        """
        Whatever both sides do, what arrives is what was written, in order; no window is exceeded; what was not reset arrives
        whole; and when both sides have ended everything, nothing is left.
        """
        pipe = Pipe()
        for step in steps:
            pipe.step(*step)
            for _, stream in pipe.all_streams():
                self.assertTrue(0 <= stream.receivable <= stream.window and stream.credit >= 0)
        pipe.settle()
        resets = pipe.resets | {stream.number for _, stream in pipe.all_streams() if "reset" in stream.events}
        for at, stream in pipe.all_streams():
            written = pipe.written.get((not at, stream.number), bytearray())
            self.assertEqual(stream.data, written[: len(stream.data)])
            if stream.number not in resets:
                self.assertEqual(len(stream.data), len(written))
        for at, stream in pipe.all_streams():
            pipe.sides[at].session.finish(stream)
        pipe.settle()
        for side in pipe.sides:
            self.assertEqual((side.session.streams, side.session._growth), ({}, 0))

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.binary(max_size=3000))
    def test_any_split(self, sizes: list[int], data: bytes) -> None:
        """
        The same bytes, cut anywhere, mean the same.
        """

        def split(whole: bytes) -> list[bytes]:
            pieces, turn = [], 0
            while whole:
                size = sizes[turn % len(sizes)]
                pieces.append(whole[:size])
                whole, turn = whole[size:], turn + 1
            return pieces

        self.assertEqual(self.exchange(split, data), self.exchange(lambda whole: [whole], data))

    def exchange(self, split: Callable[[bytes], list[bytes]], data: bytes) -> list[tuple[bytes, list[str]]]:
        """
        What both sides see of three streams.
        """
        client, server = pair(MuxLimits(max_frame=700))
        streams: list[tuple[Side, Recorder]] = [(client, client.open()), (server, server.open()), (client, client.open())]
        for side, stream in streams:
            side.session.write(stream, data)
            side.session.finish(stream)
        join(client, server, split)
        for side in (client, server):
            for stream in side.accepted:
                side.session.write(stream, data[::-1])
                side.session.finish(stream)
        join(client, server, split)
        seen = [stream for _, stream in streams] + client.accepted + server.accepted
        return [(bytes(stream.data), stream.events) for stream in seen]
