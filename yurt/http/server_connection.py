"""
One connection of a client: its requests, one after the other, and the times and bounds they live under.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from functools import cached_property, partial
from typing import Protocol as Interface
from typing import cast

from cryptography.x509 import Certificate
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IHandshakeListener, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.http.deadline import Deadline
from yurt.http.interfaces import Application, ByteStream, Headers
from yurt.http.limits import ServerLimits
from yurt.http.parsing import FIELDS_TOO_LARGE, MAX_HEAD_BYTES
from yurt.http.repeats import Repeats
from yurt.http.request_parser import ASTERISK, RequestParser
from yurt.http.server_request import ServerRequest
from yurt.http.status import status_response
from yurt.http.upgrade import TransportStream
from yurt.http.wire import Wire, forget_unsent, half_close, is_tls, one_write, tune_accepted
from yurt.sockets import socket_of
from yurt.tls import peer_certificate, requested_name


class Server(Interface):
    """
    What a connection needs of the server that accepted it; see :class:`yurt.http.server.HTTPServerFactory`.
    """

    reactor: IReactorTime
    application: Application
    door: object
    limits: ServerLimits
    own_headers: Headers
    takes_connect: bool
    repeats: Repeats
    draining: bool
    silent: dict[ServerConnection, None]
    idle: dict[ServerConnection, None]
    full: dict[ServerConnection, None]
    large_heads: set[ServerConnection]
    handshake_failed: Callable[[IAddress, Failure], object]

    def connection_made(self, connection: ServerConnection) -> None: ...

    def connection_leaves(self, connection: ServerConnection) -> None: ...

    def connection_lost(self, connection: ServerConnection) -> None: ...

    def filled(self, connection: ServerConnection) -> None: ...


@implementer(IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
class ServerConnection(Protocol):
    """
    One client connection.  Requests are taken up one after the other; while others wait, nothing more is read, so that
    what waits is bounded by one read.
    """

    log = Logger()

    wire: Wire
    peer: IAddress

    def __init__(self, server: Server) -> None:
        self.server = server
        self.door = server.door
        self.own_headers = server.own_headers
        self.full = False
        self.refused = False
        self._limits = server.limits
        begin = partial(ServerRequest, connection=self)
        self._parser = RequestParser(
            begin, server.limits.max_head_bytes, takes_connect=server.takes_connect, repeats=server.repeats
        )
        self._waiting: deque[ServerRequest] = deque()
        self._current: ServerRequest | None = None
        self._stream: TransportStream | None = None
        self._advancing = False
        self._reading = True
        self._ended = False
        self._closing = False
        self._in_head = False
        self._shaken = False
        self._lingered = 0
        self._body_bytes = 0
        self._body_time_left = server.limits.body_timeout
        self._deadline = Deadline(server.reactor, self._expired)

    @property
    def draining(self) -> bool:
        """
        Whether the server is on its way out, so that no connection is to be kept.
        """
        return self.server.draining

    @property
    def ended(self) -> bool:
        """
        Whether the client has ended its direction, as far as that was read.
        """
        return self._ended

    @property
    def half_closes(self) -> bool:
        """
        Whether the client may end its direction of a TLS connection alone, as it may without TLS.
        """
        return self._stream is not None

    @cached_property
    def client_certificate(self) -> Certificate | None:
        """
        See :class:`yurt.http.interfaces.IncomingRequest`.
        """
        return peer_certificate(self.wire)

    @cached_property
    def server_name(self) -> str:
        """
        See :class:`yurt.http.interfaces.IncomingRequest`.
        """
        return requested_name(self.wire)

    @property
    def tcp_socket(self) -> socket.socket | None:
        """
        See :class:`yurt.http.interfaces.IncomingRequest`.
        """
        return socket_of(self.wire)

    # What the transport calls

    def connectionMade(self) -> None:
        self.wire = cast(Wire, self.transport)
        self.peer = self.wire.getPeer()
        tune_accepted(self.wire)
        self.wire.registerProducer(self, True)
        self.server.connection_made(self)
        if self.refused:
            self.send(status_response(503, "ServiceUnavailable", "too many connections, or stopping", self.own_headers))
            self._close_gently()
        else:
            first = self._limits.first_timeout
            self._deadline.set(self._limits.idle_timeout if first is None else first)

    def handshakeCompleted(self) -> None:
        """
        TLS is there.
        """
        self._shaken = True

    def dataReceived(self, data: bytes) -> None:
        if self._stream is not None:
            self._stream.received(data)
        elif self._closing:
            self._lingered += len(data)
            if self._lingered > self._limits.linger_bytes:
                self.wire.abortConnection()
        else:
            parser = self._parser
            self._body_bytes += len(data)
            with one_write:
                parser.feed(data)
                if parser.begun:
                    self._waiting.extend(parser.begun)
                    parser.begun.clear()
                self._advance()

    def readConnectionLost(self) -> None:
        self._ended = True
        if self._stream is not None:
            self._stream.read_ended()
        elif self._closing:
            self.wire.loseConnection()
        else:
            self._parser.end()
            self._advance()
            if self._is_open():
                self._deadline.set(self._half_closed_timeout())

    def _half_closed_timeout(self) -> float:
        wanted = None if self._current is None else self._current.half_closed
        return self._limits.half_closed_timeout if wanted is None else wanted

    def writeConnectionLost(self) -> None:
        """
        Nothing to do: either that direction was closed here, or the whole connection is about to be lost.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closing = True
        forget_unsent(self.wire)
        self._deadline.cancel()
        self._waiting.clear()
        current, self._current = self._current, None
        if current is not None:
            current.connection_lost()
        if self._stream is not None:
            self._stream.lost(broken=not isinstance(reason.value, ConnectionDone))
        self.server.connection_lost(self)
        if isinstance(reason.value, SSL.Error) and not self._shaken:
            self.server.handshake_failed(self.peer, reason)

    def pauseProducing(self) -> None:
        """
        The transport is full; it says so at every write.
        """
        if self.full:
            return
        self.full = True
        self.server.filled(self)
        if self._current is not None and self._current.source is not None:
            self._current.source.pause()

    def resumeProducing(self) -> None:
        """
        The transport has room again.
        """
        self.full = False
        self.server.full.pop(self, None)
        if self._current is None:
            self._advance()
        elif self._current.source is not None:
            self._current.source.resume()

    def stopProducing(self) -> None:
        """
        The transport is going away; ``connectionLost`` follows.
        """

    # Requests, one after the other

    def _advance(self) -> None:
        """
        Take up what can be taken up now: the rest of the current body, then the requests that wait.
        """
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._is_open() and self._step():
                pass
        finally:
            self._advancing = False
        if self._is_open():
            self._settle()

    def _is_open(self) -> bool:
        return not self._closing and self._stream is None

    def _step(self) -> bool:
        """
        Go on with the current request, or begin the next.  False when there is nothing to go on with.
        """
        current = self._current
        if current is None:
            if self.full or not self._waiting:
                return False
            current = self._waiting.popleft()
            self._current = current
            self._deadline.clear()
            self._body_bytes = 0
            self._body_time_left = self._limits.body_timeout
            if self._in_head:
                self._in_head = False
                self.server.large_heads.discard(self)
            if current.complete or self._parser.error is None:
                self._ask(current)
        elif current.complete or self._parser.error is None:
            current.deliver()
        return self._current is not current

    def _ask(self, request: ServerRequest) -> None:
        self.server.silent.pop(self, None)
        self.server.idle.pop(self, None)
        if request.head.target == ASTERISK and request.head.method == b"OPTIONS":
            request.respond(200, self.own_headers)
            return
        try:
            self.server.application.handle(request)
        except Exception:
            self.log.failure("The application failed on {method} {path}", method=request.head.method, path=request.path)
            request.fail(500, "InternalError", "the request could not be handled; the log says why")

    def _settle(self) -> None:
        """
        Nothing can be taken up now: refuse what is malformed, or wait for what comes next.
        """
        current = self._current
        error = self._parser.error
        if current is None and self._waiting:
            # Their answers would only pile up: the client does not even read the ones before.
            self._deadline.set(self._limits.idle_timeout)
        elif error is not None and (current is None or not current.complete):
            self._refuse_malformed(error)
            return
        elif current is None:
            if self._ended or self.draining:
                self._close()
                return
            self._await_head()
        self.adjust_reading()

    def _await_head(self) -> None:
        if not self.full:
            self.server.idle[self] = None
        if not self._parser.in_head:
            self._in_head = False
            self._deadline.set(self._limits.idle_timeout)
        elif not self._in_head:
            self._in_head = True
            self._deadline.set(self._limits.head_timeout)
        if self._parser.head_bytes > MAX_HEAD_BYTES and not self._has_room_for_head():
            message = f"{self._limits.max_large_heads} requests with heads as large as this one's are on their way; try again"
            self._refuse(503, "ServiceUnavailable", message)

    def _has_room_for_head(self) -> bool:
        heads = self.server.large_heads
        if self in heads or len(heads) < self._limits.max_large_heads:
            heads.add(self)
            return True
        return False

    def _refuse_malformed(self, error: str) -> None:
        if error == FIELDS_TOO_LARGE:
            limit = self._limits.max_head_bytes
            message = f"the request's head is larger than the {limit} bytes that are taken, or its trailers are"
            self._refuse(431, "RequestHeaderFieldsTooLarge", message)
        else:
            self._refuse(400, "BadRequest", f"malformed request: {error}")

    def _refuse(self, code: int, reason: str, message: str) -> None:
        """
        Answer what cannot be understood or does not come, and close.
        """
        self.log.debug("Refused a request from {peer}: {why}", peer=self.peer, why=message)
        current, self._current = self._current, None
        if current is not None:
            started = current.started
            current.connection_lost()
            if started:
                self.abort()
                return
        self.send(status_response(code, reason, message, self.own_headers))
        self._close_gently()

    # What a request calls

    def send(self, data: bytes) -> None:
        """
        Write to the client.
        """
        self.wire.write(data)
        if self.full and not self._closing:
            self.server.filled(self)
        if self._ended:
            self._deadline.set(self._half_closed_timeout())

    def abort(self) -> None:
        """
        Cut the connection.
        """
        self._closing = True
        self.wire.abortConnection()
        forget_unsent(self.wire)

    def adjust_reading(self) -> None:
        """
        Read exactly while there is room for what comes; a body that is wanted must not stand still, or trickle, for long.
        """
        if self._ended or self._closing or self._stream is not None:
            return
        current = self._current
        wanted = not self._waiting and (current is None or (current.wants_bytes and not self._parser.rest))
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self.wire.resumeProducing()
            else:
                self.wire.pauseProducing()
        if current is not None and current.awaits_body:
            self._await_body()
        elif current is not None:
            if self._deadline.is_set:
                self._body_time_left = self._deadline.left
                self._deadline.clear()

    def _await_body(self) -> None:
        """
        Give the body its time anew when enough of it came; time in which it was held back here is not its client's.
        """
        if self._body_bytes >= self._limits.body_min_bytes:
            self._body_bytes = 0
            self._deadline.set(self._limits.body_timeout)
        elif not self._deadline.is_set:
            self._deadline.set(self._body_time_left)

    def request_finished(self, request: ServerRequest, keep_alive: bool) -> None:
        """
        The response to the current request is on its way.
        """
        one_write.message_ended()
        if self._current is not request:
            return
        self._current = None
        if not request.complete or (request.upgrade and self._parser.rest):
            self._close_gently()
        elif not keep_alive:
            self._close()
        else:
            if request.upgrade:
                self._parser.restart()
            self._advance()

    def hand_over(self, head: bytes) -> ByteStream:
        """
        Send the head of a 101 response, and give the connection away.
        """
        self.send(head)
        one_write.flush()  # the client goes on while the rest is done here
        self._current = None
        self._deadline.clear()
        self.server.full.pop(self, None)
        self._stream = TransportStream(self.wire, self._parser.rest, self._ended, held=not self._reading)
        self._parser.rest = b""
        if not is_tls(self.wire):
            self.dataReceived = self._stream.received  # type: ignore[method-assign]  # a pass-through costs nothing so
        return self._stream

    # The end

    def drain(self) -> None:
        """
        Close now if nothing is being answered; otherwise after the answer.
        """
        if self._stream is None and self._current is None and not self._closing:
            self._close()

    def give_up(self) -> None:
        """
        Tell the client if its request has no answer yet; cut what is under way.
        """
        if self._closing:
            return  # its client reads the last answer, until :meth:`cut`
        if self._stream is not None or self._current is None or self._current.started:
            self.cut()
        else:
            message = "this server stops, and no answer came in time; whether the request took effect is not known"
            self._refuse(503, "ServiceUnavailable", message)

    def cut(self) -> None:
        """
        Close whatever goes on.
        """
        self.wire.abortConnection()

    def _close(self) -> None:
        """
        Close after what was written; nothing more is expected from the client.
        """
        self._closing = True
        self.wire.unregisterProducer()
        self.wire.loseConnection()
        self._deadline.set(self._limits.linger_timeout)

    def _close_gently(self) -> None:
        """
        Close after what was written, reading and forgetting meanwhile: a socket closed over unread input resets the
        connection, and the client may never see its answer.
        """
        self._closing = True
        self._waiting.clear()
        self.server.connection_leaves(self)
        half_close(self.wire)
        if self._ended:
            self.wire.loseConnection()
        elif not self._reading:
            self.wire.resumeProducing()
        self._deadline.set(self._limits.linger_timeout)

    def _expired(self) -> None:
        current = self._current
        if current is not None and current.awaits_body and not (self._closing or self._ended):
            limits = self._limits
            message = f"fewer than {limits.body_min_bytes} bytes of the request body came within {limits.body_timeout:g} s"
            self._refuse(408, "Timeout", message)
        elif self._in_head and not (self._closing or self._waiting):
            self._refuse(408, "Timeout", f"the rest of the request head did not come for {self._limits.head_timeout:g} s")
        elif self._closing or self._current is not None or self._in_head:
            self.wire.abortConnection()
        else:
            self._close()
