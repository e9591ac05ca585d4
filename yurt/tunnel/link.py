"""
A link from end to end: TCP, TLS 1.3, the hello; then nothing but a pass-through to the mux.  docs/tunnel-protocol.md,
sections 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from math import inf
from typing import Any, cast

from cryptography import x509
from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectingCancelledError, ConnectionDone
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IProtocolFactory, IReactorTime, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.http.address import parse_proxy
from yurt.http.dial import Build, ConnectEndpoint, tcp_endpoint
from yurt.http.failures import describe
from yurt.http.interfaces import UpstreamError
from yurt.http.wire import STREAM_AT_ONCE, tune
from yurt.mux.connection import MuxConnection, MuxLimits, why_lost
from yurt.sockets import is_left, tcp_of
from yurt.tls import ClientTLS, peer_certificate, valid_until
from yurt.tunnel.connect import DIAL_ERRORS, MALFORMED, TIMEOUT, UNREACHABLE, authority, dial_failure
from yurt.tunnel.hello import (
    AgentHello,
    AnswerReader,
    HelloError,
    HelloReader,
    Refusal,
    ServerHello,
    serialise_answer,
    serialise_hello,
)
from yurt.tunnel.records import LinkTransport, link_factory

HELLO_TIMEOUT = 10.0
"""Seconds within which the TLS hand-shake and the hello must be over, on either side."""

DEAD_AFTER = MuxLimits().dead_after
"""Seconds after which the kernel gives up on bytes that nobody acknowledges; pings find the other silences."""


TLS, CLOSED, REJECTED = "tls", "closed", "rejected"
"""Words for why there is no link, beside those of CONNECT."""

_ALERTS = {
    "protocol version": "the server speaks no TLS 1.3, or has no certificate to show yet; its /v1/readyz tells",
    "unknown ca": "the server does not take this side's certificate, which is not of its --client-ca-file",
    "certificate expired": "the server does not take this side's certificate, which has expired, or its clock is wrong",
    "bad certificate": "the server does not take this side's certificate",
    "unsupported certificate": "the server does not take this side's certificate, which is not meant for clients",
    "certificate required": "the server wants a certificate, and this side showed none",
}
"""What a server means that ends TLS with an alert, by OpenSSL's words for it (RFC 8446, section 6.2)."""


class LinkError(Exception):
    """
    There is no link; the message says what failed, at which address, and why.

    ``word`` says why for metrics, ``retry_after`` in how many seconds the server wants to be asked again; ``answered`` is true
    when a server did answer, so that coming again at once would not help, ``silent`` when something took the connection and then
    said nothing: that has been waited for already.
    """

    def __init__(
        self, message: str, *, word: str, retry_after: float | None = None, answered: bool = False, silent: bool = False
    ) -> None:
        super().__init__(message)
        self.word = word
        self.retry_after = retry_after
        self.answered = answered
        self.silent = silent


@dataclass(frozen=True, slots=True)
class LinkAccepted:
    """
    What a server does with a hello that it takes: its own answer, and what makes the mux.
    """

    server_id: str
    features: frozenset[str]
    make: Callable[[], MuxConnection]


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """
    A link that was dialled: what the server said, and where it is.
    """

    server_id: str
    server: str
    features: frozenset[str]
    peer: IAddress
    mux: MuxConnection
    valid_until: float = inf
    """When the first of both sides' certificates expires, by the time of day."""


class _Link(Protocol):
    """
    Either end, until the mux takes over.
    """

    mux: MuxConnection | None = None
    timer: IDelayedCall | None = None
    over = False

    def hand_over(self, mux: MuxConnection, rest: bytes) -> None:
        """
        Let ``mux`` have the transport, and all events from now on.
        """
        self.end_timer()
        self.mux = mux
        self.dataReceived = mux.dataReceived  # type: ignore[method-assign]  # a pass-through costs nothing so
        if isinstance(self.transport, LinkTransport):
            self.transport.shrink()
            tcp_of(self.transport).protocol = self.transport  # the endpoint's wrapper has done its work
        mux.makeConnection(cast(ITransport, self.transport))
        if rest:
            mux.dataReceived(rest)

    def end_timer(self) -> None:
        """
        The hello is over.
        """
        if self.timer is not None and self.timer.active():
            self.timer.cancel()

    def abort(self) -> None:
        """
        Reset the connection.
        """
        self.over = True
        if self.connected:
            cast(Any, self.transport).abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.connected = 0
        self.end_timer()
        if self.mux is not None:
            self.mux.connectionLost(reason)
        elif not self.over:
            self.over = True
            self.lost_early(reason)

    def lost_early(self, reason: Failure) -> None:
        """
        The connection ended before the hello was over.
        """


