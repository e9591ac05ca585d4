"""
Two transports joined.  This is the hot path of both daemons: a piece that one side brought is written to the other one,
and nothing else is done with it.

Back-pressure needs no code of ours: each transport is told that the other one is its producer, so that a full one pauses its
source by itself.  Ends are passed on as what they were: a half-close as a half-close, a reset as a reset.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.http.wire import Wire, close, half_close, takes_views


class Splice:
    """
    Joins what ``left`` and ``right`` are connected to.  Until both are, the one that is first is not read.

    ``done`` fires with ``None`` when both connections are gone.  ``from_left`` and ``from_right`` count bytes.
    """

    __slots__ = ("done", "left", "right")

    def __init__(self) -> None:
        self.left = Half(self)
        self.right = Half(self)
        self.left.other, self.right.other = self.right, self.left
        self.done: Deferred[None] = Deferred(lambda _: self.abort())

    @property
    def from_left(self) -> int:
        """
        Bytes that the left side has brought.
        """
        return self.left.received

    @property
    def from_right(self) -> int:
        """
        Bytes that the right side has brought.
        """
        return self.right.received

    def abort(self) -> None:
        """
        Reset what is connected.
        """
        for half in (self.left, self.right):
            half.abort()


@implementer(IHalfCloseableProtocol, IPushProducer)
class Half(Protocol):
    """
    One side of a :class:`Splice`: a protocol, and the producer of what is written to the other side.
    """

    other: Half

    def __init__(self, splice: Splice) -> None:
        self._splice = splice
        self._held: list[bytes] | None = []
        self.wire: Any = None
        self.received = 0
        self.ended = False
        """Whether this side sends no more."""
        self.lost = False

    # Bytes

    def connectionMade(self) -> None:
        self.wire = self.transport
        if self.other.lost:
            self.abort()
        elif self.other.wire is None:
            self.wire.pauseProducing()
        else:
            self._join()

    def _join(self) -> None:
        other = self.other
        for one, another in ((self, other), (other, self)):
            one.wire.registerProducer(another, True)
            if takes_views(one.wire) and hasattr(another.wire, "gives_views"):
                another.wire.gives_views = True
        for half in (self, other):
            half.flush()
        if not (other.ended or other.lost):
            other.wire.resumeProducing()

    def flush(self) -> None:
        """
        Pass on what came before both were connected, and its end.
        """
        held, self._held = self._held or [], None
        for data in held:
            self.other.wire.write(data)
        if self.ended and not self.lost:
            self._pass_on_end()

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        if self._held is None:
            self.other.wire.write(data)
        else:
            # A paused transport brings at most what it had read already.
            self._held.append(data)

    def pauseProducing(self) -> None:
        self.wire.pauseProducing()

    def resumeProducing(self) -> None:
        self.wire.resumeProducing()

    def stopProducing(self) -> None:
        """
        The other side is gone, and its ``connectionLost`` says how; a transport here would close in order whatever happened.
        """

    # Ends

    def readConnectionLost(self) -> None:
        if self.ended:
            return
        self.ended = True
        if self._held is None:
            self._pass_on_end()

    def _pass_on_end(self) -> None:
        other = self.other
        if other.ended:
            # Nothing comes any more, from either side.
            for half in (self, other):
                half.close()
        elif not other.lost:
            half_close(other.wire)

    def writeConnectionLost(self) -> None:
        """
        All was written that the other side had brought; nothing is to be done.
        """

    def close(self) -> None:
        """
        Close when all is written.
        """
        if not self.lost:
            close(self.wire)

    def abort(self) -> None:
        """
        Reset.
        """
        if self.wire is not None and not self.lost:
            cast(Wire, self.wire).abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        other = self.other
        if other.lost or other.wire is None:
            self._finish()
        elif self.ended and other.ended:
            other.close()
        elif isinstance(reason.value, ConnectionDone):
            self.ended = True
            other.close()
        else:
            other.abort()

    def _finish(self) -> None:
        done = self._splice.done
        if not done.called:
            done.callback(None)
