"""
The transport under a connection: what is used of it, and how its socket is set.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from functools import partial
from os import sched_yield
from select import EPOLLIN, EPOLLOUT
from time import monotonic
from typing import Any, Protocol

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol

from yurt.sockets import probe_peer, set_usual_options, socket_of, tcp_of

READ_BYTES = 256 * 1024
"""
Most bytes of one read, and the amount of unsent data above which a source is held back.  Four times Twisted's
default: bulk transfers spend half of their time pausing and resuming otherwise.
"""


MAX_AT_ONCE = 64 * 1024
"""
Longer pieces are left to the reactor, which shares its time among all connections: a proxy that sends a large body piece by
piece by itself carries 44 % of what a direct way does, and 74 % so.
"""

STREAM_AT_ONCE = READ_BYTES + 32 * 1024
"""
The same for a connection that carries a stream through a tunnel: what one read brought leaves at once, with what mux and TLS add,
and is read at once on the other side.
"""


MAX_PIECES = 1024
"""Pieces that Linux takes by one call of sendmsg(2): its IOV_MAX."""


HELD_FOR = 0.001
"""Seconds after which what is written in a turn of the reactor waits no longer for the turn's end."""

SOON = 0.0002
"""
Seconds for which an event is looked for again and again, without sleep, if the last one came as soon.  To sleep, and to be woken
by who sends, takes about as long on a virtual machine: half of what a small GET waits for.
"""

Events = list[tuple[int, int]]
Poll = Callable[[float, int], Events]
"""Waits so many seconds, for ever if negative, and gives so many events at most."""

CarryOut = Callable[[int, int], None]
"""What a turn of the reactor has to carry out, as descriptors and what happened to them, and what carries out one."""

log = Logger()


class Wire(Protocol):
    """
    What a connection uses of its transport, TCP or TLS.
    """

    def write(self, data: bytes) -> None: ...

    def loseConnection(self) -> None: ...

    def abortConnection(self) -> None: ...

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def registerProducer(self, producer: Any, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...

    def getPeer(self) -> IAddress: ...


def is_tls(wire: object) -> bool:
    """
    Whether the transport speaks TLS, and so cannot be closed in one direction only.
    """
    return isinstance(wire, TLSMemoryBIOProtocol)


def unsent(wire: object) -> int:
    """
    Bytes that were written and wait in this process for their reader.
    """
    tcp = tcp_of(wire)
    waiting = sum(map(len, getattr(wire, "_appSendBuffer", ())))
    return waiting + (len(tcp.dataBuffer) - tcp.offset + tcp._tempDataLen if isinstance(tcp, Connection) else 0)


def forget_unsent(wire: Any) -> None:
    """
    Free what waits to be sent by a connection that is lost: connection and protocol know each other, so that the garbage
    collector would have to come first.
    """
    getattr(wire, "_appSendBuffer", []).clear()
    tcp = tcp_of(wire)
    if isinstance(tcp, Connection):
        tcp.dataBuffer, tcp.offset = b"", 0
        tcp._tempDataBuffer, tcp._tempDataLen = [], 0


def half_close(wire: Any) -> None:
    """
    End the writing direction after all that was written; close after it where that cannot be.
    """
    wire.unregisterProducer()
    if is_tls(wire) or not hasattr(wire, "loseWriteConnection"):
        wire.loseConnection()
    elif _has_sent_all(wire):
        wire._writeDisconnected = True
        wire._closeWriteConnection()
    else:
        wire.loseWriteConnection()


def close(wire: Any) -> None:
    """
    Close after all that was written.
    """
    wire.unregisterProducer()
    if _has_sent_all(wire):
        wire.stopReading()
        wire.disconnecting = 1
        wire.reactor.callLater(0, _end, wire)
    else:
        wire.loseConnection()


def _end(tcp: Connection) -> None:
    if not tcp._aborting:
        tcp.connectionLost(connectionDone)


def _has_sent_all(wire: object) -> bool:
    """
    Whether the kernel has all that was written to a TCP connection, so that nobody need wait until it can be written to again.
    """
    one_write.flush()
    return (
        isinstance(wire, Connection)
        and bool(wire.connected)
        and not (wire.TLS or wire.disconnecting or wire._writeDisconnecting or wire._aborting)
        and not (wire.dataBuffer or wire._tempDataLen)
    )


def tune(wire: object, *, dead_after: float | None = None, at_once: int = MAX_AT_ONCE, read: int = READ_BYTES) -> None:
    """
    Send writes of up to ``at_once`` bytes at once, read up to ``read`` bytes, and find out about a peer that vanished: by
    keep-alive probes, and with ``dead_after`` (seconds) also by giving up on data that nobody acknowledges for that long.
    """
    tcp = tcp_of(wire)
    if not isinstance(tcp, Connection):
        return
    tune_accepted(tcp, at_once=at_once, read=read)
    handle = socket_of(tcp)
    if handle is None:
        return
    set_usual_options(handle)
    if dead_after is not None:
        probe = max(1, int(dead_after / 6))
        probe_peer(handle, 3 * probe, probe, 3)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(dead_after * 1000))


