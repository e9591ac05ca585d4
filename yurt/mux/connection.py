"""
A session over a Twisted transport.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from math import ceil
from typing import Any, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.mux.frames import IllegalFrame, MuxClosed, MuxError
from yurt.mux.limits import BATCH, KERNEL_BUFFER, MuxLimits
from yurt.mux.session import Session
from yurt.mux.stream import Stream
from yurt.mux.transport import MuxAddress, MuxStream
from yurt.sockets import socket_of

__all__ = ["MuxAddress", "MuxConnection", "MuxLimits", "MuxStream", "why_lost"]

DOUBT_AFTER: Final = 1.0
"""Seconds of silence after which a stream that is opened asks for a sign of life, too."""

MEASURE_EVERY: Final = 60.0
"""Seconds after which the round trip is measured on a busy line, too."""

SERVER_WAITS: Final = 1.2
"""How much longer than the client the server waits before it pings: the pings of one side are enough for both."""

STEP: Final = 0.25
"""
Seconds; the timers of a server's links fire at multiples of it, all in one turn of the reactor: a thousand idle links wake it
four times a second then, and not 140 times.
"""

LATENESS: Final = 1.0
"""A timer that fires so much too late tells of this side's own stall, and nothing of the peer."""

CLOSE_PATIENCE: Final = 2.0
"""Seconds in which the peer may take the message that it broke yamux."""

COMPANY: Final = 0.005
"""Seconds that something may wait for more to be said, so that both leave in one piece."""

UNSAID: Final = "Connection lost"
"""What Twisted's transports say when the kernel has said nothing else."""

TCP_NOTSENT_LOWAT: Final = 25
"""From linux/tcp.h; the socket module has no name for it."""


