"""
The Twisted half: a session as a protocol over any transport, and each of its streams as a transport.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.mux.frames import MuxClosed, MuxError
from yurt.mux.session import MuxLimits, Session, Stream

STREAM_BUFFER: Final = 256 * 1024
"""What a stream may hold unsent, waiting for the peer's window or for its turn, before its producer is paused."""

BATCH: Final = 128 * 1024
"""What is handed to the transport at once: an interactive stream waits behind that and what the transport holds."""

MEASURE_EVERY: Final = 60.0
"""Seconds after which the round trip is measured on a busy line, too."""

LATENESS: Final = 1.0
"""A timer that fires so much too late tells of this side's own stall, and nothing of the peer."""


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class MuxAddress:
    """
    One end of a stream: the peer of the connection, as text, and the stream's number.
    """

    peer: str
    stream: int


class FlowControlled(Protocol):
    """
    A producer.
    """

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


@implementer(ITransport, IConsumer, IPushProducer)
class MuxStream(Stream):
    """
    A stream as a transport.  Nothing is delivered before :meth:`attach`.
    """

    __slots__ = ("_delivering", "_held", "_losing", "_paused", "_producer", "_producer_paused", "_protocol", "_streaming", "mux")

    mux: MuxConnection

    def __init__(self, session: Session, number: int, mux: MuxConnection) -> None:
        Stream.__init__(self, session, number)
        self.mux = mux
        self._protocol: IProtocol | None = None
        self._held: deque[bytes] | None = None
        self._paused = True
        self._delivering = False
        self._losing = False
        self._producer: FlowControlled | None = None
        self._producer_paused = False
        self._streaming = False

    def attach(self, protocol: IProtocol) -> None:
        """
        Connect the protocol that gets what comes, beginning with what came already.
        """
        self._protocol = protocol
        self._paused = False
        protocol.makeConnection(self)
        if not self._paused:
            self._deliver()

    # ITransport

    def getPeer(self) -> MuxAddress:
        """
        The other end.
        """
        return MuxAddress(self.mux.peer, self.number)

    getHost = getPeer

    @property
    def disconnecting(self) -> bool:
        """
        Whether the stream is closed, or will be as soon as all is written.
        """
        return self._losing or not self.open

    @property
    def connected(self) -> bool:
        """
        Whether the stream is open.
        """
        return self.open

    def write(self, data: bytes) -> None:
        """
        Send as soon as the peer's window and the other streams' turns allow.
        """
        self.session.write(self, data if type(data) is bytes else bytes(data))
        self.mux._flush()
        self._hold_producer()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """
        The same with many pieces.
        """
        self.write(b"".join(iovec))

    def loseWriteConnection(self) -> None:
        """
        End the writing direction behind what was written.
        """
        self.session.finish(self)
        self.mux._flush()

    def loseConnection(self, *_: object) -> None:
        """
        Close when all is written; what still comes is dropped.
        """
        if self._losing or not self.open:
            return
        self._losing = True
        if self._producer is None or self._finishing:
            self._close()

    def _close(self) -> None:
        self._held = None
        if self._fin_sent:
            self.finished()
        else:
            self.session.finish(self)
            self.mux._flush()

    def abortConnection(self) -> None:
        """
        End both directions now.
        """
        if self.open:
            self.session.reset(self)
            self.mux._flush()
            self.mux.reactor.callLater(0, self._lost, Failure(ConnectionAborted()))

    # IPushProducer

    def pauseProducing(self) -> None:
        """
        Deliver nothing until :meth:`resumeProducing`; the peer may still fill its window.
        """
        self._paused = True

    def resumeProducing(self) -> None:
        """
        Deliver again.
        """
        self._paused = False
        self._deliver()

    def stopProducing(self) -> None:
        """
        Close.
        """
        self.loseConnection()

    # IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Pause ``producer`` while more than :data:`STREAM_BUFFER` waits.
        """
        if self._producer is not None:
            raise RuntimeError(f"stream {self.number} has a producer already")
        if not self.open:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        self._producer_paused = False
        if streaming:
            self._hold_producer()
        else:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """
        Forget the producer.
        """
        self._producer = None
        if self._losing and self.open:
            self._close()

    def _hold_producer(self) -> None:
        if self._producer is not None and self._streaming and not self._producer_paused and self.queued > STREAM_BUFFER:
            self._producer_paused = True
            self._producer.pauseProducing()

    # What the session tells

    def received(self, data: bytes) -> None:
        """
        Deliver, or hold until somebody wants it.
        """
        if self._losing:
            # Nobody will read it, and the peer had better know: as a kernel does with a socket that is closed.
            self.session.reset(self)
            if not self._fin_sent:
                self.mux.reactor.callLater(0, self._lost, Failure(ConnectionLost("the peer still sent when all was over")))
        elif self._paused or self._held:
            if self._held is None:
                self._held = deque()
            self._held.append(data)
        else:
            assert self._protocol is not None
            self._protocol.dataReceived(data)
            self.session.consumed(self, len(data))

    def _deliver(self) -> None:
        if self._delivering or self._protocol is None:
            return
        self._delivering = True
        try:
            while self._held and not self._paused:
                data = self._held.popleft()
                self._protocol.dataReceived(data)
                self.session.consumed(self, len(data))
        finally:
            self._delivering = False
        if not self._held and not self._paused and self._peer_finished and self._held is not None:
            self._held = None
            self._read_ended()
        self.mux._flush()

    def peer_finished(self) -> None:
        """
        Pass the end on behind the data.
        """
        if self._losing:
            return
        if self._paused or self._held:
            self._held = self._held or deque()
        else:
            self._read_ended()

    def _read_ended(self) -> None:
        protocol = self._protocol
        if IHalfCloseableProtocol.providedBy(protocol):
            cast(Any, protocol).readConnectionLost()
            if not self.open:
                self.mux.reactor.callLater(0, self._lost, connectionDone)
        else:
            self.loseConnection()

    def was_reset(self) -> None:
        """
        End both directions.
        """
        self._lost(Failure(ConnectionLost(f"stream {self.number} was reset by the peer")))

    def sent(self) -> None:
        """
        Let the producer go on.
        """
        producer = self._producer
        if producer is not None and not self.queued and (self._producer_paused or not self._streaming):
            self._producer_paused = False
            producer.resumeProducing()

    def finished(self) -> None:
        """
        Tell that all was written.
        """
        if self._losing:
            if self.open:
                self.mux._lingers(self)
            self.mux.reactor.callLater(0, self._lost, connectionDone)
        elif IHalfCloseableProtocol.providedBy(self._protocol):
            self.mux.reactor.callLater(0, self._write_ended)

    def _write_ended(self) -> None:
        protocol = self._protocol
        if protocol is not None:
            cast(Any, protocol).writeConnectionLost()
            if not self.open and not self._held:
                self._lost(connectionDone)

    def _lost(self, reason: Failure) -> None:
        """
        Tell the protocol that all is over, once.
        """
        protocol, self._protocol = self._protocol, None
        producer, self._producer = self._producer, None
        self._held = None
        if producer is not None:
            producer.stopProducing()
        if protocol is not None:
            protocol.connectionLost(reason)
        self.mux._check_idle()


@implementer(IPushProducer)
class MuxConnection(TwistedProtocol):
    """
    A session over a transport.  ``client``: whether our streams have odd numbers.  ``accept`` is called with each stream that the
    peer opens, ``lost`` once with the reason when the session has ended, whose text is for people.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        client: bool,
        accept: Callable[[MuxStream], None],
        lost: Callable[[Exception], None],
        limits: MuxLimits = MuxLimits(),
    ) -> None:
        self.reactor = reactor
        self.limits = limits
        self.on_go_away: Callable[[], None] | None = None
        self.peer = ""
        self._lost = lost
        self._session = Session(
            client=client,
            limits=limits,
            make=lambda session, number: MuxStream(session, number, self),
            accept=cast("Callable[[Stream], None]", accept),
            clock=reactor.seconds,
        )
        # The server's pings come a little later: one side's are enough for both.
        self._ping_after = limits.ping_after if client else 1.2 * limits.ping_after
        self._heard_at = self._sent_at = reactor.seconds()
        self._timer: IDelayedCall | None = None
        self._timer_due = 0.0
        self._busy = False
        self._full = False
        self._over = False
        self._idle: list[Deferred[None]] = []
        self._lingering: dict[MuxStream, float] = {}

    # What its owner asks

    def open(self) -> MuxStream:
        """
        Open a stream; raises :class:`~yurt.mux.frames.MuxClosed`.
        """
        if self.transport is None:
            raise MuxClosed("the connection is not yet made")
        stream = cast(MuxStream, self._session.open())
        self._flush()
        return stream

    def go_away(self) -> None:
        """
        Take no new streams, and tell the peer.
        """
        self._session.go_away()
        self._flush()

    def when_idle(self) -> Deferred[None]:
        """
        Fires when no stream is open, at once if that is so now.
        """
        deferred: Deferred[None] = Deferred(self._forget_idle)
        self._idle.append(deferred)
        self._check_idle()
        return deferred

    def _forget_idle(self, deferred: Deferred[None]) -> None:
        if deferred in self._idle:
            self._idle.remove(deferred)

    def abort(self, why: str) -> None:
        """
        End the session and the connection now; ``lost`` is told ``why``.
        """
        self._end(MuxError(why))

    @property
    def streams(self) -> int:
        """
        How many streams are open.
        """
        return len(self._session.streams)

    @property
    def bytes_received(self) -> int:
        """
        Bytes of streams that came.
        """
        return self._session.bytes_received

    @property
    def bytes_sent(self) -> int:
        """
        Bytes of streams that were sent.
        """
        return self._session.bytes_sent

    @property
    def rtt(self) -> float | None:
        """
        The last round trip measured, seconds.
        """
        return self._session.rtt

    @property
    def closing(self) -> bool:
        """
        Whether this side takes no new streams, or the session has ended.
        """
        return self._over or self._session.going_away

    @property
    def peer_going_away(self) -> bool:
        """
        Whether the peer takes no new streams.
        """
        return self._session.peer_going_away

    # IProtocol

    def connectionMade(self) -> None:
        """
        Begin, as the transport's producer.
        """
        assert self.transport is not None
        address = self.transport.getPeer()
        self.peer = f"{getattr(address, 'host', address)}"
        cast(Any, self.transport).registerProducer(self, True)
        self._heard_at = self._sent_at = self.reactor.seconds()
        self._session.ping()
        self._flush()
        self._timer_due = self._heard_at + self._ping_after
        self._timer = self.reactor.callLater(self._ping_after, self._tick)

    def dataReceived(self, data: bytes) -> None:
        """
        Pass on what came; answers leave together at the end.
        """
        if self._over:
            return
        self._heard_at = self.reactor.seconds()
        was_busy, self._busy = self._busy, True
        going = self._session.peer_going_away
        try:
            self._session.receive(data)
        except MuxError as error:
            self._busy = was_busy
            self._end(error)
            return
        self._busy = was_busy
        self._flush()
        if self._session.peer_going_away and not going and self.on_go_away is not None:
            self.on_go_away()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The transport is gone.
        """
        self._end(MuxError(f"connection lost: {reason.getErrorMessage()}"))

    def _end(self, reason: MuxError) -> None:
        if self._over:
            return
        transport = cast(Any, self.transport)
        # What ends the session in the peer's eyes goes out, if the transport takes it at once.
        last = b"" if self._full or transport is None else self._session.output(0)
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        streams = self._session.end()
        self._lingering.clear()
        if transport is not None:
            transport.unregisterProducer()
            if last:
                transport.write(last)
            transport.abortConnection()
        failure = Failure(ConnectionLost(str(reason)))
        for stream in streams:
            cast(MuxStream, stream)._lost(failure)
        self._check_idle()
        self._lost(reason)

    # The transport's producer

    def pauseProducing(self) -> None:
        """
        The transport holds enough.
        """
        self._full = True

    def resumeProducing(self) -> None:
        """
        The transport holds nothing any more.
        """
        self._full = False
        self._flush()

    def stopProducing(self) -> None:
        """
        The transport closes, and says so by :meth:`connectionLost`.
        """

    def _flush(self) -> None:
        """
        Hand to the transport what it may have now.
        """
        if self._busy or self._full or self._over:
            return
        session = self._session
        if not session.has_output:
            return
        self._busy = True
        transport = cast(Any, self.transport)
        self._sent_at = self.reactor.seconds()
        try:
            while not self._full and session.has_output:
                transport.write(session.output(BATCH))
        finally:
            self._busy = False

    # Time

    def _tick(self) -> None:
        now = self.reactor.seconds()
        late = now - self._timer_due > LATENESS
        silent = now - self._heard_at
        if self._session.awaits_pong and silent >= self.limits.ping_after + self.limits.ping_patience and not late:
            self._end(MuxError(f"no sign of life for {silent:.0f} s"))
            return
        if now - min(self._heard_at, self._sent_at) >= self._ping_after or now - self._session._measured_at >= MEASURE_EVERY:
            self._session.ping()
        for stream in [stream for stream, since in self._lingering.items() if now - since >= self.limits.linger]:
            self._session.reset(stream)
        self._lingering = {stream: since for stream, since in self._lingering.items() if stream.open}
        self._flush()
        self._check_idle()
        if self._session.awaits_pong:
            due = min(self._heard_at + self.limits.ping_after + self.limits.ping_patience, now + self._ping_after)
        else:
            due = min(self._heard_at, self._sent_at) + self._ping_after
        self._timer_due = max(due, now + LATENESS)
        self._timer = self.reactor.callLater(self._timer_due - now, self._tick)

    def _lingers(self, stream: MuxStream) -> None:
        self._lingering[stream] = self.reactor.seconds()

    def _check_idle(self) -> None:
        if self._idle and not self._session.streams:
            waiting, self._idle = self._idle, []
            for deferred in waiting:
                deferred.callback(None)
