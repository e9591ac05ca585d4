"""
Answering a stream that the other side has opened: its CONNECT head, then 200 or a refusal.  docs/tunnel-protocol.md, section 4.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Generic, NoReturn, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol, IReactorTime, ITransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from yurt.http.heads import serialise_response
from yurt.http.interfaces import Headers, RequestHead, ResponseHead
from yurt.http.wire import one_write
from yurt.kube.status import status_body
from yurt.mux.connection import MuxStream, why_lost
from yurt.tunnel.connect import (
    ACCEPTED,
    MALFORMED,
    MAX_HEAD_BYTES,
    MAX_TARGETS,
    NOT_CONNECTED,
    REFUSED_HEADER,
    ConnectRefused,
    PassThrough,
    authority,
    target_of,
)

HEAD_TIMEOUT = 10.0
"""Seconds within which the head of a stream must be whole."""

SHORT_HEAD = 200
"""Bytes of a head that asks for a port of a node, and says little else."""

_PHRASES = {
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}

T = TypeVar("T")

_START = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,2048}) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*?)[ \t]*")


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

    def pass_on(self, handle: socket.socket) -> None:
        """
        Send what came behind the head to a socket; what that does not take is left for the protocol.
        """
        self._reading.pass_on(handle)

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

    def abort(self) -> None:
        """
        Reset the stream.
        """
        self._reading.abort()


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
    came = _Awaited[RequestHead](stream)
    reading = _Reading(reactor, came.succeed, came.fail)
    stream.attach(cast(IProtocol, reading))
    return IncomingStream(reading, await came.outcome)


def read_connect(reactor: IReactorTime, stream: MuxStream) -> Deferred[IncomingConnect]:
    """
    As :func:`read_head`, for a stream that must ask for a connection.
    """
    came = _Awaited[IncomingConnect](stream)
    when_asked(reactor, stream, came.succeed, came.fail)
    return came.outcome


def when_asked(
    reactor: IReactorTime,
    stream: MuxStream,
    asked: Callable[[IncomingConnect], object],
    failed: Callable[[ConnectRefused], object],
) -> None:
    """
    As :func:`read_connect`, in fewer steps: calls ``asked`` or ``failed``.
    """

    def came(head: RequestHead) -> None:
        try:
            incoming = _asked_for(head, reading)
        except ConnectRefused as error:
            failed(error)
        else:
            asked(incoming)

    reading = _Reading(reactor, came, failed)
    stream.attach(cast(IProtocol, reading))


class _Awaited(Generic[T]):
    """
    What somebody waits for who may cancel, which resets the stream.
    """

    def __init__(self, stream: MuxStream) -> None:
        self.outcome: Deferred[T] = Deferred(lambda _: stream.abortConnection())

    def succeed(self, result: T) -> None:
        if not self.outcome.called:
            self.outcome.callback(result)

    def fail(self, error: Exception) -> None:
        if not self.outcome.called:
            self.outcome.errback(error)


def _asked_for(head: RequestHead, reading: _Reading) -> IncomingConnect:
    if head.method != b"CONNECT":
        reading.reject(f"{head.method.decode('ascii')} is not spoken here, only CONNECT")
    try:
        host, port = target_of(head.target.decode("ascii"))
    except ValueError as error:
        reading.reject(f"{head.target.decode('ascii')}: {error}")
    if not port:
        reading.reject(f"{head.target.decode('ascii')}: a port is missing")
    return IncomingConnect(reading, head, host, port)


class _Reading(PassThrough):
    """
    Reads the head of a stream, and holds the stream until it is answered.  Calls ``came``, or ``failed``, once.
    """

    def __init__(
        self, reactor: IReactorTime, came: Callable[[RequestHead], object], failed: Callable[[ConnectRefused], object]
    ) -> None:
        self._reactor = reactor
        self._came = came
        self._failed = failed
        self._is_read = False
        self._timer: IDelayedCall | None = None
        self._data = b""
        self._is_early = False
        self.incoming: IncomingStream | None = None
        self._ended = False
        self._reason: Failure | None = None

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
        if self._is_read:
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
            self._is_early = bool(self._data)
            self._stream.pauseProducing()
            self._is_read = True
            self._came(head)

    def pass_on(self, handle: socket.socket) -> None:
        if self._data:
            with suppress(OSError):  # whoever reads the socket is told
                self._data = self._data[handle.send(self._data) :]

    def accept(self, protocol: IProtocol) -> None:
        stream = self._stream
        if not self.is_lost:
            if self._is_early:
                # The opener did not wait for the answer, which can go along with what is said to its bytes.
                stream.write_soon(ACCEPTED)
            else:
                stream.write_now(ACCEPTED)
                one_write.flush()
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

    def abort(self) -> None:
        self._stream.abortConnection()

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
        self._is_read = True
        self._failed(error)

    def _end_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def readConnectionLost(self) -> None:
        if self.inner is not None:
            super().readConnectionLost()
        elif self._is_read:
            self._ended = True
        else:
            self._malformed("the stream ended within its head")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._reason = reason
        self._end_timer()
        if self.inner is not None:
            self.inner.connectionLost(reason)
        elif not self._is_read:
            self._is_read = True
            why = f"the stream was lost within its head: {why_lost(reason)}"
            self._failed(ConnectRefused(502, "BadGateway", NOT_CONNECTED, why))
        elif self.incoming is not None and self.incoming.on_lost is not None:
            on_lost, self.incoming.on_lost = self.incoming.on_lost, None
            on_lost()


def parse_head(text: bytes) -> RequestHead:
    """
    The head that ``text`` is, without its empty line; nobody changes it, for short ones are remembered.  Raises ``ValueError``.
    """
    return _remembered_head(text) if len(text) <= SHORT_HEAD else _parse_head(text)


@lru_cache(MAX_TARGETS)
def _remembered_head(text: bytes) -> RequestHead:
    return _parse_head(text)


def _parse_head(text: bytes) -> RequestHead:
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
