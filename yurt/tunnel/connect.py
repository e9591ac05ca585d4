"""
How a stream becomes a connection to somewhere: the CONNECT head that opens it, and the answer.  docs/tunnel-protocol.md,
section 4.

:class:`StreamEndpoint` opens, :func:`read_head` and :func:`read_connect` take what the other side has opened.  After
the answer both are nothing but pass-throughs.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from typing import Any, NoReturn, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectError, ConnectionAborted, ConnectionDone, DNSLookupError, TimeoutError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.http.heads import get_header, serialise_request, serialise_response
from yurt.http.interfaces import Headers, RequestHead, ResponseHead
from yurt.http.parser import ResponseParser
from yurt.kube.status import read_failure, status_body
from yurt.mux.connection import MuxConnection, MuxStream
from yurt.mux.frames import MuxClosed
from yurt.options import host_port

MAX_HEAD_BYTES = 8 * 1024
"""Most bytes of the head that opens a stream, of its answer's head, and of a refusal's body."""
HEAD_TIMEOUT = 10.0
"""Seconds within which the head of a stream must be whole."""
ANSWER_TIMEOUT = 10.0
"""Seconds that an opener waits for the answer."""

NODE_HEADER = b"Yurt-Node"
"""Names the node, in a head that one server sends to another."""
REFUSED_HEADER = b"Yurt-Refused"

ACCEPTED = b"HTTP/1.1 200 OK\r\n\r\n"

MALFORMED = "malformed"
FORBIDDEN = "forbidden"
REFUSED = "refused"
UNREACHABLE = "unreachable"
TIMEOUT = "timeout"
NAME_UNKNOWN = "name-unknown"
DRAINING = "draining"
EXHAUSTED = "exhausted"
UNKNOWN_NODE = "unknown-node"
NOT_CONNECTED = "not-connected"
WORDS = frozenset(
    (
        MALFORMED,
        FORBIDDEN,
        REFUSED,
        UNREACHABLE,
        TIMEOUT,
        NAME_UNKNOWN,
        DRAINING,
        EXHAUSTED,
        UNKNOWN_NODE,
        NOT_CONNECTED,
    )
)
"""What ``Yurt-Refused`` may say."""

_PHRASES = {
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}
_WORD_OF = {400: MALFORMED, 403: FORBIDDEN, 404: UNKNOWN_NODE, 503: NOT_CONNECTED, 504: TIMEOUT}
"""For an answer that does not say one."""

_NO_MEANS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EADDRNOTAVAIL))
"""This machine lacks descriptors, memory or local ports."""

_START = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,2048}) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*?)[ \t]*")


class ConnectRefused(Exception):
    """
    A stream was not opened: the HTTP status, the reason of Kubernetes, the word of ``Yurt-Refused``, and a message for people.
    """

    def __init__(self, status: int, reason: str, word: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.word = word
        self.message = message


def authority(host: str, port: int) -> str:
    """
    Host and port as a CONNECT head names them.
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


DIAL_ERRORS = (ConnectError, DNSLookupError)
"""What Twisted's endpoints fail with when there is no connection."""


def dial_failure(error: Exception, timeout: float) -> ConnectRefused:
    """
    What a dial that ended with one of DIAL_ERRORS is answered with; the message says why, without the address.
    """
    number = getattr(error, "osError", None)
    if isinstance(error, DNSLookupError):
        return ConnectRefused(502, "BadGateway", NAME_UNKNOWN, "the name is unknown")
    if isinstance(error, TimeoutError) or number == errno.ETIMEDOUT:
        return ConnectRefused(504, "Timeout", TIMEOUT, f"nobody answered within {timeout:g} s")
    if number in _NO_MEANS:
        return ConnectRefused(503, "ServiceUnavailable", EXHAUSTED, os.strerror(number))
    if number == errno.ECONNREFUSED:
        return ConnectRefused(502, "BadGateway", REFUSED, "connection refused")
    why = os.strerror(number) if isinstance(number, int) else str(error)
    return ConnectRefused(502, "BadGateway", UNREACHABLE, why[:1].lower() + why[1:])


# Opening


