"""
A node on loopback for the tests of the server's HTTP doors: a kubelet-like server, an agent on a real link, and clients that see
what goes over the wire.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from prometheus_client import CollectorRegistry
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests import certs
from tests.http.memory import Recorder
from yurt.http.dial import Build, tls_factory
from yurt.http.interfaces import IncomingRequest, ResponseHead
from yurt.http.limits import ServerLimits
from yurt.http.response_parser import ResponseParser
from yurt.http.server import HTTPServerFactory
from yurt.kube.api import ApiError
from yurt.listening import BACKLOG
from yurt.mux.connection import MuxConnection, MuxStream
from yurt.tls import ClientTLS, Credentials, ServerTLS
from yurt.tunnel.answering import read_connect
from yurt.tunnel.connect import ConnectRefused
from yurt.tunnel.opening import StreamEndpoint
from yurt.tunnel.server.authentication import Authenticator, Entrance
from yurt.tunnel.server.authorisation import Authoriser
from yurt.tunnel.server.front import Front
from yurt.tunnel.server.metrics import ServerMetrics
from yurt.tunnel.server.node import Node
from yurt.tunnel.server.nodes import Nodes
from yurt.tunnel.server.ports import LivePorts, Ports
from yurt.tunnel.server.refusals import Refusals
from yurt.tunnel.server.registry import Agent, Registry
from yurt.tunnel.server.upstreams import Upstreams
from yurt.tunnel.server.ways import Ways
from yurt.tunnel.splice import Splice

reactor: Any = _reactor

NODE_IP = "10.0.0.8"
PIECE = bytes(64 * 1024)


class FakeApi:
    """
    Reviews tokens and accesses as the test says; ``asked`` counts.
    """

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Any]] = {}
        self.allowed: Callable[[dict[str, Any]], bool] = lambda spec: False
        self.error: ApiError | None = None
        self.asked: list[dict[str, Any]] = []

    async def create(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        """
        See :class:`yurt.kube.api.ApiClient`.
        """
        self.asked.append(document)
        if self.error is not None:
            raise self.error
        if path.endswith("/tokenreviews"):
            user = self.users.get(document["spec"]["token"])
            return {**document, "status": {"authenticated": user is not None, **({"user": user} if user else {})}}
        assert path.endswith("/subjectaccessreviews"), path
        allowed = self.allowed(document["spec"])
        return {**document, "status": {"allowed": allowed, **({} if allowed else {"reason": "no rule allows it"})}}


class FakePods:
    """
    Pods by name.
    """

    def __init__(self) -> None:
        self.nodes: dict[tuple[str, str], str] = {}

    def node_of_pod(self, namespace: str, name: str) -> Deferred[str]:
        """
        See :class:`yurt.tunnel.server.pods.Pods`.
        """
        node = self.nodes.get((namespace, name))
        return fail(ApiError(404, "NotFound", f'pods "{name}" not found')) if node is None else succeed(node)


class FakeNodes:
    """
    In the place of the informer on nodes.
    """

    synced = True
    problem: str | None = None
    changed: Callable[[str, Node | None, Node | None], object]

    def subscribe(self, callback: Callable[[str, Node | None, Node | None], object]) -> None:
        """
        See :class:`yurt.kube.informer.Informer`.
        """
        self.changed = callback


class Kubelet:
    """
    Answers like a kubelet: at once, chunk by chunk as the test says, after an upload, or by an upgrade.
    """

    def __init__(self) -> None:
        self.requests: list[IncomingRequest] = []
        self.lost: list[bytes] = []
        self.uploads: list[Upload] = []
        self.ended: list[bytes] = []

    def handle(self, request: IncomingRequest) -> None:
        """
        See :class:`yurt.http.interfaces.Application`.
        """
        self.requests.append(request)
        path = request.head.target.partition(b"?")[0]
        request.when_lost(lambda: self.lost.append(path))
        if request.upgrade:
            self.upgrade(request, path)
        elif path.startswith(b"/containerLogs") or path == b"/held":
            request.start(ResponseHead(200, b"OK", [(b"Content-Type", b"text/plain")]))
        elif path == b"/silent":
            pass
        elif path == b"/trailers":
            request.start(ResponseHead(200, b"OK", [(b"Trailer", b"X-Sum")]))
            request.write(b"body")
            request.finish([(b"X-Sum", b"4")])
        elif path == b"/flood":
            Flood(request)
        elif request.has_body:
            request.read_body(Upload(self, request))
        else:
            self.tell(request, b"")

    def tell(self, request: IncomingRequest, body: bytes) -> None:
        """
        Answer with what was asked, and by whom.
        """
        shown = request.client_certificate
        told = {
            "method": request.head.method.decode(),
            "target": request.head.target.decode(),
            "headers": {name.decode().lower(): value.decode() for name, value in request.head.headers},
            "caller": None if shown is None else shown.subject.rfc4514_string(),
            "size": len(body),
        }
        request.respond(200, [(b"Content-Type", b"application/json"), (b"X-Kubelet", b"yes")], json.dumps(told).encode())

    def upgrade(self, request: IncomingRequest, path: bytes) -> None:
        """
        Echo, or with /exec/deaf read nothing.
        """
        fields = [(b"Connection", b"Upgrade"), (b"Upgrade", b"SPDY/3.1"), (b"X-Stream-Protocol-Version", b"v4.channel.k8s.io")]
        stream = request.accept_upgrade(ResponseHead(101, b"Switching Protocols", fields))
        if b"deaf" in path:
            return
        taker = Recorder()
        taker.bytes_received = stream.write  # type: ignore[method-assign]
        taker.bytes_finished = stream.finish  # type: ignore[method-assign]
        taker.bytes_lost = lambda: self.ended.append(path)  # type: ignore[method-assign]
        stream.attach(taker, stream)


class Upload(Recorder):
    """
    Takes a body; with /held-upload in the path not before the test says so.
    """

    def __init__(self, kubelet: Kubelet, request: IncomingRequest) -> None:
        super().__init__()
        self.size = 0
        self.kubelet = kubelet
        self.request = request
        kubelet.uploads.append(self)

    def body_received(self, data: bytes) -> None:
        self.size += len(data)
        if self.request.head.target == b"/held-upload" and self.size == len(data):
            cast(Any, self.request).pause()

    def body_finished(self, trailers: Any) -> None:
        self.kubelet.tell(self.request, bytes(self.size))


class Flood:
    """
    Sends without end, as fast as it may.
    """

    def __init__(self, request: IncomingRequest) -> None:
        self.request = request
        self.sent = 0
        self.running = False
        self.over = False
        request.start(ResponseHead(200, b"OK"))
        request.produce_from(self)
        request.when_lost(self.stop)
        self.all.append(self)
        self.resume()

    all: list[Flood] = []

    def stop(self) -> None:
        self.over = True
        self.running = False

    def pause(self) -> None:
        self.running = False

    def resume(self) -> None:
        if not (self.running or self.over):
            self.running = True
            self.go()

    def go(self) -> None:
        if self.running:
            self.sent += len(PIECE)
            self.request.write(PIECE)
            reactor.callLater(0, self.go)


class Client(Protocol):
    """
    A client that sends bytes and keeps what comes.
    """

    def __init__(self) -> None:
        self.data = b""
        self.size = 0
        self.is_lost = False
        self.lost: Deferred[None] = Deferred()
        self.reason: BaseException | None = None

    @property
    def wire(self) -> Any:
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)
        if len(self.data) < 1_000_000:
            self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True
        self.reason = reason.value
        self.lost.callback(None)


@dataclass
class Answer:
    """
    A whole response.
    """

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def parse(data: bytes, method: bytes = b"GET") -> Answer | None:
    """
    The response that ``data`` begins with, None if it is not whole.
    """
    parser = ResponseParser()
    parser.expect(method)
    parser.feed(data)
    if parser.error is not None:
        raise AssertionError(f"{parser.error}: {data[:500]!r}")
    if not parser.complete or parser.head is None:
        return None
    headers = {name.decode().lower(): value.decode() for name, value in parser.head.headers}
    return Answer(parser.head.status, parser.head.reason.decode(), headers, b"".join(parser.chunks))


class MiniAgent:
    """
    What an agent does with a stream, and nothing else.
    """

    def __init__(self) -> None:
        self.dials: list[str] = []
        self.sockets: set[Splice] = set()
        self.refusal: ConnectRefused | None = None
        self.holds = False

    def accept(self, stream: MuxStream) -> None:
        """
        Serve a stream.
        """
        Deferred.fromCoroutine(self.serve(stream)).addErrback(lambda failure: failure.trap(ConnectRefused))

    async def serve(self, stream: MuxStream) -> None:
        """
        Dial, or refuse as the test says.
        """
        incoming = await read_connect(reactor, stream)
        self.dials.append(incoming.authority)
        if self.holds:
            return
        if self.refusal is not None:
            refusal = self.refusal
            incoming.refuse(refusal.status, refusal.reason, refusal.word, refusal.message)
            return
        splice = Splice()
        try:
            endpoint = TCP4ClientEndpoint(reactor, incoming.host, incoming.port)
            await endpoint.connect(cast(IProtocolFactory, Build(lambda _: splice.left)))
        except Exception as error:
            incoming.refuse(502, "BadGateway", "refused", f"{incoming.authority}: {error}")
            return
        self.sockets.add(splice)
        splice.done.addCallback(lambda _: self.sockets.discard(splice))
        incoming.accept(splice.right)


class EdgeCase(TestCase):
    """
    A front with its three entrances, and node edge-1 behind a link.
    """

    timeout = 180
    allowed_names: frozenset[str] = frozenset()
    max_requests = 100
    verify_kubelet = True

    async def setUp(self) -> None:  # type: ignore[override]
        self.ca = certs.make_ca()
        self.server_identity = certs.issue(self.ca, "system:node:tunnel-server", ips=["127.0.0.1"])
        self.kubelet = Kubelet()
        Flood.all.clear()
        self.kubelet_ca = certs.make_ca("kubelets")
        self.kubelet_port = await self.serve_kubelet(self.kubelet_ca, NODE_IP)
        self.plain_port = await self.listen(self.http(self.kubelet))
        await self.make_front()
        await self.connect_agent()

    def http(self, application: Any, door: object = None, **how: Any) -> HTTPServerFactory:
        """
        An HTTP server's factory that is drained when the test ends.
        """
        factory = HTTPServerFactory(reactor, application, door, ServerLimits(linger_timeout=1.0), **how)
        self.addCleanup(factory.drain, 0.05)
        return factory

    def server_tls(self, authority: certs.Authority, identity: certs.Identity, factory: HTTPServerFactory) -> Factory:
        """
        TLS around it, which asks for a certificate of ``authority``.
        """
        tls = ServerTLS(Credentials(ca_data=authority.cert_pem, cert_data=identity.cert_pem, key_data=identity.key_pem))
        return cast(Factory, tls_factory(tls, False, cast(IProtocolFactory, factory)))

    async def serve_kubelet(self, authority: certs.Authority, address: str) -> int:
        """
        The kubelet's TLS port; its certificate is for ``address``.
        """
        identity = certs.issue(authority, "system:node:edge-1", ["system:nodes"], ips=[address])
        self.kubelet_factory = self.http(self.kubelet)
        return await self.listen(self.server_tls(self.ca, identity, self.kubelet_factory))

    async def listen(self, factory: Factory) -> int:
        """
        Listen until the test ends.
        """
        port = await TCP4ServerEndpoint(reactor, 0, BACKLOG, interface="127.0.0.1").listen(cast(IProtocolFactory, factory))
        self.addCleanup(port.stopListening)
        return int(cast(Any, port.getHost()).port)

    async def make_front(self) -> None:
        """
        The front and its entrances by TLS and in plain text.
        """
        self.scraped = CollectorRegistry()
        refusals = Refusals(reactor, ServerMetrics(self.scraped, "1"))
        self.informer = FakeNodes()
        self.nodes = Nodes(cast(Any, self.informer))
        self.node = Node("edge-1", (NODE_IP,), NODE_IP, kubelet_port=self.kubelet_port, has_agent=True, edge=True, ready=True)
        self.informer.changed("edge-1", None, self.node)
        self.ports = LivePorts()
        both = frozenset({self.kubelet_port, self.plain_port})
        self.ports.ports = Ports(http=frozenset({self.plain_port}), localhost=both)
        self.registry = Registry()
        self.ways = Ways(reactor, self.registry, self.open_stream, refusals, is_node=self.is_node, now=reactor.seconds)
        self.api, self.pods = FakeApi(), FakePods()
        client = certs.issue(self.ca, "tunnel-proxy-client", ["openyurt:yurttunnel"])
        credentials = Credentials(cert_data=client.cert_pem, key_data=client.key_pem)
        if self.verify_kubelet:
            credentials = replace(credentials, ca_data=self.kubelet_ca.cert_pem)
        self.upstreams = Upstreams(reactor, self.ways, credentials)
        self.addCleanup(self.upstreams.close)
        self.front = Front(
            reactor,
            ways=self.ways,
            nodes=self.nodes,
            ports=self.ports,
            pods=self.pods,
            authenticator=Authenticator(reactor, self.api),
            authoriser=Authoriser(reactor, self.api, self.allowed_names),
            upstreams=self.upstreams,
            refusals=refusals,
            max_requests=self.max_requests,
        )
        failed = self.front.handshake_failed
        secure = self.http(self.front, Entrance.TLS, takes_connect=True, handshake_failed=failed)
        self.secure_port = await self.listen(self.server_tls(self.ca, self.server_identity, secure))
        self.insecure_port = await self.listen(self.http(self.front, Entrance.PLAIN, takes_connect=True))

    def is_node(self, name: str) -> bool:
        """
        Whether the cluster has it.
        """
        return self.nodes.by_name(name) is not None

    def open_stream(self, carrier: Any, host: str, port: int, **how: Any) -> StreamEndpoint:
        """
        As the server makes it.
        """
        return StreamEndpoint(carrier, host, port, reactor=reactor, **how)

    async def connect_agent(self) -> None:
        """
        A link between the server and an agent of edge-1.
        """
        self.agent = MiniAgent()
        links: list[MuxConnection] = []
        gone: list[Exception] = []

        def link(client: bool, accept: Callable[[MuxStream], None]) -> MuxConnection:
            links.append(MuxConnection(reactor, client=client, accept=accept, lost=gone.append))
            return links[-1]

        port = await self.listen(Build(lambda _: link(False, lambda stream: stream.abortConnection())))
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), link(True, self.agent.accept))
        await self.until(lambda: len(links) == 2 and links[1].connected)
        self.link = links[1]
        self.addCleanup(self.until, lambda: len(gone) == 2)
        self.addCleanup(self.link.abort, "the test is over")
        self.registration = Agent("edge-1", self.link)
        self.registry.add(self.registration)

    async def until(self, condition: Callable[[], object]) -> None:
        """
        Wait for a condition; the time limit of the test bounds it.
        """
        while not condition():
            await deferLater(reactor, 0.005)

    async def ends_with(self, client: Client, data: bytes) -> None:
        """
        Wait for the end of what a client got.
        """
        await self.until(lambda: client.data.endswith(data))

    # Clients

    async def client(self, identity: certs.Identity | None = None, *, tls: bool = True) -> Client:
        """
        A connection to the server: by TLS with a certificate or none, or in plain text.
        """
        endpoint: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", self.secure_port if tls else self.insecure_port)
        if tls:
            credentials = Credentials(ca_data=self.ca.cert_pem)
            if identity is not None:
                credentials = replace(credentials, cert_data=identity.cert_pem, key_data=identity.key_pem)
            endpoint = wrapClientTLS(ClientTLS(credentials).creator("127.0.0.1"), endpoint)
        client = cast(Client, await connectProtocol(endpoint, Client()))
        self.addCleanup(lambda: client.lost if not client.is_lost else None)
        self.addCleanup(lambda: client.is_lost or client.wire.abortConnection())
        return client

    def head(self, target: str, host: str = "", method: str = "GET", **headers: str) -> bytes:
        """
        A request's head; Host is the kubelet on edge-1 unless given.
        """
        fields = {"Host": host or f"edge-1:{self.kubelet_port}", **{name.replace("_", "-"): v for name, v in headers.items()}}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode()

    async def ask(self, client: Client, data: bytes) -> Answer:
        """
        Send a request; the whole answer.
        """
        client.data = b""
        client.wire.write(data)
        method = data.partition(b" ")[0]
        await self.until(lambda: client.is_lost or parse(client.data, method) is not None)
        answer = parse(client.data, method)
        assert answer is not None, client.data
        return answer

    def sample(self, name: str, **labels: str) -> float | None:
        """
        A sample of the metrics, its name without prefix.
        """
        return self.scraped.get_sample_value(f"yurttunnel_server_{name}", labels)
