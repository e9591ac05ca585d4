"""
The cable between the miniature apiserver and the world, with a switch in it.

Cut, it behaves as a link whose packets vanish: nothing is read, nothing is written, nothing is closed; what was under way
arrives after :meth:`Gate.heal`, as TCP's retransmissions would bring it.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.interfaces import IAddress, IProtocolFactory, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory


class GatedConnection(ProtocolWrapper):
    """
    One connection through the gate.
    """

    def __init__(self, factory: Gate, wrapped: Protocol) -> None:
        super().__init__(factory, wrapped)
        self.gate = factory
        self._held: list[bytes] = []
        self._closing = False
        self._reader_paused = False
        self._producer: tuple[Any, bool] | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        if self.gate.is_cut:
            self.cut()

    def cut(self) -> None:
        self._raw.pauseProducing()
        if self._producer and self._producer[1]:
            self._producer[0].pauseProducing()

    def heal(self) -> None:
        if self._held:
            self._raw.writeSequence(self._held)
            self._held = []
        if self._closing:
            self._raw.loseConnection()
            return
        if not self._reader_paused:
            self._raw.resumeProducing()
        if self._producer and self._producer[1]:
            self._producer[0].resumeProducing()

    @property
    def _raw(self) -> Any:
        return cast(ITCPTransport, self.transport)

    def abort(self) -> None:
        self._raw.abortConnection()

    def write(self, data: bytes) -> None:
        if self.gate.is_cut:
            self._held.append(data)
        else:
            self._raw.write(data)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if self.gate.is_cut:
            self._closing = True
        else:
            super().loseConnection()

    def pauseProducing(self) -> None:
        self._reader_paused = True
        self._raw.pauseProducing()

    def resumeProducing(self) -> None:
        self._reader_paused = False
        if not self.gate.is_cut:
            self._raw.resumeProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = (producer, streaming)
        super().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._producer = None
        super().unregisterProducer()


class Gate(WrappingFactory["GatedConnection"]):
    """
    Wraps the factory of a server; :meth:`cut` and :meth:`heal` are the switch.
    """

    noisy = False

    def __init__(self, wrapped: IProtocolFactory) -> None:
        super().__init__(wrapped)
        self.is_cut = False

    def buildProtocol(self, addr: IAddress | None) -> GatedConnection:
        return GatedConnection(self, cast(Protocol, self.wrappedFactory.buildProtocol(cast(IAddress, addr))))

    def connections(self) -> list[GatedConnection]:
        return list(self.protocols)

    def cut(self) -> None:
        """
        Let no byte through from now on.
        """
        if not self.is_cut:
            self.is_cut = True
            for connection in self.connections():
                connection.cut()

    def heal(self) -> None:
        """
        Deliver what was held back, and go on.
        """
        if self.is_cut:
            self.is_cut = False
            for connection in self.connections():
                connection.heal()

    def abort_all(self) -> None:
        """
        Reset every connection.
        """
        for connection in self.connections():
            connection.abort()
