"""
A plain client of an apiserver, of which nothing is taken from yurt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS, trustRootFromCertificates
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from tests.certs import Identity

PATIENCE = 90.0


@dataclass(frozen=True)
class Reply:
    """
    A whole response.
    """

    status: int
    headers: Headers
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document


class _Policy:
    """
    TLS to a server of that authority, as that user.
    """

    def __init__(self, ca: bytes, identity: Identity | None) -> None:
        self._trust = trustRootFromCertificates([Certificate.loadPEM(ca)])
        self._identity = PrivateCertificate.loadPEM(identity.key_pem + identity.cert_pem) if identity else None

    def creator(self, hostname: str) -> Any:
        return optionsForClientTLS(hostname, self._trust, self._identity)


class _Tracking(WrappingFactory[ProtocolWrapper]):
    noisy = False

    def __init__(self, wrapped: Any, connections: _Connections) -> None:
        super().__init__(wrapped)
        self._connections = connections

    def registerProtocol(self, p: ProtocolWrapper) -> None:
        super().registerProtocol(p)
        self._connections.current[p] = Deferred()

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        super().unregisterProtocol(p)
        self._connections.current.pop(p).callback(None)


@implementer(IStreamClientEndpoint)
class _TrackedEndpoint:
    def __init__(self, endpoint: Any, connections: _Connections) -> None:
        self._endpoint, self._connections = endpoint, connections

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        connected: Deferred[Any] = self._endpoint.connect(_Tracking(protocolFactory, self._connections))
        return connected.addCallback(lambda wrapper: wrapper.wrappedProtocol)


@implementer(IAgentEndpointFactory)
class _Connections:
    """
    Connects, and remembers what is connected, so that tests leave nothing behind.
    """

    def __init__(self, reactor: Any, policy: _Policy) -> None:
        self._reactor, self._policy = reactor, policy
        self.current: dict[ProtocolWrapper, Deferred[None]] = {}

    def endpointForURI(self, uri: URI) -> _TrackedEndpoint:
        plain = HostnameEndpoint(self._reactor, uri.host, uri.port)
        endpoint = wrapClientTLS(self._policy.creator(uri.host.decode()), plain) if uri.scheme == b"https" else plain
        return _TrackedEndpoint(endpoint, self)

    async def abort_all(self) -> None:
        for wrapper, lost in list(self.current.items()):
            transport: Any = wrapper.transport
            transport.abortConnection()
            await lost


@implementer(IBodyProducer)
class _Body:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._body)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


class Stream(Protocol):
    """
    An open watch: its events, in order; ``None`` says that it ended.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._rest = b""
        self._events: DeferredQueue[dict[str, Any] | None] = DeferredQueue()

    def dataReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in filter(None, lines):
            self._events.put(json.loads(line))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._events.put(None)

    @property
    def waiting(self) -> int:
        """
        How many events came that nobody took.
        """
        return len(self._events.pending)

    def next(self, patience: float = PATIENCE) -> Deferred[dict[str, Any] | None]:
        """
        The next event; fails with TimeoutError when none comes.
        """
        return self._events.get().addTimeout(patience, self._reactor)

    def close(self) -> None:
        """
        Hang up.
        """
        if self.transport is not None:
            self.transport.loseConnection()


class KubeClient:
    """
    Speaks to one apiserver as one user.
    """

    def __init__(self, reactor: Any, url: str, ca: bytes, identity: Identity | None = None, token: str = "") -> None:
        self._reactor, self._url, self._token = reactor, url, token
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._open = _Connections(reactor, _Policy(ca, identity))
        self._agent: IAgent = Agent.usingEndpointFactory(reactor, self._open, self._pool)

    async def close(self) -> None:
        """
        Break all connections, and wait until they are gone.
        """
        await self._open.abort_all()
        await self._pool.closeCachedConnections()

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Deferred[IResponse]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"accept": "application/json", **({"content-type": "application/json"} if body is not None else {}), **headers}
        if self._token:
            fields["authorization"] = f"Bearer {self._token}"
        wanted = Headers({name: [value] for name, value in fields.items()})
        producer = _Body(data) if body is not None else None
        return self._agent.request(method.encode(), (self._url + path).encode(), wanted, producer)

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """
        A request and its whole answer; ``content_type="…"`` and the like are headers.
        """
        response = await self._send(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return Reply(response.code, response.headers, await readBody(response).addTimeout(PATIENCE, self._reactor))

    async def watch(self, path: str, **headers: str) -> Stream:
        """
        Open a watch; raises AssertionError unless it is answered with 200.
        """
        response = await self._send("GET", path, None, headers)
        assert response.code == 200, await readBody(response)
        stream = Stream(self._reactor)
        response.deliverBody(stream)
        return stream