@implementer(IStreamClientEndpoint)
class StreamEndpoint:
    """
    To ``host:port`` as the other side of ``mux`` sees it, in a stream of its own.

    ``connect`` fires when the other side has connected, and fails with :exc:`ConnectRefused` however it comes to nothing.
    With ``early`` it fires at once: the protocol may write before the answer, and a refusal is the reason of its
    ``connectionLost``.  ``headers`` are added to the head; ``answered()`` is called when the other side has connected.
    """

    def __init__(
        self,
        mux: MuxConnection,
        host: str,
        port: int,
        *,
        headers: Headers | None = None,
        early: bool = False,
        reactor: IReactorTime,
        timeout: float = ANSWER_TIMEOUT,
        answered: Callable[[], object] | None = None,
    ) -> None:
        self._mux = mux
        self._reactor = reactor
        self.target = authority(host, port)
        self.early = early
        self.timeout = timeout
        self.answered = answered
        target = self.target.encode("ascii")
        self.head = serialise_request(RequestHead(b"CONNECT", target, [(b"Host", target), *(headers or [])]))

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        See :class:`IStreamClientEndpoint`.  Cancelling resets the stream.
        """
        try:
            stream = self._mux.open()
        except MuxClosed as error:
            return fail(ConnectRefused(503, "ServiceUnavailable", NOT_CONNECTED, f"{self.target}: {error}"))
        opening = _Opening(self, self._reactor, protocolFactory)
        stream.attach(cast(IProtocol, opening))
        return opening.opened


@implementer(IHalfCloseableProtocol)
class _PassThrough(Protocol):
    """
    Owns a stream until another protocol takes it.
    """

    inner: IProtocol | None = None
    _half_closeable: Any = None

    def pass_to(self, inner: IProtocol) -> None:
        """
        Let ``inner`` have all events from now on.
        """
        self.inner = inner
        self._half_closeable = IHalfCloseableProtocol(inner, None)
        self.dataReceived = inner.dataReceived  # type: ignore[method-assign]  # a pass-through costs nothing so

    def readConnectionLost(self) -> None:
        if self._half_closeable is not None:
            self._half_closeable.readConnectionLost()
        elif self.transport is not None:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        if self._half_closeable is not None:
            self._half_closeable.writeConnectionLost()


class _Opening(_PassThrough):
    """
    Sends the head and waits for the answer.
    """

    def __init__(self, endpoint: StreamEndpoint, reactor: IReactorTime, factory: IProtocolFactory) -> None:
        self._endpoint = endpoint
        self._reactor = reactor
        self._factory = factory
        self._waiting = True
        self._timer: IDelayedCall | None = None
        self._parser = ResponseParser(MAX_HEAD_BYTES)
        self._parser.expect(b"CONNECT")
        self._early: IProtocol | None = None
        self.opened: Deferred[IProtocol] = Deferred(self._cancelled)

    @property
    def _stream(self) -> MuxStream:
        return cast(MuxStream, self.transport)

    def _cancelled(self, _: Deferred[IProtocol]) -> None:
        if self._settle():
            self._stream.abortConnection()

    def connectionMade(self) -> None:
        self._stream.write(self._endpoint.head)
        self._timer = self._reactor.callLater(self._endpoint.timeout, self._timed_out)
        if self._endpoint.early:
            self._early = self._build()

    def _build(self) -> IProtocol | None:
        stream = self._stream
        inner = self._factory.buildProtocol(cast(IAddress, stream.getPeer()))
        if inner is None:
            self._fail(502, "BadGateway", UNREACHABLE, "nobody wants it any more")
            return None
        inner.makeConnection(cast(ITransport, stream))
        if not self.opened.called:
            self.opened.callback(inner)
        return inner

    def dataReceived(self, data: bytes) -> None:
        if not self._waiting:
            return
        parser = self._parser
        parser.feed(data)
        head = parser.head
        if parser.error is not None:
            self._fail(502, "BadGateway", MALFORMED, f"the answer is no HTTP: {parser.error}")
        elif head is not None and 200 <= head.status < 300:
            self._open(parser.rest)
        elif head is not None and (parser.complete or sum(map(len, parser.chunks)) > MAX_HEAD_BYTES):
            self._refused(head)

    def _open(self, rest: bytes) -> None:
        if self._endpoint.answered is not None:
            self._endpoint.answered()
        inner = self._early if self._endpoint.early else self._build()
        if inner is None or not self._settle():
            return
        self.pass_to(inner)
        if rest:
            inner.dataReceived(rest)

    def _refused(self, head: ResponseHead) -> None:
        said = read_failure(b"".join(self._parser.chunks))
        word = (get_header(head.headers, REFUSED_HEADER.lower()) or b"").decode("latin-1")
        if word not in WORDS:
            word = _WORD_OF.get(head.status, UNREACHABLE)
        message = said.message or f"{head.status} {head.reason.decode('latin-1')}"
        self._end(Failure(ConnectRefused(head.status, said.reason, word, message)))

    def _timed_out(self) -> None:
        self._fail(504, "Timeout", TIMEOUT, f"no answer within {self._endpoint.timeout:g} s")

    def _fail(self, status: int, reason: str, word: str, why: str) -> None:
        self._end(Failure(ConnectRefused(status, reason, word, f"{self._endpoint.target}: {why}")))

    def _settle(self) -> bool:
        """
        Stop waiting; false if that was over already.
        """
        was, self._waiting = self._waiting, False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        return was

    def _end(self, error: Failure, *, lost: bool = False) -> None:
        if not self._settle():
            return
        if not lost:
            self._stream.abortConnection()
        if self._early is not None:
            self._early.connectionLost(error)
        elif not self.opened.called:
            self.opened.errback(error)

    def readConnectionLost(self) -> None:
        if not self._waiting:
            super().readConnectionLost()
        elif self._parser.head is not None:
            self._refused(self._parser.head)
        else:
            self._fail(502, "BadGateway", UNREACHABLE, "the stream ended without an answer")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.inner is not None:
            self.inner.connectionLost(reason)
        elif self._waiting and self._early is not None and reason.check(ConnectionDone, ConnectionAborted):
            self._end(reason, lost=True)
        elif self._waiting:
            why = f"{self._endpoint.target}: the stream was lost before an answer: {reason.getErrorMessage()}"
            self._end(Failure(ConnectRefused(502, "BadGateway", NOT_CONNECTED, why)), lost=True)


# Answering


class IncomingStream:
    """
    A stream that the other side has opened, and the head that it began with.  Nothing more is read until it is accepted.

    ``on_lost`` is called when the opener resets the stream before it is answered; afterwards answering does nothing.
    """

    def __init__(self, reading: _Reading, head: RequestHead) -> None:
        self._reading = reading
        self.method = head.method
        self.target = head.target
        self.headers = head.headers
        self.on_lost: Callable[[], object] | None = None
        reading.incoming = self

    @property
    def is_lost(self) -> bool:
        """
        Whether the stream is gone.
        """
        return self._reading.is_lost

    def accept(self, protocol: IProtocol) -> None:
        """
        Answer 200 and let ``protocol`` have the stream, with what came behind the head.  It is told as well if the stream is
        lost already.
        """
        self.on_lost = None
        self._reading.accept(protocol)

    def refuse(self, status: int, reason: str, word: str, message: str) -> None:
        """
        Answer anything else, with a Status body, and close.
        """
        self.on_lost = None
        self._reading.refuse(ConnectRefused(status, reason, word, message))


class IncomingConnect(IncomingStream):
    """
    A stream that asks for a connection to ``host:port``.
    """

    def __init__(self, reading: _Reading, head: RequestHead, host: str, port: int) -> None:
        super().__init__(reading, head)
        self.host = host
        self.port = port

    @property
    def authority(self) -> str:
        """
        Host and port, for people.
        """
        return authority(self.host, self.port)


async def read_head(reactor: IReactorTime, stream: MuxStream) -> IncomingStream:
    """
    The head of a stream that the other side has opened.  Raises :exc:`ConnectRefused` for one that makes no sense or does
    not come in time, which has been answered then, and for a stream that is lost.
    """
    reading = _Reading(reactor)
    stream.attach(cast(IProtocol, reading))
    return IncomingStream(reading, await reading.head)


async def read_connect(reactor: IReactorTime, stream: MuxStream) -> IncomingConnect:
    """
    As :func:`read_head`, for a stream that must ask for a connection.
    """
    reading = _Reading(reactor)
    stream.attach(cast(IProtocol, reading))
    head = await reading.head
    if head.method != b"CONNECT":
        reading.reject(f"{head.method.decode('ascii')} is not spoken here, only CONNECT")
    try:
        host, port = host_port(head.target.decode("ascii"), 0)
    except ValueError as error:
        reading.reject(f"{head.target.decode('ascii')}: {error}")
    if not port:
        reading.reject(f"{head.target.decode('ascii')}: a port is missing")
    return IncomingConnect(reading, head, host, port)


class _Reading(_PassThrough):
    """
    Reads the head of a stream, and holds the stream until it is answered.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._timer: IDelayedCall | None = None
        self._data = b""
        self.incoming: IncomingStream | None = None
        self._ended = False
        self._reason: Failure | None = None
        self.head: Deferred[RequestHead] = Deferred(lambda _: self._stream.abortConnection())

    @property
    def _stream(self) -> MuxStream:
        return cast(MuxStream, self.transport)

    @property
    def is_lost(self) -> bool:
        """
        Whether the stream is gone.
        """
        return self._reason is not None

    def connectionMade(self) -> None:
        self._timer = self._reactor.callLater(HEAD_TIMEOUT, self._malformed, f"no whole head within {HEAD_TIMEOUT:g} s")

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if self.head.called:
            return
        end = self._data.find(b"\r\n\r\n")
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._data) > MAX_HEAD_BYTES):
            self._malformed(f"the head is longer than {MAX_HEAD_BYTES} bytes")
        elif end >= 0:
            text, self._data = self._data[:end], self._data[end + 4 :]
            try:
                head = parse_head(text)
            except ValueError as error:
                self._malformed(str(error))
                return
            self._end_timer()
            self._stream.pauseProducing()
            self.head.callback(head)

    def accept(self, protocol: IProtocol) -> None:
        stream = self._stream
        if not self.is_lost:
            stream.write(ACCEPTED)
            stream.resumeProducing()
        # What a stream delivers while it resumes is still collected here; only then the protocol takes over.
        self.pass_to(protocol)
        protocol.makeConnection(cast(ITransport, stream))
        data, self._data = self._data, b""
        if data:
            protocol.dataReceived(data)
        if self._ended:
            super().readConnectionLost()
        if self._reason is not None:
            protocol.connectionLost(self._reason)

    def refuse(self, error: ConnectRefused) -> None:
        if self.is_lost:
            return
        body = status_body(error.status, error.reason, error.message)
        headers = [
            (REFUSED_HEADER, error.word.encode("ascii")),
            (b"Content-Type", b"application/json"),
            (b"Content-Length", b"%d" % len(body)),
        ]
        head = ResponseHead(error.status, _PHRASES.get(error.status, b"Refused"), headers)
        self._data = b""
        self._stream.write(serialise_response(head) + body)
        self._stream.loseConnection()

    def reject(self, why: str) -> NoReturn:
        """
        Refuse a head that makes no sense; raises what it answered.
        """
        error = ConnectRefused(400, "BadRequest", MALFORMED, why)
        self.refuse(error)
        raise error

    def _malformed(self, why: str) -> None:
        self._end_timer()
        error = ConnectRefused(400, "BadRequest", MALFORMED, why)
        self.refuse(error)
        self.head.errback(Failure(error))

    def _end_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def readConnectionLost(self) -> None:
        if self.inner is not None:
            super().readConnectionLost()
        elif self.head.called:
            self._ended = True
        else:
            self._malformed("the stream ended within its head")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._reason = reason
        self._end_timer()
        if self.inner is not None:
            self.inner.connectionLost(reason)
        elif not self.head.called:
            why = f"the stream was lost within its head: {reason.getErrorMessage()}"
            self.head.errback(Failure(ConnectRefused(502, "BadGateway", NOT_CONNECTED, why)))
        elif self.incoming is not None and self.incoming.on_lost is not None:
            on_lost, self.incoming.on_lost = self.incoming.on_lost, None
            on_lost()


def parse_head(text: bytes) -> RequestHead:
    """
    The head that ``text`` is, without its empty line.  Raises ``ValueError``.
    """
    start, *lines = text.split(b"\r\n")
    match = _START.fullmatch(start)
    if match is None:
        raise ValueError("a stream begins with the head of an HTTP/1.1 request")
    headers: Headers = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise ValueError("the head holds a line that is no header field")
        headers.append((field[1], field[2]))
    return RequestHead(match[1], match[2], headers)