class AcceptingLink(_Link):
    """
    The server's end.  Its transport speaks TLS and demands a client certificate.

    ``accept`` is asked once, when the hello is there: whether to take the link, and what makes its mux.
    """

    log = Logger()

    def __init__(
        self, reactor: IReactorTime, accept: Callable[[AgentHello, x509.Certificate, IAddress], LinkAccepted | Refusal]
    ) -> None:
        self._reactor = reactor
        self._accept = accept
        self._reader = HelloReader()

    def connectionMade(self) -> None:
        if is_left(self.transport):  # given up while it waited to be accepted: no hand-shake is begun
            self.abort()
            return
        tune(self.transport, dead_after=DEAD_AFTER, at_once=STREAM_AT_ONCE, read=STREAM_AT_ONCE)
        self.timer = self._reactor.callLater(HELLO_TIMEOUT, self.abort)

    def dataReceived(self, data: bytes) -> None:
        if self.over:
            return
        hello = self._reader.feed(bytes(data))
        if isinstance(hello, Refusal):
            self.refuse(hello)
        elif hello is not None:
            self._greet(hello)

    def _greet(self, hello: AgentHello) -> None:
        transport = cast(ITransport, self.transport)
        certificate = peer_certificate(transport)
        if certificate is None:
            self.refuse(Refusal(403, "Forbidden", "a client certificate is required"))
            return
        until = certificate.not_valid_after_utc
        if until < datetime.now(timezone.utc):  # TLS does not look when it resumes a session
            self.refuse(Refusal(403, "Forbidden", f"the certificate has expired at {until:%Y-%m-%dT%H:%M:%SZ}"))
            return
        answer = self._accept(hello, certificate, transport.getPeer())
        if isinstance(answer, Refusal):
            self.refuse(answer)
            return
        features = answer.features & hello.features
        transport.write(serialise_answer(ServerHello(answer.server_id, features=features)))
        self.hand_over(answer.make(), self._reader.rest)
        del self._reader  # a server holds thousands of idle links

    def refuse(self, refusal: Refusal) -> None:
        """
        Answer with a refusal, and close.
        """
        self.over = True
        transport = cast(ITransport, self.transport)
        self.log.debug("{peer}: refused: {why}", peer=transport.getPeer(), why=refusal.message)
        transport.write(serialise_answer(refusal))
        transport.loseConnection()

    def lost_early(self, reason: Failure) -> None:
        if reason.check(SSL.Error):
            self.log.info("{peer}: no link: {why}", peer=cast(ITransport, self.transport).getPeer(), why=describe(reason))


async def dial_link(
    reactor: Any,
    host: str,
    port: int,
    tls: ClientTLS,
    hello: AgentHello,
    *,
    make: Callable[[ServerHello], MuxConnection],
    timeout: float = HELLO_TIMEOUT,
    address: str | None = None,
    connect_timeout: float | None = None,
    proxy: str | None = None,
    silent: Callable[[], object] | None = None,
) -> LinkInfo:
    """
    Connect to the server at ``host:port``, whose certificate must name ``host``; ``address`` is one of the host's
    addresses that is to be dialled instead of looking the name up, ``proxy`` the URL of an HTTP proxy that leads there.

    TCP must be there within ``connect_timeout`` (``timeout`` if not given; of a proxy's answer, within that in any case), TLS
    and the hello within ``timeout`` after that, and none of their bytes may remain unacknowledged for as long as TCP may take: a
    line that was cut behind its first packets is tried anew as soon as one that was cut before.  ``silent`` is called if nothing
    at all was heard for as long, once TCP was there, and if a proxy has not answered after as long.  Raises :exc:`LinkError`.
    """
    where = authority(host, port) if address in (None, host) else f"{authority(host, port)} ({address})"
    if proxy is not None:
        where += f" by proxy {parse_proxy(proxy).target}"
    patience = timeout if connect_timeout is None else connect_timeout
    link = _DialledLink(reactor, where, hello, make, timeout, unheard=patience, silent=silent)
    factory = link_factory(tls.creator(host), True, cast(IProtocolFactory, Build(lambda _: link)))
    try:
        if proxy is None:
            await tcp_endpoint(reactor, address or host, port, patience).connect(factory)
        else:
            opening = ConnectEndpoint(reactor, proxy, authority(host, port), patience).connect(factory)
            await _listen_to(opening.addTimeout(timeout, reactor), patience, silent, reactor)
    except UpstreamError as error:
        raise LinkError(str(error), word=UNREACHABLE) from None
    except DeferredTimeout:
        raise LinkError(f"{where}: no answer within {timeout:g} s", word=TIMEOUT, silent=True) from None
    except ConnectingCancelledError:
        raise CancelledError from None
    except DIAL_ERRORS as error:
        failure = dial_failure(error, patience)
        raise LinkError(f"{where}: {failure.message}", word=failure.word) from None
    return await link.greeted


