"""
Ways to a server: TCP, through an HTTP proxy's CONNECT, TLS over either.  All hand-shakes happen in here; the caller gets
a connection that is ready to carry a request, or an error that says at which step the way ended.
"""

from __future__ import annotations

import socket
from base64 import b64encode
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.connected import Connected
from yurt.http.address import Address, parse_proxy
from yurt.http.heads import serialise_request
from yurt.http.interfaces import Headers, RequestHead, UpstreamError
from yurt.http.records import RecordProtocol
from yurt.http.response_parser import ResponseParser
from yurt.http.wire import tune


def tcp_endpoint(reactor: Any, host: str, port: int, timeout: float) -> IStreamClientEndpoint:
    """
    TCP to a name or an address.
    """
    if isIPAddress(host):
        return TCP4ClientEndpoint(reactor, host, port, timeout)
    if isIPv6Address(host):
        return TCP6ClientEndpoint(reactor, host, port, timeout)
    return _NamedEndpoint(reactor, host, port, timeout)


class _NamedEndpoint(HostnameEndpoint):
    """
    Takes any name that can be looked up: Twisted calls one with an underscore invalid, though hosts files and containers have
    such names.  One that cannot is unknown, as one that nobody has.
    """

    @staticmethod
    def _hostAsBytesAndText(host: bytes | str) -> tuple[bool, bytes, str]:
        assert isinstance(host, str)
        try:
            name = host.encode("idna")
        except UnicodeError:
            return True, host.encode("ascii", "backslashreplace"), host
        return False, name, name.decode("ascii")

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        See :class:`IStreamClientEndpoint`.
        """
        if self._badHostname:
            return fail(DNSLookupError(f"{self._hostText!r} is no name"))
        return super().connect(protocolFactory)


def connect_at_once(host: str, port: int) -> socket.socket | None:
    """
    A connection to an address of this very host, made without a turn of the reactor.  None when that cannot be, which is no
    failure: an endpoint finds out why, and waits where it helps.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        handle = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError:
        return None
    # The first call leaves before the kernel has taken its own answer, the second one finds it there.
    if handle.connect_ex((host, port)) and handle.connect_ex((host, port)):
        handle.close()
        return None
    return handle


def adopt(reactor: Any, handle: socket.socket, host: str, port: int, protocol: Protocol, *, at_once: int) -> None:
    """
    Give ``protocol`` what :func:`connect_at_once` has connected to ``host`` and ``port``; ``at_once`` as in
    :func:`yurt.http.wire.tune`.
    """
    peer = (host, port, 0, 0) if ":" in host else (host, port)
    wire = Connected(handle, peer, reactor)
    tune(wire, at_once=at_once)
    wire.begin(cast(IProtocol, protocol))


