"""
A stream as a Twisted transport.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.mux.limits import STREAM_BUFFER
from yurt.mux.session import Session
from yurt.mux.stream import Stream

if TYPE_CHECKING:
    from yurt.mux.connection import MuxConnection

SMALL: Final = 4096
"""
Pieces below this are put together while nobody reads them: a window full of single bytes would take forty times its size
otherwise.
"""

log = Logger()


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class MuxAddress:
    """
    One end of a stream: the peer of the connection, as text, and the stream's number.
    """

    peer: str
    stream: int


@implementer(ITransport, IConsumer, IPushProducer)
class MuxStream(Stream):
    """
    A stream as a transport.  Nothing is delivered before :meth:`attach`; what comes until then, or while the stream is paused,
    stays within the window.  An error in the protocol ends the stream and nothing else.
    """

    __slots__ = (
        "_delivering",
        "_held",
        "_losing",
        "_paused",
        "_producer",
        "_producer_paused",
        "_protocol",
        "_read_over",
        "_reason",
        "_streaming",
        "_unread",
        "gives_views",
        "mux",
    )

    def __init__(self, session: Session, number: int, mux: MuxConnection) -> None:
        Stream.__init__(self, session, number)
        self.mux = mux
        self.gives_views = False
        """Whether the protocol may be given views that do not outlast the call."""
        self._protocol: IProtocol | None = None
        self._held: deque[bytes | bytearray] | None = None
        self._paused = True
        self._delivering = False
        self._read_over = False
        self._losing = False
        self._unread = False
        self._reason: Failure | None = None
        self._producer: Any = None
        self._producer_paused = False
        self._streaming = False

    def attach(self, protocol: IProtocol, *, at_once: bool = True) -> None:
        """
        Connect the protocol that gets what comes, beginning with what came already.  Unless ``at_once``, the peer hears of the
        stream together with what is written next.
        """
        self._protocol = protocol
        self._paused = False
        protocol.makeConnection(self)
        if self._reason is not None and not self._held:
            self.mux.reactor.callLater(0, self._over, self._reason)
        elif at_once or self._held or self.peer_fin:
            self._deliver()
        else:
            self.mux.flush_soon()

    # ITransport

    def getPeer(self) -> MuxAddress:
        """
        The connection's peer, and the number of the stream.
        """
        return MuxAddress(self.mux.peer, self.number)

    getHost = getPeer

    @property
    def connected(self) -> bool:
        """
        Whether either direction is open.
        """
        return self.open

    @property
    def disconnecting(self) -> bool:
        """
        Whether the stream is closed, or will be when all is written.
        """
        return self._losing or not self.open

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """
        Send as soon as the peer's window and the turns of other streams allow.
        """
        if type(data) is not bytes:
            data = bytes(data)
        is_pulled = self._producer is not None and not self._streaming  # it is asked for more from the queue
        if not is_pulled and self.mux.write_at_once(self, data):
            return
        self.session.write(self, data)
        self.mux.flush()
        if self.queued > STREAM_BUFFER:
            self._hold_producer()

    def write_now(self, data: bytes) -> None:
        """
        Send ahead of all that is still to be done with what came: somebody waits for it.
        """
        if not self.mux.write_at_once(self, data, ahead=True):
            self.session.write(self, data)
            self.mux.flush_now()

    def write_soon(self, data: bytes) -> None:
        """
        Send together with what is written next, or a moment later.
        """
        self.session.write(self, data)
        self.mux.flush_soon()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """
        Send many pieces.
        """
        self.write(b"".join(iovec))

    def loseWriteConnection(self) -> None:
        """
        End the writing direction behind what was written.
        """
        self.session.finish(self)
        self.mux.flush()

    def loseConnection(self, *_: object) -> None:
        """
        Close when all is written, and a producer has unregistered; what comes is dropped from now on.  As with TCP a streaming
        producer that is not paused has this turn: TLS that has failed closes without unregistering the protocol's.
        """
        if self._losing or not (self.open or self._protocol):
            return
        self._losing = True
        self._unread = bool(self._held)
        self._held = None
        if self._producer is None or self.finishing:
            self._close()
        else:
            self._close_soon()

    def _close_soon(self) -> None:
        if self._streaming and not self._producer_paused:
            self.mux.reactor.callLater(0, self._close_behind_producer)

    def _close_behind_producer(self) -> None:
        if self.open and not (self.finishing or self._producer_paused):
            self._close()

    def _close(self) -> None:
        if self.fin_sent or not self.open:
            self.finished()
        else:
            self.session.finish(self)
        self.mux.flush()

    def abortConnection(self) -> None:
        """
        End both directions now.
        """
        if self.open or self._protocol is not None:
            self._end(Failure(ConnectionAborted()))

    def _end(self, reason: Failure) -> None:
        """
        Reset the stream; its protocol hears of it in another turn, as of the end of any transport.
        """
        self.session.reset(self)
        self._paused = True
        self._held = None
        self.mux.reactor.callLater(0, self._over, reason)
        self.mux.flush()

    # IPushProducer

    def pauseProducing(self) -> None:
        """
        Deliver nothing until :meth:`resumeProducing`; the peer may still fill the window.
        """
        self._paused = True

    def resumeProducing(self) -> None:
        """
        Deliver again.
        """
        if self._protocol is not None:
            self._paused = False
            if self._held or (self.peer_fin and not self._read_over):
                self._deliver()

    def stopProducing(self) -> None:
        """
        Whoever read has gone.  Close, unless that one resets the stream first.
        """
        self._paused = True
        self.mux.reactor.callLater(0, self.loseConnection)

    # IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Pause ``producer`` while more than :data:`STREAM_BUFFER` waits.
        """
        if self._producer is not None:
            raise RuntimeError(f"stream {self.number} has a producer already")
        if not self.open or self.finishing:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        self._producer_paused = False
        if not streaming:
            producer.resumeProducing()
        elif self.queued > STREAM_BUFFER:
            self._hold_producer()

    def unregisterProducer(self) -> None:
        """
        Nobody is to be paused any more.
        """
        if self._producer is not None:
            self._producer = None
            if self._losing and self.open and not self.finishing:
                self._close()

    def _hold_producer(self) -> None:
        if self._producer is not None and self._streaming and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()

    # What the session tells

    def received(self, data: bytes | memoryview) -> None:
        """
        Deliver, or hold until somebody wants it.
        """
        if self._losing:
            self._unread = True
            if self.fin_sent:
                self._refuse_more()
        elif self._paused or self._held:
            self._hold(data)
        else:
            self._give(data)

    def _hold(self, data: bytes | memoryview) -> None:
        if self._held is None:
            self._held = deque()
        held = self._held
        if len(data) >= SMALL:
            held.append(bytes(data))
        elif held and type(held[-1]) is bytearray and len(held[-1]) < SMALL:
            held[-1] += data
        else:
            held.append(bytearray(data))

    def _give(self, data: bytes | bytearray | memoryview) -> None:
        assert self._protocol is not None
        try:
            self._protocol.dataReceived(cast(bytes, data) if self.gives_views else bytes(data))
        except Exception:
            self._broken("take data")
        self.session.consumed(self, len(data))

    def _deliver(self) -> None:
        """
        Deliver what is held, and the end behind it.
        """
        if self._delivering:
            return
        self._delivering = True
        while self._held and not self._paused:
            self._give(self._held.popleft())
        self._delivering = False
        if not self._held and not self._paused:
            if self._reason is not None:
                self._over(self._reason)
            elif self.peer_fin and not self._read_over:
                self._end_read()
        self.mux.flush()

    def peer_finished(self) -> None:
        """
        Pass the end on behind the data.
        """
        if self._losing:
            self.mux.lingered(self)
        elif not (self._paused or self._held):
            self._end_read()
        elif not self.open:
            self.mux.unread.add(self)

    def _end_read(self) -> None:
        self._read_over = True
        protocol = self._protocol
        if not IHalfCloseableProtocol.providedBy(protocol):
            producer, self._producer = self._producer, None
            if producer is not None:
                producer.stopProducing()
            self.loseConnection()
            return
        try:
            cast(Any, protocol).readConnectionLost()
        except Exception:
            self._broken("take the end of data")
        if not self.open:
            self.mux.reactor.callLater(0, self._over, connectionDone)

    def was_reset(self) -> None:
        """
        End both directions.
        """
        if self._losing:
            self.mux.lingered(self)
        self.lost(Failure(ConnectionLost(f"stream {self.number} was reset by the peer")))

    def lost(self, reason: Failure) -> None:
        """
        The stream, or its session, has ended.  What the peer wrote and finished before is still delivered first.
        """
        unread = self.peer_fin and bool(self._held)
        if self._protocol is None or unread:
            self._reason = reason
            if self._protocol is not None:
                self.mux.unread.add(self)
            if not unread:
                self._held = None
        else:
            self._over(reason)

    def sent(self) -> None:
        """
        Let the producer go on.
        """
        if self._producer is not None and not self.queued and (self._producer_paused or not self._streaming):
            self._producer_paused = False
            try:
                self._producer.resumeProducing()
            except Exception:
                self._broken("produce data")
            if self._losing:
                self._close_soon()

    def finished(self) -> None:
        """
        Tell that all was written.
        """
        later = self.mux.reactor.callLater
        if self._losing:
            later(0, self._over, connectionDone)
            if self.open and self._unread:
                self._refuse_more()
            elif self.open:
                self.mux.lingers(self)
        else:
            later(0, self._end_write)
            if not (self.open or self._read_over):
                self.mux.unread.add(self)

    def _refuse_more(self) -> None:
        """
        Tell a peer that still sends that nobody reads, as a kernel does for a socket that was closed.
        """
        self.mux.lingered(self)
        self.session.reset(self)

    def _end_write(self) -> None:
        protocol = self._protocol
        if IHalfCloseableProtocol.providedBy(protocol):
            try:
                cast(Any, protocol).writeConnectionLost()
            except Exception:
                self._broken("take the end of writing")
        if not self.open and self._read_over:
            self._over(connectionDone)

    def _broken(self, what: str) -> None:
        log.failure("stream {number} of {peer}: its protocol failed to {what}", number=self.number, peer=self.mux.peer, what=what)
        self._end(Failure(ConnectionAborted()))

    def _over(self, reason: Failure) -> None:
        """
        Tell the protocol, once, that all is over.
        """
        protocol, self._protocol = self._protocol, None
        producer, self._producer = self._producer, None
        self._held = None
        self.mux.unread.discard(self)
        try:
            if producer is not None:
                producer.stopProducing()
            if protocol is not None:
                protocol.connectionLost(reason)
        except Exception:
            log.failure("stream {number} of {peer}: its protocol failed to end", number=self.number, peer=self.mux.peer)
        self.mux.check_idle()