async def _listen_to(
    opening: Deferred[IProtocol], seconds: float, silent: Callable[[], object] | None, reactor: IReactorTime
) -> None:
    """
    Wait for a proxy's answer, and tell that there is none yet after so many seconds.
    """
    timer = None if silent is None else reactor.callLater(seconds, silent)
    try:
        await opening
    finally:
        if timer is not None and timer.active():
            timer.cancel()


def close_link(mux: MuxConnection) -> None:
    """
    Close a link on which no stream is open, behind all that was written.
    """
    transport = cast(Any, mux.transport)
    transport.unregisterProducer()
    transport.loseConnection()


class _DialledLink(_Link):
    """
    The dialling end.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        where: str,
        hello: AgentHello,
        make: Callable[[ServerHello], MuxConnection],
        timeout: float,
        unheard: float,
        silent: Callable[[], object] | None,
    ) -> None:
        self._reactor = reactor
        self._where = where
        self._hello = hello
        self._make = make
        self._timeout = timeout
        self._unheard = unheard
        self._silent = silent
        self._listening: IDelayedCall | None = None
        self._reader = AnswerReader()
        self.greeted: Deferred[LinkInfo] = Deferred(lambda _: self.abort())

    def connectionMade(self) -> None:
        tune(self.transport, dead_after=self._unheard, at_once=STREAM_AT_ONCE, read=STREAM_AT_ONCE)
        self.timer = self._reactor.callLater(self._timeout, self._give_up)
        if self._silent is not None:
            self._listening = self._reactor.callLater(self._unheard, self._tell_silence, self._silent)
        transport = cast(Any, self.transport)
        if not self._hello.addresses:
            self._hello = replace(self._hello, addresses=(transport.getHost().host,))
        transport.write(serialise_hello(self._hello))

    def dataReceived(self, data: bytes) -> None:
        if self.over:
            return
        try:
            answer = self._reader.feed(bytes(data))
        except HelloError as error:
            self._fail(MALFORMED, str(error), answered=True)
            return
        if isinstance(answer, Refusal):
            self._refused(answer)
        elif answer is not None:
            self._open(answer)

    @property
    def _heard(self) -> bool:
        return cast(LinkTransport, self.transport).heard

    def _tell_silence(self, silent: Callable[[], object]) -> None:
        if not self._heard:
            silent()

    def _give_up(self) -> None:
        self._fail(TIMEOUT, f"no answer to the hello within {self._timeout:g} s", silent=not self._heard)

    def end_timer(self) -> None:
        super().end_timer()
        if self._listening is not None and self._listening.active():
            self._listening.cancel()

    def _open(self, answer: ServerHello) -> None:
        tune(self.transport, dead_after=DEAD_AFTER, at_once=STREAM_AT_ONCE, read=STREAM_AT_ONCE)
        mux = self._make(answer)
        self.hand_over(mux, self._reader.rest)
        transport, features = cast(ITransport, self.transport), answer.features & self._hello.features
        until = valid_until(transport)
        self.greeted.callback(LinkInfo(answer.server_id, answer.server, features, transport.getPeer(), mux, until))

    def _refused(self, refusal: Refusal) -> None:
        why = f"refused: {refusal.message}"
        self._fail(REJECTED, why, retry_after=refusal.retry_after, answered=True)

    def _fail(self, word: str, why: str, **how: Any) -> None:
        self.end_timer()
        self.abort()
        if not self.greeted.called:
            self.greeted.errback(Failure(LinkError(f"{self._where}: {why}", word=word, **how)))

    def lost_early(self, reason: Failure) -> None:
        refusal = self._reader.end()
        if refusal is not None:
            self._refused(refusal)
        elif reason.check(SSL.Error, VerificationError, CertificateError):
            said = describe(reason)
            meaning = _ALERTS.get(said.partition(" alert ")[2])
            self._fail(TLS, f"{said}: {meaning}" if meaning else said, answered=True)
        else:
            why = "closed by the server" if reason.check(ConnectionDone) else why_lost(reason)
            self._fail(CLOSED, f"{why} before it answered the hello")
