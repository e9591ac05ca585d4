"""
A tunnel server on loopback, with agents that dial it and what they lead to.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests.certs import Authority, Identity, issue, make_ca
from tests.ports import free_port
from yurt.host.destination import Destination
from yurt.http.dial import Build, tcp_endpoint
from yurt.mux.connection import MuxConnection, MuxStream
from yurt.tls import TLS1_3, ClientTLS, Credentials
from yurt.tunnel.answering import read_connect
from yurt.tunnel.connect import ConnectRefused, authority
from yurt.tunnel.hello import SERVER_NAME, AgentHello
from yurt.tunnel.link import LinkInfo, dial_link
from yurt.tunnel.server.config import TunnelServerConfig
from yurt.tunnel.server.service import TunnelServer
from yurt.tunnel.splice import Splice

LOOPBACK = "127.0.0.1"
PATIENCE = 60.0
"""Seconds that a test waits for a condition before it fails."""


async def until(reactor: Any, condition: Callable[[], object]) -> None:
    """
    Wait for a condition.
    """
    deadline = reactor.seconds() + PATIENCE
    while not condition():
        if reactor.seconds() > deadline:
            raise AssertionError("the condition did not come true")
        await deferLater(reactor, 0.002)


@implementer(IHalfCloseableProtocol)
class Client(Protocol):
    """
    A connection that keeps what it gets.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False
        self.lost: Failure | None = None

    @property
    def wire(self) -> Any:
        """
        The transport.
        """
        return self.transport

    async def receives(self, data: bytes) -> None:
        """
        Wait until exactly this has come.
        """
        await until(self.wire.reactor, lambda: self.data == data)

    async def is_ended(self) -> None:
        """
        Wait for the end of what comes.
        """
        await until(self.wire.reactor, lambda: self.ended)

    async def is_lost(self) -> None:
        """
        Wait for the end of the connection.
        """
        await until(self.wire.reactor, lambda: self.lost)

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def readConnectionLost(self) -> None:
        self.ended = True

    def writeConnectionLost(self) -> None:
        """
        Closed here.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


@implementer(IHalfCloseableProtocol)
class Echo(Protocol):
    """
    Sends back what comes, and ends when the other side does.
    """

    def connectionMade(self) -> None:
        wire = cast(Any, self.transport)
        wire.registerProducer(wire, True)

    def dataReceived(self, data: bytes) -> None:
        cast(Any, self.transport).write(data)

    def readConnectionLost(self) -> None:
        wire = cast(Any, self.transport)
        wire.unregisterProducer()
        wire.loseConnection()

    def writeConnectionLost(self) -> None:
        """
        Closed here.
        """


class Agent:
    """
    An agent that connects every stream to ``target`` on loopback, whatever address was asked for; without a target it leaves
    the streams unanswered.
    """

    def __init__(self, reactor: Any, target: int | None) -> None:
        self.reactor = reactor
        self.target = target
        self.asked: list[str] = []
        self.ended: list[str] = []
        self.streams: list[MuxStream] = []
        self.link: LinkInfo | None = None

    @property
    def mux(self) -> MuxConnection:
        """
        The link's.
        """
        assert self.link is not None
        return self.link.mux

    def make(self, answer: object) -> MuxConnection:
        """
        The agent's half of a link.
        """
        return MuxConnection(self.reactor, client=True, accept=self.accept, lost=lambda why: self.ended.append(str(why)))

    def accept(self, stream: MuxStream) -> None:
        """
        Serve a stream.
        """
        self.streams.append(stream)
        if self.target is not None:
            Deferred.fromCoroutine(self.serve(stream)).addErrback(lambda failure: failure.trap(ConnectRefused, CancelledError))

    async def serve(self, stream: MuxStream) -> None:
        """
        Connect a stream, or refuse it as a real agent does.
        """
        incoming = await read_connect(self.reactor, stream)
        self.asked.append(incoming.authority)
        splice = Splice()
        assert self.target is not None
        dialling = tcp_endpoint(self.reactor, LOOPBACK, self.target, 5).connect(
            cast(IProtocolFactory, Build(lambda _: splice.right))
        )
        incoming.on_lost = dialling.cancel
        try:
            await dialling
        except CancelledError:
            return
        except Exception as error:
            incoming.refuse(502, "BadGateway", "refused", f"{incoming.authority}: {error}")
            return
        incoming.accept(cast(IProtocol, splice.left))


class Site:
    """
    A CA, servers and agents; all of it ends with the test.
    """

    def __init__(self, case: TestCase, reactor: Any) -> None:
        self.case = case
        self.reactor = reactor
        self.folder = Path(tempfile.mkdtemp(dir=os.getcwd()))
        self.ca: Authority = make_ca()
        self.destinations: dict[int, Destination] = {}
        """Where connections were going before they were diverted, by the port that they come from."""

    def credentials(self, identity: Identity) -> Credentials:
        """
        The CA and an identity.
        """
        return Credentials(ca_data=self.ca.cert_pem, cert_data=identity.cert_pem, key_data=identity.key_pem)

    def original(self, connection: socket.socket) -> Destination | None:
        """
        In the place of the kernel's connection tracking.
        """
        return self.destinations.get(connection.getpeername()[1])

    def config(self, **changes: Any) -> TunnelServerConfig:
        """
        A server's configuration, on ports that are free.
        """
        agents, secure, insecure, meta = (free_port() for _ in range(4))
        identity = issue(self.ca, SERVER_NAME, ["system:nodes"], ips=[LOOPBACK], usages=(ExtendedKeyUsageOID.SERVER_AUTH,))
        settings: dict[str, Any] = {
            "credentials": self.credentials(identity),
            "bind_addresses": (LOOPBACK,),
            "tunnel_agent_connect_port": agents,
            "secure_port": secure,
            "insecure_port": insecure,
            "meta_port": meta,
            "drain_timeout": 0.2,
        }
        return TunnelServerConfig(**{**settings, **changes})

    def server(self, **changes: Any) -> TunnelServer:
        """
        A running server.
        """
        server = TunnelServer(self.reactor, self.config(**changes), original=self.original)
        server.privilegedStartService()
        server.startService()
        self.case.addCleanup(lambda: server.stopService() if server.running else None)
        return server

    def listen(self, protocol: type[Protocol]) -> int:
        """
        A listener on loopback; its port.
        """
        factory = Factory.forProtocol(protocol)
        factory.noisy = False
        port = self.reactor.listenTCP(0, factory, interface=LOOPBACK)
        self.case.addCleanup(port.stopListening)
        return cast(int, port.getHost().port)

    async def connect(self, port: int, destination: Destination | None = None) -> Client:
        """
        A connection to a door; with ``destination`` one that was diverted.
        """
        local = free_port() if destination is not None else 0
        if destination is not None:
            self.destinations[local] = destination
        client = await self.dial(port, local)
        self.case.addCleanup(client.wire.abortConnection)
        return client

    async def dial(self, port: int, local: int = 0) -> Client:
        """
        A connection that its caller is to end; ``local`` is the port that it comes from.
        """
        endpoint = TCP4ClientEndpoint(self.reactor, LOOPBACK, port, 5, (LOOPBACK, local) if local else None)
        return cast(Client, await endpoint.connect(cast(IProtocolFactory, Build(lambda _: Client()))))

    async def agent(
        self,
        server: TunnelServer,
        node: str = "edge-1",
        target: int | None = None,
        *,
        addresses: tuple[str, ...] = ("10.0.0.8",),
        identity: Identity | None = None,
        path: str = "/v1/tunnel",
    ) -> Agent:
        """
        A connected agent.  Raises LinkError.
        """
        agent = Agent(self.reactor, target)
        identity = identity or issue(self.ca, f"system:node:{node}", ["system:nodes"])
        tls = ClientTLS(self.credentials(identity), minimum=TLS1_3)
        port = server.config.tunnel_agent_connect_port
        hello = AgentHello(authority(LOOPBACK, port), path=path, addresses=addresses)
        agent.link = await dial_link(self.reactor, LOOPBACK, port, tls, hello, make=agent.make)
        self.case.addCleanup(agent.mux.abort, "the test is over")
        return agent
