"""
The HTTP/1.1 server of the data path: which connections there may be, and their end.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.http.interfaces import Application, Headers
from yurt.http.limits import ServerLimits
from yurt.http.repeats import Repeats
from yurt.http.server_connection import ServerConnection
from yurt.http.wire import unsent

LAST_WORDS_TIMEOUT = 2.0
"""
Seconds that clients have to read that their request was given up at a stop, also those that still send: a socket closed over
unread input resets the connection, and the answer with it.
"""


class HTTPServerFactory(Factory):
    """
    Accepts connections and asks ``application`` once a request.

    ``door`` is what requests show as theirs; ``own_headers`` go on the answers that this layer gives by itself (400
    for what is malformed, 431 for a head too large, 500 for a failing application, 503 for one connection too many).  CONNECT is
    malformed unless the application ``takes_connect``.  ``handshake_failed`` is told of connections that ended within TLS's
    hand-shake: from where, and why; ``crowded_out`` from where a connection came that had to make room, ``turned_away`` from
    where one that found none.

    When there are as many connections as may be, the oldest that has not asked anything yet makes room for a new one, or else the
    one that has been idle for longest: whoever only holds connections open must not keep out those who have something to ask.
    """

    log = Logger()

    noisy = False

    SPARE_CONNECTIONS = 64
    """Connections above the limit: those that are told so, and others whose client has its last answer still to read."""

    def __init__(
        self,
        reactor: IReactorTime,
        application: Application,
        door: object = None,
        limits: ServerLimits = ServerLimits(),
        own_headers: Headers | None = None,
        *,
        takes_connect: bool = False,
        handshake_failed: Callable[[IAddress, Failure], object] = lambda peer, reason: None,
        crowded_out: Callable[[IAddress], object] = lambda peer: None,
        turned_away: Callable[[IAddress | None], object] = lambda peer: None,
    ) -> None:
        self.reactor = reactor
        self.application = application
        self.handshake_failed = handshake_failed
        self.crowded_out = crowded_out
        self.turned_away = turned_away
        self.door = door
        self.limits = limits
        self.own_headers: Headers = own_headers or []
        self.takes_connect = takes_connect
        self.connections: set[ServerConnection] = set()
        self.silent: dict[ServerConnection, None] = {}
        """Those that have not asked anything yet, the oldest first."""
        self.idle: dict[ServerConnection, None] = {}
        """Those that wait for a next request, the first that began to first."""
        self.large_heads: set[ServerConnection] = set()
        """Those in the midst of a head of more than MAX_HEAD_BYTES."""
        self.leaving: dict[ServerConnection, None] = {}
        """Those that only wait for their client to read the last answer, in the same order."""
        self.full: dict[ServerConnection, None] = {}
        """Those whose client does not read as fast as it is answered, in the same order."""
        self.repeats = Repeats()
        self.draining = False
        self._drained: Deferred[None] | None = None
        self._cut: IDelayedCall | None = None

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """
        A connection, one that only says that there are too many, or none.
        """
        most = self.limits.max_connections
        if len(self.connections) >= most + self.SPARE_CONNECTIONS:
            self._make_room(self.leaving)
        if self._in_use() >= most:
            self._make_room(self.silent or self.idle)
        is_full = self._in_use() >= most
        has_place = len(self.connections) < most + self.SPARE_CONNECTIONS
        if not self.draining and (is_full or not has_place):
            self.turned_away(addr)
        if not has_place:
            return None
        connection = ServerConnection(self)
        connection.factory = self
        connection.refused = self.draining or is_full
        return connection

    def _in_use(self) -> int:
        return len(self.connections) - len(self.leaving)

    def _make_room(self, among: dict[ServerConnection, None]) -> None:
        oldest = next(iter(among), None)
        if oldest is not None and not self.draining:
            if among is not self.leaving:
                self.crowded_out(oldest.peer)
            self.connection_lost(oldest)
            oldest.abort()

    def filled(self, connection: ServerConnection) -> None:
        """
        More was written to a connection than its client has read.
        """
        self.full[connection] = None
        waiting = {one: unsent(one.wire) for one in self.full}
        total = sum(waiting.values())
        for oldest, size in waiting.items():
            if total <= self.limits.max_unread_bytes or oldest is connection:
                break
            self.log.debug("Cut {peer}, who leaves {size} bytes unread: others need the room", peer=oldest.peer, size=size)
            total -= size
            del self.full[oldest]
            oldest.abort()

    def connection_made(self, connection: ServerConnection) -> None:
        """
        A connection is there.
        """
        self.connections.add(connection)
        if not connection.refused:
            self.silent[connection] = None

    def connection_leaves(self, connection: ServerConnection) -> None:
        """
        A connection asks nothing more: it takes no place, and goes when its client has read its answer.
        """
        self.silent.pop(connection, None)
        self.idle.pop(connection, None)
        self.large_heads.discard(connection)
        self.leaving[connection] = None

    def connection_lost(self, connection: ServerConnection) -> None:
        """
        A connection is gone.
        """
        self.connections.discard(connection)
        self.silent.pop(connection, None)
        self.idle.pop(connection, None)
        self.large_heads.discard(connection)
        self.leaving.pop(connection, None)
        self.full.pop(connection, None)
        if self._drained is not None and not self.connections:
            drained, self._drained = self._drained, None
            if self._cut is not None and self._cut.active():
                self._cut.cancel()
            drained.callback(None)

    def drain(self, timeout: float) -> Deferred[None]:
        """
        Answer what is being answered, keep no connection, take no new one.  After ``timeout`` seconds say 503 to those that have
        no answer yet, cut the others, and LAST_WORDS_TIMEOUT later cut what is left.  Fires when no connection is left.
        Call it once.
        """
        self.draining = True
        drained: Deferred[None] = Deferred()
        self._drained = drained
        for connection in list(self.connections):
            connection.drain()
        if self._drained is not None and not self.connections:
            self._drained = None
            drained.callback(None)
        elif self._drained is not None:
            self._cut = self.reactor.callLater(timeout, self._give_up)
        return drained

    def _give_up(self) -> None:
        self._cut = self.reactor.callLater(LAST_WORDS_TIMEOUT, self._cut_all)
        for connection in list(self.connections):
            connection.give_up()

    def _cut_all(self) -> None:
        for connection in list(self.connections):
            connection.cut()