@implementer(IStreamClientEndpoint)
class ConnectEndpoint:
    """
    Through an HTTP proxy: ``connect`` fires when the proxy has opened the way to ``target`` (host:port).

    Basic credentials come from the user information of the proxy's URL, and are shown nowhere.
    """

    def __init__(self, reactor: Any, proxy: str, target: str, timeout: float) -> None:
        parts = urlsplit(proxy)
        address = parse_proxy(proxy)
        self._endpoint = tcp_endpoint(reactor, address.host, address.port, timeout)
        self._target = target
        self.name = address.target
        self._asked = target.encode("ascii" if target.isascii() else "idna")
        self._headers: Headers = [(b"Host", self._asked)]
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._headers.append((b"Proxy-Authorization", b"Basic " + b64encode(pair)))

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        See :class:`IStreamClientEndpoint`.  Fails with :class:`UpstreamError` when the proxy refuses.
        """
        head = RequestHead(b"CONNECT", self._asked, self._headers)
        opening: list[_Opening] = []

        def cancel(_: Deferred[IProtocol]) -> None:
            dialling.cancel()
            for protocol in opening:
                protocol.abandon()

        opened: Deferred[IProtocol] = Deferred(cancel)

        def build(addr: IAddress | None) -> _Opening:
            protocol = _Opening(serialise_request(head), protocolFactory, addr, opened, self.name, self._target)
            opening.append(protocol)
            return protocol

        dialling = self._endpoint.connect(cast(IProtocolFactory, Build(build)))
        dialling.addErrback(lambda failure: None if opened.called else opened.errback(failure))
        return opened


class Build(Factory):
    """
    A factory around a function.
    """

    noisy = False

    def __init__(self, build: Callable[[IAddress | None], Protocol]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """
        What the function makes.
        """
        return self._build(addr)


class _Opening(Protocol):
    """
    Sends CONNECT; after the proxy agreed it is nothing but a pass-through to the caller's protocol.
    """

    def __init__(
        self,
        request: bytes,
        factory: IProtocolFactory,
        addr: IAddress | None,
        opened: Deferred[IProtocol],
        name: str,
        target: str,
    ) -> None:
        self._request = request
        self._factory = factory
        self._addr = addr
        self._opened = opened
        self._name = name
        self._target = target
        self._inner: IProtocol | None = None
        self._parser = ResponseParser()
        self._parser.expect(b"CONNECT")

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        parser = self._parser
        parser.feed(data)
        head = parser.head
        if parser.error is not None:
            self._fail(f"answered with what is no HTTP: {parser.error}")
        elif head is not None and not 200 <= head.status < 300:
            self._fail(f"answered {head.status} {head.reason.decode('latin-1')}")
        elif head is not None:
            self._open(parser.rest)

    def _open(self, rest: bytes) -> None:
        inner = self._factory.buildProtocol(cast(IAddress, self._addr))
        if inner is None:
            self._fail("opened the way, but nobody wants it any more")
            return
        self._inner = inner
        self.dataReceived = inner.dataReceived  # type: ignore[method-assign]  # a pass-through costs nothing so
        inner.makeConnection(cast(ITransport, self.transport))
        if not self._opened.called:
            self._opened.callback(inner)
        if rest:
            inner.dataReceived(rest)

    def _fail(self, why: str) -> None:
        self.abandon()
        if not self._opened.called:
            error = UpstreamError(f"proxy {self._name} {why} when asked for {self._target}", sent=False)
            self._opened.errback(Failure(error))

    def abandon(self) -> None:
        """
        Nobody wants this connection any more.
        """
        if self.transport is not None:
            cast(Any, self.transport).abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        else:
            self._fail("closed the connection")


def dial(
    reactor: Any,
    address: Address,
    factory: Factory,
    creator: IOpenSSLClientConnectionCreator | None,
    proxy: str | None,
    timeout: float,
    endpoint: IStreamClientEndpoint | None = None,
) -> Deferred[IProtocol]:
    """
    Connect, by ``endpoint`` if there is one; with ``creator`` speak TLS.  The Deferred fires with the protocol, which may still
    be shaking hands.
    """
    if endpoint is None:
        endpoint = _endpoint(reactor, address, proxy, timeout)
    if creator is not None:
        return _connect_tls(endpoint, factory, creator)
    return endpoint.connect(cast(IProtocolFactory, factory))


def _endpoint(reactor: Any, address: Address, proxy: str | None, timeout: float) -> IStreamClientEndpoint:
    if proxy is None:
        return tcp_endpoint(reactor, address.host, address.port, timeout)
    return ConnectEndpoint(reactor, proxy, address.target, timeout)


class _TLSFactory(TLSMemoryBIOFactory):
    """
    Makes them; none where the factory beneath wants no further connection, which Twisted's own would wrap nevertheless.
    """

    protocol = RecordProtocol

    def buildProtocol(self, addr: IAddress | None) -> Any:
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else self.protocol(self, wrapped)


def tls_factory(creator: Any, is_client: bool, factory: IProtocolFactory) -> IProtocolFactory:
    """
    What ``wrapClientTLS`` and ``wrapServerTLS`` put around a factory, but for a transport that sends each write at once instead
    of collecting small ones until the next turn of the reactor: heads are written in one piece with what follows as it is.
    """
    return cast(IProtocolFactory, _TLSFactory(creator, is_client, factory))


def _connect_tls(
    endpoint: IStreamClientEndpoint, factory: Factory, creator: IOpenSSLClientConnectionCreator
) -> Deferred[IProtocol]:
    connecting = endpoint.connect(tls_factory(creator, True, cast(IProtocolFactory, factory)))
    return connecting.addCallback(lambda protocol: cast(TLSMemoryBIOProtocol, protocol).wrappedProtocol)
