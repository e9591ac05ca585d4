"""
Opening a stream to somewhere: the CONNECT head, and the wait for the answer.  docs/tunnel-protocol.md, section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.http.heads import get_header, serialise_request
from yurt.http.interfaces import Headers, RequestHead, ResponseHead
from yurt.http.response_parser import ResponseParser
from yurt.kube.status import REASONS, read_failure
from yurt.mux.connection import MuxConnection, MuxStream, why_lost
from yurt.mux.frames import MuxClosed, NoStreamLeft
from yurt.tunnel.connect import (
    ACCEPTED,
    EXHAUSTED,
    FORBIDDEN,
    MALFORMED,
    MAX_HEAD_BYTES,
    MAX_TARGETS,
    NOT_CONNECTED,
    REFUSED_HEADER,
    TIMEOUT,
    UNKNOWN_NODE,
    UNREACHABLE,
    WORDS,
    ConnectRefused,
    PassThrough,
    authority,
)

ANSWER_TIMEOUT = 10.0
"""Seconds that an opener waits for the answer."""

_WORD_OF = {400: MALFORMED, 403: FORBIDDEN, 404: UNKNOWN_NODE, 503: NOT_CONNECTED, 504: TIMEOUT}
"""For an answer that does not say one."""


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
        self.head = _head(self.target, tuple(headers or ()))

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        See :class:`IStreamClientEndpoint`.  Cancelling resets the stream.
        """
        try:
            stream = self._mux.open()
        except MuxClosed as error:
            word = EXHAUSTED if isinstance(error, NoStreamLeft) else NOT_CONNECTED
            return fail(ConnectRefused(503, "ServiceUnavailable", word, f"{self.target}: {error}"))
        opening = _Opening(self, self._reactor, protocolFactory)
        stream.attach(cast(IProtocol, opening), at_once=not self.early)
        return opening.opened


@lru_cache(MAX_TARGETS)
def _head(target: str, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    name = target.encode("ascii")
    return serialise_request(RequestHead(b"CONNECT", name, [(b"Host", name), *headers]))


class _Opening(PassThrough):
    """
    Sends the head and waits for the answer.  The usual one is known by sight; others are parsed.
    """

    def __init__(self, endpoint: StreamEndpoint, reactor: IReactorTime, factory: IProtocolFactory) -> None:
        self._endpoint = endpoint
        self._reactor = reactor
        self._factory = factory
        self._waiting = True
        self._timer: IDelayedCall | None = None
        self._parser: ResponseParser | None = None
        self._early: IProtocol | None = None
        self.opened: Deferred[IProtocol] = Deferred(self._cancelled)

    @property
    def _stream(self) -> MuxStream:
        return cast(MuxStream, self.transport)

    def _cancelled(self, _: Deferred[IProtocol]) -> None:
        if self._settle():
            self._stream.abortConnection()

    def connectionMade(self) -> None:
        self._timer = self._reactor.callLater(self._endpoint.timeout, self._timed_out)
        if self._endpoint.early:
            # What the protocol says first is on its way to us already: it goes along.
            self._stream.write_soon(self._endpoint.head)
            self._early = self._build()
        else:
            self._stream.write(self._endpoint.head)

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
        data = bytes(data)  # a view, if an early protocol takes them
        parser = self._parser
        if parser is None:
            if data.startswith(ACCEPTED):
                self._open(data[len(ACCEPTED) :])
                return
            parser = self._parser = ResponseParser(MAX_HEAD_BYTES)
            parser.expect(b"CONNECT")
        parser.feed(data)
        head = parser.head
        if parser.error is not None:
            self._fail(502, "BadGateway", MALFORMED, f"the answer is no HTTP: {parser.error}")
        elif head is not None and 200 <= head.status < 300:
            self._open(parser.rest)
        elif head is not None and head.status < 400:
            self._fail(502, "BadGateway", MALFORMED, f"{head.status} is no answer to a CONNECT")
        elif head is not None and (parser.complete or sum(map(len, parser.chunks)) > MAX_HEAD_BYTES):
            self._refused(head, parser)

    def _open(self, rest: bytes) -> None:
        inner = self._early if self._endpoint.early else self._build()
        if self._endpoint.answered is not None:
            self._endpoint.answered()
        if inner is None or not self._settle():
            return
        self.pass_to(inner)
        if rest:
            inner.dataReceived(rest)

    def _refused(self, head: ResponseHead, parser: ResponseParser) -> None:
        said = read_failure(b"".join(parser.chunks))
        word = (get_header(head.headers, REFUSED_HEADER.lower()) or b"").decode("latin-1")
        if word not in WORDS:
            word = _WORD_OF.get(head.status, UNREACHABLE)
        reason = said.reason or REASONS.get(head.status, "BadGateway")
        message = said.message or f"{self._endpoint.target}: {head.status} {head.reason.decode('latin-1')}"
        self._end(Failure(ConnectRefused(head.status, reason, word, message)))

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
        elif self._parser is not None and self._parser.head is not None:
            self._refused(self._parser.head, self._parser)
        else:
            self._fail(502, "BadGateway", UNREACHABLE, "the stream ended without an answer")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.inner is not None:
            self.inner.connectionLost(reason)
        elif self._waiting and self._early is not None and reason.check(ConnectionDone, ConnectionAborted):
            self._end(reason, lost=True)
        elif self._waiting:
            why = f"{self._endpoint.target}: the stream was lost before an answer: {why_lost(reason)}"
            self._end(Failure(ConnectRefused(502, "BadGateway", NOT_CONNECTED, why)), lost=True)