def tune_accepted(wire: object, *, at_once: int = MAX_AT_ONCE, read: int = READ_BYTES) -> None:
    """
    The same for what a listener of :mod:`yurt.listening` has accepted: its socket was born with the options of the listener's.
    """
    tcp = tcp_of(wire)
    if isinstance(tcp, Connection):
        tcp.bufferSize = read
        _send_at_once(tcp, at_once)


def send_at_once(wire: object, most: int) -> None:
    """
    Send writes of up to ``most`` bytes without a turn of the reactor.
    """
    tcp = tcp_of(wire)
    if isinstance(tcp, Connection):
        _send_at_once(tcp, most)


def _send_at_once(tcp: Connection, most: int) -> None:
    if most > tcp.SEND_LIMIT:
        tcp.SEND_LIMIT = most
    tcp.write = partial(one_write.write, tcp, most)  # type: ignore[method-assign]


class OneWrite:
    """
    Inside ``with one_write`` all that is written to a connection is collected, and leaves in one piece at the end: what one
    read brought makes one write, head and body together.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._keeps_views = False
        self._held: dict[Connection, tuple[int, list[bytes | memoryview]]] = {}
        self.events_left = 0
        """How many events of this turn of the reactor are still to be carried out; what comes of them is to leave in a row."""

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._keeps_views = False
            self.flush()

    def keep_views(self) -> None:
        """
        Just inside ``with one_write``: views that are written will outlast it, and need not be copied.
        """
        self._keeps_views = self._depth == 1

    def flush(self) -> None:
        """
        Send what was collected so far.
        """
        if not self._held:
            return
        held, self._held = self._held, {}
        for tcp, (at_once, pieces) in held.items():
            _send(tcp, at_once, pieces)

    def message_ended(self) -> None:
        """
        What was written ends a message.  If nothing else is to be carried out it leaves now, and the peer is at work while this
        side puts its books in order.
        """
        if not self.events_left:
            self.flush()

    def write(self, tcp: Connection, at_once: int, data: bytes | memoryview, *, passing: bool = False) -> None:
        """
        What :func:`tune` puts in the place of ``tcp.write``; a view need not outlast the call, but see :meth:`keep_views`, from
        which what is ``passing`` is excepted.
        """
        held = self._held.get(tcp)
        if held is None and (not self._depth or tcp.dataBuffer or tcp._tempDataLen):
            _send(tcp, at_once, (data,))
            return
        kept = data if self._keeps_views and not passing else bytes(data)
        if held is None:
            self._held[tcp] = at_once, [kept]
        else:
            held[1].append(kept)


one_write = OneWrite()


def write_view(wire: Any, view: memoryview) -> None:
    """
    Write bytes that are there only until this returns: those that cannot be sent at once are copied.
    """
    if isinstance(wire, Connection):
        one_write.write(wire, wire.SEND_LIMIT, view, passing=True)
    else:
        wire.write(bytes(view))


def takes_views(wire: object) -> bool:
    """
    Whether a view that is written to a transport need not outlast the call: whether :func:`tune` has set it, and nothing lies
    between it and the socket.
    """
    return isinstance(wire, Connection) and "write" in vars(wire)


def send_by_turn(reactor: object) -> None:
    """
    Let all that is written while the reactor carries out the events of one turn leave in a row at its end, HELD_FOR later at
    most if no single event takes longer; call it before the reactor runs.

    A peer that sleeps has to be woken, which costs more than all else about sending: half of a small GET, on a virtual
    machine.  Peers that are sent to in a row are still awake for the second piece.

    Not for the tunnel's daemons: streams that share a link take turns by what the link's transport says of its room, at once.
    """

    def carry_out(events: Events, one: CarryOut) -> None:
        flush_at = monotonic() + HELD_FOR
        one_write.events_left = len(events)
        with one_write:
            for descriptor, event in events:
                one_write.events_left -= 1
                if event & EPOLLOUT:
                    one_write.flush()  # what has been written goes before a close that this event may carry out
                one(descriptor, event)
                if monotonic() > flush_at:
                    one_write.flush()
                    flush_at = monotonic() + HELD_FOR

    plain_turns(reactor, carry_out, EagerPoll)


class EagerPoll:
    """
    ``poll`` that does not sleep where the next event is to be expected soon: at both ends of requests that follow one another.

    It gives way to whoever else wants the processor, and sleeps at once after an event that took longer than SOON, as each does
    that comes from afar: so it costs time of an idle processor only, and that only where much goes on.
    """

    def __init__(
        self, poll: Poll, seconds: Callable[[], float] = monotonic, give_way: Callable[[], object] = sched_yield
    ) -> None:
        self._poll = poll
        self._seconds = seconds
        self._give_way = give_way
        self._came_soon = False

    def __call__(self, timeout: float, most: int) -> Events:
        """
        See :data:`Poll`.
        """
        poll, until = self._poll, self._seconds() + SOON
        events = poll(0, most)
        if not events and timeout:
            if self._came_soon and not 0 < timeout < SOON:
                events = self._look_again(until, most)
            events = events or poll(timeout, most)
        self._came_soon = bool(events) and self._seconds() < until
        return events

    def _look_again(self, until: float, most: int) -> Events:
        events: Events = []
        while not events and self._seconds() < until:
            self._give_way()
            events = self._poll(0, most)
        return events


def _one_by_one(events: Events, one: CarryOut) -> None:
    for descriptor, event in events:
        one(descriptor, event)


def plain_turns(
    reactor: object,
    carry_out: Callable[[Events, CarryOut], None] = _one_by_one,
    poll_by: Callable[[Poll], Poll] = lambda poll: poll,
) -> None:
    """
    Spare the reactor the context that Twisted makes for each event, which tells old-style log messages whose they are: there are
    none here; and most of its questions where there is something to read and nothing else.  ``carry_out`` is given the events of
    each turn, and what carries out one; ``poll_by`` makes how they are waited for of how the kernel does.  Call it before the
    reactor runs.
    """
    if not isinstance(reactor, EPollReactor):
        return
    selectables, read_or_write, disconnect = reactor._selectables, reactor._doReadOrWrite, reactor._disconnectSelectable
    wait = poll_by(reactor._poller.poll)

    def one(descriptor: int, event: int) -> None:
        selectable = selectables.get(descriptor)
        if selectable is None:
            return
        try:
            if event != EPOLLIN:
                read_or_write(selectable, descriptor, event)
                return
            try:
                why = selectable.doRead()
            except Exception as problem:
                log.failure("{what} could not be read", what=selectable)
                why = problem
            if why is not None:
                disconnect(selectable, why, True)
        except Exception:
            log.failure("an event of {what} failed", what=selectable)

    def poll(timeout: float | None) -> None:
        carry_out(wait(-1 if timeout is None else timeout, len(selectables)), one)

    reactor.doIteration = poll  # type: ignore[method-assign]


def _send(tcp: Connection, at_once: int, pieces: Sequence[bytes | memoryview]) -> None:
    """
    Write without a turn of the reactor, which costs two changes of the poll set and a dispatch, as long as the kernel takes all
    and nothing waits; else as Twisted does.  What fails here fails there again, and is reported in the usual way.
    """
    sent = 0
    if not (tcp.dataBuffer or tcp._tempDataLen or tcp.disconnecting) and tcp.connected and sum(map(len, pieces)) <= at_once:
        try:
            sent = tcp.socket.sendmsg(pieces[:MAX_PIECES])
        except OSError:
            pass
    for piece in pieces:
        if sent < len(piece):
            Connection.write(tcp, bytes(piece[sent:] if sent else piece))
        sent = max(0, sent - len(piece))


def allow_stall(wire: object) -> None:
    """
    Let the peer of an upgraded connection stop reading for as long as it likes: the kernel counts a closed window
    as unacknowledged data, and a paused ``kubectl exec`` is no dead one.
    """
    handle = socket_of(wire)
    if handle is not None:
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
