"""
Two mux connections over transports in memory, and protocols that remember.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect
from zope.interface import implementer

from yurt.mux.connection import COMPANY, MuxConnection, MuxLimits, MuxStream


class Memory(Protocol):
    """
    Remembers what came and how it ended.
    """

    def __init__(self) -> None:
        self.data = b""
        self.pieces = 0
        self.ends: list[str] = []

    @property
    def stream(self) -> MuxStream:
        """
        The transport.
        """
        return cast(MuxStream, self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.pieces += 1

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ends.append(type(reason.value).__name__)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Memory):
    """
    Is told of the end of each direction.
    """

    def readConnectionLost(self) -> None:
        self.ends.append("read")

    def writeConnectionLost(self) -> None:
        self.ends.append("write")


class Stalled(HalfCloseable):
    """
    Reads nothing until it is resumed.
    """

    def connectionMade(self) -> None:
        self.stream.pauseProducing()


class Source:
    """
    A producer that remembers what it was asked.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pauseProducing(self) -> None:
        self.asked.append("pause")

    def resumeProducing(self) -> None:
        self.asked.append("resume")

    def stopProducing(self) -> None:
        self.asked.append("stop")


class End:
    """
    One side: its connection, the streams that it accepted, and why it was lost.
    """

    def __init__(self, clock: Clock, *, client: bool, limits: MuxLimits) -> None:
        self.accepted: list[MuxStream] = []
        self.lost: list[str] = []
        self.mux = MuxConnection(
            clock,
            client=client,
            accept=self.accepted.append,
            lost=lambda reason: self.lost.append(str(reason)),
            limits=limits,
        )


class Link:
    """
    A server (which opens the streams here) and a client, joined in memory.
    """

    def __init__(self, limits: MuxLimits = MuxLimits()) -> None:
        self.clock = Clock()
        self.server = End(self.clock, client=False, limits=limits)
        self.client = End(self.clock, client=True, limits=limits)
        self.pump: IOPump = connect(
            self.server.mux,
            FakeTransport(self.server.mux, True),
            self.client.mux,
            FakeTransport(self.client.mux, False),
        )
        self.flush()

    def flush(self) -> None:
        """
        Carry all there is, and let everything happen that is due.
        """
        for wait in (0, 0, COMPANY):
            self.clock.advance(wait)
            self.pump.flush()
        self.clock.advance(0)

    def open(self, here: Memory, there: Memory | None = None) -> tuple[MuxStream, MuxStream]:
        """
        Open a stream; the protocols are attached to the server's end and to the client's.
        """
        stream = self.server.mux.open()
        stream.attach(here)
        self.flush()
        peer = self.client.accepted[-1]
        if there is not None:
            peer.attach(there)
            self.flush()
        return stream, peer

    def transport(self, end: End) -> Any:
        """
        The transport below a side.
        """
        return end.mux.transport
