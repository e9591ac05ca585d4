"""
The other ends for tests of links over TLS on loopback: a server made of :class:`AcceptingLink` that can fail in every way, and
the certificates of both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from cryptography import x509
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests import certs
from yurt.http.dial import Build
from yurt.mux.connection import MuxConnection
from yurt.tls import TLS1_3, ClientTLS, Credentials, ServerTLS
from yurt.tunnel.hello import FEATURES, SERVER_NAME, AgentHello, Refusal, node_of
from yurt.tunnel.link import AcceptingLink, LinkAccepted
from yurt.tunnel.records import link_factory

reactor: Any = _reactor

NAME = "tunnel.test"
AUTHORITY = certs.make_ca()
SERVER = certs.issue(AUTHORITY, SERVER_NAME, dns=[NAME, "localhost"], ips=["127.0.0.1", "127.0.0.2"])
NODE = certs.issue(AUTHORITY, "system:node:edge-1", ["system:nodes"])


def credentials(identity: certs.Identity, authority: certs.Authority = AUTHORITY) -> Credentials:
    """
    Those of one side.
    """
    return Credentials(ca_data=authority.cert_pem, cert_data=identity.cert_pem, key_data=identity.key_pem)


def client_tls(identity: certs.Identity = NODE, authority: certs.Authority = AUTHORITY) -> ClientTLS:
    """
    The agent's.
    """
    return ClientTLS(credentials(identity, authority), minimum=TLS1_3)


def server_tls(identity: certs.Identity = SERVER, minimum: int = TLS1_3) -> ServerTLS:
    """
    The server's.
    """
    return ServerTLS(credentials(identity), require_client_certificate=True, minimum=minimum)


class TunnelServer:
    """
    A server: what said hello to it stands in ``hellos`` and ``nodes``, the links that are open in ``muxes``, the newest last.
    ``refusal`` is its answer, if it is to refuse.
    """

    def __init__(self, server_id: str = "server-1", tls: ServerTLS | None = None) -> None:
        self.server_id = server_id
        self.refusal: Refusal | None = None
        self.hellos: list[AgentHello] = []
        self.nodes: list[str] = []
        self.muxes: list[MuxConnection] = []
        self.lost: list[str] = []
        self.links: list[AcceptingLink] = []
        self.port = 0
        self._tls = tls or server_tls()
        self._listening: Any = None

    def start(self, interface: str = "127.0.0.1", port: int = 0) -> TunnelServer:
        """
        Listen; on the same port as before when it is started again.
        """
        factory = link_factory(self._tls, False, cast(IProtocolFactory, Build(self._build)))
        self._listening = reactor.listenTCP(port or self.port, factory, interface=interface)
        self.port = self._listening.getHost().port
        return self

    def _build(self, _: IAddress | None) -> Protocol:
        link = AcceptingLink(reactor, self._accept)
        self.links.append(link)
        return link

    def _accept(self, hello: AgentHello, certificate: x509.Certificate, peer: IAddress) -> LinkAccepted | Refusal:
        self.hellos.append(hello)
        self.nodes.append(node_of(certificate))
        return self.refusal or LinkAccepted(self.server_id, FEATURES, self._make)

    def _make(self) -> MuxConnection:
        def lost(why: Exception) -> None:
            self.lost.append(str(why))
            self.muxes.remove(mux)

        mux = MuxConnection(reactor, client=False, accept=lambda stream: stream.abortConnection(), lost=lost)
        self.muxes.append(mux)
        return mux

    @property
    def mux(self) -> MuxConnection:
        """
        The newest link that takes streams.
        """
        return [mux for mux in self.muxes if not (mux.closing or mux.peer_going_away)][-1]

    async def stop_listening(self) -> None:
        """
        Refuse connections; links stay.
        """
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stopListening()

    async def die(self) -> None:
        """
        End as a process does that is killed.
        """
        await self.stop_listening()
        for link in self.links:
            link.abort()
        self.links.clear()
        await until(lambda: not self.muxes)


class Echo(Protocol):
    """
    A kubelet that says back what it hears.
    """

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class Said(Protocol):
    """
    Notes what it hears, and can wait for it.
    """

    def __init__(self) -> None:
        self.data = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason

    def has(self, data: bytes) -> bool:
        """
        Whether that is what it heard.
        """
        return self.data == data

    def write(self, data: bytes) -> None:
        """
        Say something.
        """
        assert self.transport is not None
        self.transport.write(data)


async def until(condition: Callable[[], object]) -> None:
    """
    Look at a condition at each turn of the reactor, until it holds; the test's timeout bounds it.
    """
    while not condition():
        await deferLater(reactor, 0.002, lambda: None)


class LinkCase(TestCase):
    """
    Tests with servers on loopback.
    """

    timeout = 180

    def serve(self, server_id: str = "server-1", interface: str = "127.0.0.1", port: int = 0, **how: Any) -> TunnelServer:
        """
        A server that is gone after the test.
        """
        server = TunnelServer(server_id, **how).start(interface, port)
        self.addCleanup(lambda: Deferred.fromCoroutine(server.die()))
        return server

    def listen(self, protocol: Callable[[], Protocol], port: int = 0, interface: str = "127.0.0.1") -> int:
        """
        A plain TCP server.
        """
        accepted: list[Protocol] = []

        def build(_: IAddress | None) -> Protocol:
            accepted.append(protocol())
            return accepted[-1]

        listening = reactor.listenTCP(port, Build(build), interface=interface)

        async def end() -> None:
            await listening.stopListening()
            for one in accepted:
                transport: Any = one.transport
                transport.abortConnection()
            await until(lambda: not any(getattr(one, "connected", 0) and one.transport.connected for one in accepted))  # type: ignore[union-attr]

        self.addCleanup(lambda: Deferred.fromCoroutine(end()))
        return int(listening.getHost().port)
