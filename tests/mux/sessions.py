"""
Sessions for tests: streams that remember what they were told, and two sessions joined by a pipe.
"""

from __future__ import annotations

from collections.abc import Callable

from yurt.mux.limits import BATCH, MuxLimits
from yurt.mux.session import Session
from yurt.mux.stream import Stream

SMALL_LIMITS = MuxLimits(window=0)
"""Streams that have the format's window, 256 KiB."""


class Recorder(Stream):
    """
    A stream that remembers what it was told.  Unless ``reading``, nothing counts as read.
    """

    __slots__ = ("data", "events", "reading")

    def __init__(self, session: Session, number: int, reading: bool = True) -> None:
        Stream.__init__(self, session, number)
        self.data = bytearray()
        self.events: list[str] = []
        self.reading = reading

    def received(self, data: bytes | memoryview) -> None:
        self.data += data
        if self.reading:
            self.session.consumed(self, len(data))

    def read_all(self) -> None:
        """
        Read what came so far, and all that comes.
        """
        self.reading = True
        self.session.consumed(self, len(self.data))

    def peer_finished(self) -> None:
        self.events.append("peer finished")

    def was_reset(self) -> None:
        self.events.append("reset")

    def finished(self) -> None:
        self.events.append("finished")


class Side:
    """
    A session, the streams that it accepted, and a clock that stands still.
    """

    def __init__(self, *, client: bool, limits: MuxLimits = SMALL_LIMITS, reading: bool = True) -> None:
        self.now = 0.0
        self.accepted: list[Recorder] = []
        self.reading = reading
        self.session = Session(
            client=client,
            limits=limits,
            make=lambda session, number: Recorder(session, number, self.reading),
            accept=self._accept,
            clock=lambda: self.now,
        )

    def _accept(self, stream: Stream) -> None:
        assert isinstance(stream, Recorder)
        self.accepted.append(stream)

    def open(self) -> Recorder:
        """
        Open a stream.
        """
        stream = self.session.open()
        assert isinstance(stream, Recorder)
        return stream

    def take(self) -> bytes:
        """
        All that the session has to say.
        """
        out = bytearray()
        self.session.hurry()
        while self.session.has_output:
            out += b"".join(self.session.output(BATCH))
        return bytes(out)


def join(left: Side, right: Side, split: Callable[[bytes], list[bytes]] = lambda data: [data]) -> None:
    """
    Carry bytes to and fro until neither session has anything to say.
    """
    moved = True
    while moved:
        moved = False
        for one, other in ((left, right), (right, left)):
            data = one.take()
            moved = moved or bool(data)
            for piece in split(data):
                other.session.receive(piece)


def pair(limits: MuxLimits = SMALL_LIMITS) -> tuple[Side, Side]:
    """
    A client and a server.
    """
    return Side(client=True, limits=limits), Side(client=False, limits=limits)