@implementer(IPushProducer)
class MuxConnection(Protocol):
    """
    A session over a transport, TCP or TLS.  ``client``: whether our streams have odd numbers.  ``accept`` is called with each
    stream that the peer opens, ``lost`` once when the session has ended, with an exception whose text is for people.

    ``on_go_away`` is called when the peer takes no new streams any more.
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
        self.unread: set[MuxStream] = set()
        """Streams that have ended, but whose protocol has not yet read all."""
        self._accept = accept
        self._lost = lost
        self._session = Session(
            client=client, limits=limits, make=self._make_stream, accept=self._accepted, clock=reactor.seconds
        )
        self._ping_after = limits.ping_after * (1.0 if client else SERVER_WAITS)
        self._step = 0.0 if client else STEP
        self._dead_after = limits.dead_after
        self._heard_at = self._sent_at = reactor.seconds()
        self._timer: IDelayedCall | None = None
        self._soon: IDelayedCall | None = None
        self._busy = False
        self._receiving = False
        self._full = False
        self._over = False
        self._idle: list[Deferred[None]] = []
        self._lingering: dict[MuxStream, float] = {}

    # What its owner asks

    def open(self) -> MuxStream:
        """
        Open a stream; raises :class:`~yurt.mux.frames.MuxClosed`.  The peer hears of it with the first that is written, or when
        a protocol is attached.
        """
        if self.transport is None:
            raise MuxClosed("the connection is not yet made")
        stream = cast(MuxStream, self._session.open())
        if self.reactor.seconds() - self._heard_at >= DOUBT_AFTER:
            self._session.ping()
        return stream

    def go_away(self) -> None:
        """
        Take no new streams, and tell the peer; those that are open go on.
        """
        self._session.go_away()
        self.flush()

    def when_idle(self) -> Deferred[None]:
        """
        Fires when no stream is open, and all that came was read.
        """
        deferred: Deferred[None] = Deferred(self._idle.remove)
        self._idle.append(deferred)
        self.check_idle()
        return deferred

    def abort(self, why: str) -> None:
        """
        End the session and the connection now; ``lost`` is told ``why``.
        """
        self._end(MuxError(why))

    @property
    def streams(self) -> int:
        """
        How many streams are open, or not yet read to their end.
        """
        return len(self._session.streams) + len(self.unread)

    @property
    def open_streams(self) -> list[MuxStream]:
        """
        Those of them that are open.
        """
        return cast("list[MuxStream]", list(self._session.streams.values()))

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
        return self._session.line.sent

    @property
    def rtt(self) -> float | None:
        """
        The last round trip that was measured, seconds.
        """
        return self._session.line.rtt

    @property
    def heard_at(self) -> float:
        """
        When the last byte came, by the reactor's clock.
        """
        return self._heard_at

    @property
    def silent_for(self) -> float:
        """
        Seconds for which the peer owes a sign of life; 0 when it owes none.
        """
        return max(0.0, self.reactor.seconds() - max(self._heard_at, self._session.line.asked_at))

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
        transport = cast(Any, self.transport)
        self.peer = _text(transport.getPeer())
        _bound_kernel_buffer(transport)
        transport.registerProducer(self, True)
        self._heard_at = self._sent_at = self.reactor.seconds()
        self._session.ping()
        self.flush()
        self._wait_until(self._heard_at + self._ping_after)

    def dataReceived(self, data: bytes) -> None:
        """
        Pass on what came; what that makes us say leaves together at the end.
        """
        if self._over:
            return
        session = self._session
        self._heard_at = self.reactor.seconds()
        going = session.peer_going_away
        self._receiving = True
        try:
            session.receive(data)
        except MuxError as error:
            self._receiving = False
            self._end(error)
            return
        self._receiving = False
        self.flush()
        if session.has_late:
            self.flush_soon()
        if session.peer_going_away and not going and self.on_go_away is not None:
            self.on_go_away()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The transport is gone.
        """
        self._stop_timers()
        self._end(MuxError(why_lost(reason)))

    def _end(self, reason: MuxError) -> None:
        if self._over:
            return
        last = b"".join(self._session.output(0)) if isinstance(reason, IllegalFrame) else b""
        self._over = True
        self._stop_timers()
        self._lingering.clear()
        streams = self._session.end()
        self._leave(last)
        failure = Failure(ConnectionLost(str(reason)))
        for stream in streams:
            cast(MuxStream, stream).lost(failure)
        self.check_idle()
        self._lost(reason)

    def _leave(self, last: bytes) -> None:
        """
        Close the transport; ``last`` is for a peer that listens.
        """
        transport = cast(Any, self.transport)
        if transport is None:
            return
        if last and not self._full:
            transport.write(last)
            self._timer = self.reactor.callLater(CLOSE_PATIENCE, transport.abortConnection)
            transport.unregisterProducer()
            transport.loseConnection()
        else:
            transport.unregisterProducer()
            transport.abortConnection()

    # What its streams ask

    def _make_stream(self, session: Session, number: int) -> MuxStream:
        return MuxStream(session, number, self)

    def _accepted(self, stream: Stream) -> None:
        try:
            self._accept(cast(MuxStream, stream))
        except Exception:
            self.log.failure("stream {number} of {peer} could not be accepted", number=stream.number, peer=self.peer)
            cast(MuxStream, stream).abortConnection()

    def flush(self) -> None:
        """
        Hand to the transport what it may have now; what is said while something that came is passed on leaves together.
        """
        session = self._session
        if self._receiving or self._busy or self._full or self._over or not session.has_output:
            return
        self._busy = True
        self._sent_at = self.reactor.seconds()
        write = self.transport.writeSequence  # type: ignore[union-attr]
        try:
            write(session.output(BATCH))
            while session.has_output and not (self._full or self._over):
                write(session.output(BATCH))
        finally:
            self._busy = False

    def write_at_once(self, stream: Stream, data: bytes, *, ahead: bool = False) -> bool:
        """
        Hand bytes of a stream to the transport, unless they must wait: then nothing is done.  With ``ahead`` they do not wait for
        the rest of what came.
        """
        if (self._receiving and not ahead) or self._busy or self._full or self._over:
            return False
        frame = self._session.write_at_once(stream, data)
        if frame is None:
            return False
        self._sent_at = self.reactor.seconds()
        self.transport.write(frame)  # type: ignore[union-attr]
        return True

    def flush_now(self) -> None:
        """
        Hand to the transport what it may have, whatever else there may be to say in a moment.
        """
        receiving, self._receiving = self._receiving, False
        self.flush()
        self._receiving = receiving

    def flush_soon(self) -> None:
        """
        Flush with the next that is said, or after :data:`COMPANY`.
        """
        if self._soon is None and not self._over:
            self._soon = self.reactor.callLater(COMPANY, self._flush_late)

    def _flush_late(self) -> None:
        self._soon = None
        self._session.hurry()
        self.flush()

    def lingers(self, stream: MuxStream) -> None:
        """
        The stream was closed here, and waits for the peer.
        """
        self._lingering[stream] = self.reactor.seconds()

    def lingered(self, stream: MuxStream) -> None:
        """
        The stream waits no longer.
        """
        self._lingering.pop(stream, None)
        self.check_idle()

    def check_idle(self) -> None:
        """
        Something has ended.
        """
        if self._idle and not self.streams:
            self.reactor.callLater(0, self._tell_idle)

    def _tell_idle(self) -> None:
        if not self.streams:
            waiting, self._idle = self._idle, []
            for deferred in waiting:
                deferred.callback(None)

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
        self.flush()

    def stopProducing(self) -> None:
        """
        The transport is going; :meth:`connectionLost` follows.
        """
        self._full = True

    # Time

    def _wait_until(self, due: float) -> None:
        if self._step:
            due = ceil(due / self._step) * self._step
        self._timer = self.reactor.callLater(max(0.0, due - self.reactor.seconds()), self._tick, due)

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._soon):
            if timer is not None and timer.active():
                timer.cancel()

    def _tick(self, due: float) -> None:
        session = self._session
        now = self.reactor.seconds()
        silent = now - self._heard_at
        awaited = session.line.awaits_answer
        if awaited and silent >= self._dead_after and now - due < LATENESS:
            self._end(MuxError(f"no sign of life for {silent:.1f} s"))
            return
        quiet_since = min(self._heard_at, self._sent_at)
        if now - quiet_since >= self._ping_after or now - session.line.measured_at >= MEASURE_EVERY:
            session.ping()
        self._end_lingering(now - self.limits.linger)
        self.flush()
        awaited = session.line.awaits_answer
        due = self._heard_at + self._dead_after if awaited else min(self._heard_at, self._sent_at) + self._ping_after
        self._wait_until(min(now + self._ping_after, max(due, now + LATENESS)))

    def _end_lingering(self, since: float) -> None:
        for stream in [stream for stream, began in self._lingering.items() if began <= since]:
            self._session.reset(stream)
            self.lingered(stream)


def why_lost(reason: Failure) -> str:
    """
    Why a connection or a stream ended, for people: what was said of it, without the words that Twisted puts around it.
    """
    value = reason.value
    if isinstance(value, ConnectionDone):
        return "the peer closed the connection"
    if isinstance(value, ConnectionAborted):
        return "the connection was cut by this side"
    if not isinstance(value, ConnectionLost):
        return f"connection lost: {reason.getErrorMessage()}"
    said = str(value.args[0]) if value.args else UNSAID
    return "the connection was reset by the peer, or cut on the way" if said == UNSAID else said


def _text(address: IAddress) -> str:
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    return str(address) if host is None else f"{host}:{port}" if ":" not in host else f"[{host}]:{port}"


def _bound_kernel_buffer(transport: Any) -> None:
    """
    Let the kernel take no more than it can soon send, so that a stream's turn comes soon, too.
    """
    handle = socket_of(transport)
    if handle is not None:
        handle.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, KERNEL_BUFFER)
