"""
Connections handed over after a 101 response, or that carry no HTTP from the start; and two of them joined.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.http.interfaces import ByteReceiver, ByteStream, FlowControlled
from yurt.http.wire import STREAM_AT_ONCE, Wire, close, half_close, is_tls, send_at_once, takes_views, tune


@implementer(IPushProducer)
class TransportStream:
    """
    The :class:`ByteStream` over a transport.  The connection that owned the transport passes on its events by
    :meth:`received`, :meth:`read_ended` and :meth:`lost`; it is not read on until somebody attaches.  ``held`` tells that
    ``wire`` is paused already.
    """

    __slots__ = (
        "_early",
        "_ended",
        "_finished",
        "_full",
        "_held",
        "_lost",
        "_receiver",
        "_source",
        "_wire",
        "broken",
        "takes_views",
    )

    def __init__(self, wire: Wire, early: bytes, ended: bool = False, *, held: bool = False) -> None:
        self._wire = wire
        self._early = early
        self._ended = ended
        self._finished = False
        self._full = False
        self._held = held
        self._lost = False
        self.broken = False
        self._receiver: ByteReceiver | None = None
        self._source: FlowControlled | None = None
        send_at_once(wire, STREAM_AT_ONCE)
        self.takes_views = takes_views(wire)
        """Whether what is written may be a view that does not outlast the call."""
        wire.unregisterProducer()
        wire.registerProducer(self, True)

    def attach(self, receiver: ByteReceiver, source: FlowControlled | None) -> None:
        """
        See :class:`ByteStream`.
        """
        self._receiver = receiver
        self._source = source
        if getattr(receiver, "takes_views", False) and hasattr(self._wire, "gives_views"):
            self._wire.gives_views = True
        if self._full and source is not None:
            source.pause()
        early, self._early = self._early, b""
        if early:
            receiver.bytes_received(early)
        if self._lost:
            receiver.bytes_lost()
        elif self._ended:
            receiver.bytes_finished()
        else:
            self.resume()

    def write(self, data: bytes) -> None:
        """
        Send; after the end of this direction, do nothing.
        """
        if not (self._finished or self._lost):
            self._wire.write(data)

    def finish(self) -> None:
        """
        End the writing direction after all that was written; the connection with it when the peer ended its own.
        """
        if self._finished or self._lost:
            return
        self._finished = True
        if self._ended:
            self._close()
        else:
            half_close(self._wire)

    def close(self) -> None:
        """
        End both directions after all that was written.
        """
        if not self._lost:
            self._finished = True
            self._close()

    def _close(self) -> None:
        close(self._wire)

    def abort(self) -> None:
        """
        End both directions at once.
        """
        if not self._lost:
            self._wire.abortConnection()

    def pause(self) -> None:
        """
        Stop reading.
        """
        if not (self._held or self._ended or self._lost):
            self._held = True
            self._wire.pauseProducing()

    def resume(self) -> None:
        """
        Read on.
        """
        if self._held and not (self._ended or self._lost):
            self._held = False
            self._wire.resumeProducing()

    def received(self, data: bytes) -> None:
        """
        The transport brought ``data``.
        """
        if self._receiver is None:
            self._early += data
            self.pause()
        else:
            self._receiver.bytes_received(data)

    def read_ended(self) -> None:
        """
        The peer ended its direction.
        """
        if self._ended:
            return
        self._ended = True
        if self._receiver is not None:
            self._receiver.bytes_finished()
        if self._finished and not self._lost:
            self._close()

    def lost(self, *, broken: bool = False) -> None:
        """
        The transport is gone; ``broken`` as in :class:`ByteStream`.
        """
        if self._lost:
            return
        self.broken = broken
        self._lost = True
        if self._receiver is not None:
            self._receiver.bytes_lost()

    def pauseProducing(self) -> None:
        """
        The transport is full; it says so at every write.
        """
        if self._full:
            return
        self._full = True
        if self._source is not None:
            self._source.pause()

    def resumeProducing(self) -> None:
        """
        The transport has room again.
        """
        self._full = False
        if self._source is not None:
            self._source.resume()

    def stopProducing(self) -> None:
        """
        The transport is going away; :meth:`lost` follows.
        """


@implementer(IHalfCloseableProtocol)
class StreamConnection(Protocol):
    """
    A connection that carries no HTTP, as a :class:`ByteStream`; it is not read on until somebody attaches.
    """

    stream: TransportStream

    @property
    def peer(self) -> str:
        """
        The host at the other end.
        """
        return str(getattr(cast(Wire, self.transport).getPeer(), "host", ""))

    def connectionMade(self) -> None:
        wire = cast(Wire, self.transport)
        tune(wire)
        self.stream = TransportStream(wire, b"")
        if not is_tls(wire):
            self.dataReceived = self.stream.received  # type: ignore[method-assign]  # a pass-through costs nothing so

    def dataReceived(self, data: bytes) -> None:
        self.stream.received(data)

    def readConnectionLost(self) -> None:
        self.stream.read_ended()

    def writeConnectionLost(self) -> None:
        """
        Nothing to do: it was closed here.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.stream.lost(broken=not isinstance(reason.value, ConnectionDone))


class _Joint:
    """
    Writes to one stream what another one receives.
    """

    __slots__ = ("_to",)

    def __init__(self, to: ByteStream) -> None:
        self._to = to

    def bytes_received(self, data: bytes) -> None:
        self._to.write(data)

    def bytes_finished(self) -> None:
        self._to.finish()

    def bytes_lost(self) -> None:
        self._to.close()


def join(a: ByteStream, b: ByteStream) -> None:
    """
    Pass on everything between two streams, each as fast as the other one reads; the end of one is the end of the other.
    """
    a.attach(_Joint(b), b)
    b.attach(_Joint(a), a)
