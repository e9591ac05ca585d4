"""
Promises to who asks for connections by CONNECT, over real sockets and a real link.
"""

from __future__ import annotations

import os
import socket
import stat
from dataclasses import replace
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.error import ConnectionDone, ConnectionLost, TimeoutError
from twisted.internet.interfaces import IHalfCloseableProtocol, IHostnameResolver, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests import certs
from tests.tunnel.server.edge import NODE_IP, Answer, Client, EdgeCase, parse
from yurt.listening import StartFailed
from yurt.tls import ClientTLS, Credentials
from yurt.tunnel.connect import ConnectRefused
from yurt.tunnel.quiet import QUIET, STEP, QuietStreams
from yurt.tunnel.server import egress
from yurt.tunnel.server.authentication import Entrance
from yurt.tunnel.server.egress import EgressSocket
from yurt.tunnel.server.node import Node

reactor: Any = _reactor


@implementer(IHalfCloseableProtocol)
class Echo(Protocol):
    """
    Sends back what it gets, in capitals; ends when its peer has.
    """

    def readConnectionLost(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None: ...

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data.upper())


class SocketCase(EdgeCase):
    """
    With an egress socket.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.path = os.path.join(self.mktemp(), "egress.sock")
        factory = self.http(self.front, Entrance.EGRESS, takes_connect=True)
        self.socket = EgressSocket(reactor, self.path, cast(IProtocolFactory, factory))
        self.socket.startService()
        self.addCleanup(self.socket.stopService)

    async def unix_client(self) -> Client:
        """
        A connection to the socket.
        """
        client = cast(Client, await connectProtocol(UNIXClientEndpoint(reactor, self.path), Client()))
        self.addCleanup(lambda: client.lost if not client.is_lost else None)
        self.addCleanup(client.wire.abortConnection)
        return client

    async def connect(self, target: str, client: Client | None = None, early: bytes = b"") -> tuple[Client, Answer]:
        """
        A CONNECT as kube-apiserver sends it, and its answer.
        """
        client = client or await self.unix_client()
        client.wire.write(f"CONNECT {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() + early)
        await self.until(lambda: client.is_lost or parse(client.data, b"CONNECT") is not None)
        answer = parse(client.data, b"CONNECT")
        assert answer is not None, client.data
        return client, answer


class NodeTests(SocketCase):
    """
    Connections to nodes.
    """

    async def test_kubelet(self) -> None:
        """
        After the 200 TLS goes from end to end: the kubelet sees the caller's own certificate, and the caller the kubelet's.
        """
        client, answer = await self.connect(f"{NODE_IP}:{self.kubelet_port}")
        self.assertEqual((answer.status, client.data), (200, b"HTTP/1.1 200 OK\r\n\r\n"))
        apiserver = certs.issue(self.ca, "kube-apiserver-kubelet-client", ["system:masters"])
        credentials = Credentials(ca_data=self.kubelet_ca.cert_pem, cert_data=apiserver.cert_pem, key_data=apiserver.key_pem)
        inner = cast(Client, await connectProtocol(cast(Any, Over(client, ClientTLS(credentials))), Client()))
        told = await self.ask(inner, self.head("/pods"))
        self.assertEqual(told.json["caller"], "CN=kube-apiserver-kubelet-client,O=system:masters")
        self.assertEqual(self.sample("in_proxy_requests", verb="connect", path="/other"), 1)

    async def test_no_place(self) -> None:
        """
        What names no place cannot be connected to, and is not answered as if it were.
        """
        for target in ("*", "edge-1", "edge-1:", "edge-1:+10250", "/pods", "http://edge-1:10250/"):
            _, answer = await self.connect(target)
            self.assertEqual((answer.status, answer.headers["yurt-refused"]), (400, "malformed"), target)

    async def test_early_bytes(self) -> None:
        """
        What follows the head at once is not lost; a half-close goes through, and what comes back after it.
        """
        port = await self.listen(Factory.forProtocol(Echo))
        self.ports.ports = replace(self.ports.ports, localhost=frozenset({port}))
        client, answer = await self.connect(f"edge-1:{port}", early=b"early ")
        client.wire.write(b"late")
        client.wire.loseWriteConnection()
        await client.lost
        self.assertEqual(client.data, b"HTTP/1.1 200 OK\r\n\r\nEARLY LATE")
        await self.until(lambda: not self.front.passages and not self.link.streams)

    async def test_half_close_by_tls(self) -> None:
        """
        So it is where the caller came by TLS, whose end of one direction says nothing of the other; and a caller that then leaves
        has left.
        """
        self.api.allowed = lambda spec: True
        identity = certs.issue(self.ca, "kube-apiserver")
        port = await self.listen(Factory.forProtocol(Echo))
        self.ports.ports = replace(self.ports.ports, localhost=frozenset({port}))
        client, _ = await self.connect(f"edge-1:{port}", await self.client(identity))
        client.wire.write(bytes(2_000_000))
        self.end_direction(client)
        await client.lost
        self.assertEqual(client.size, len(b"HTTP/1.1 200 OK\r\n\r\n") + 2_000_000)
        self.assertIsInstance(client.reason, ConnectionDone)
        await self.until(lambda: not self.front.passages and not self.link.streams)
        deaf = await self.listen(Factory.forProtocol(Client))
        self.ports.ports = replace(self.ports.ports, localhost=frozenset({deaf}))
        client, _ = await self.connect(f"edge-1:{deaf}", await self.client(identity))
        self.end_direction(client)
        client.wire.loseConnection()
        await client.lost
        await self.until(lambda: not self.front.passages and not self.link.streams)

    def end_direction(self, client: Client) -> None:
        """
        Send the end of the client's direction of a TLS connection, as Go's CloseWrite does, and read on.
        """
        client.wire.getHandle().shutdown()
        client.wire._flushSendBIO()

    async def test_reset(self) -> None:
        """
        A reset of the node's is a reset for the caller, who must not take it for the end; and the other way round.
        """
        served: list[Client] = []

        class Kubelet(Client):
            def connectionMade(self) -> None:
                served.append(self)

        port = await self.listen(Factory.forProtocol(Kubelet))
        self.ports.ports = replace(self.ports.ports, localhost=frozenset({port}))
        first, _ = await self.connect(f"edge-1:{port}", await self.client(tls=False))
        await self.reset(served[0], first)
        second, _ = await self.connect(f"edge-1:{port}", await self.client(tls=False))
        await self.reset(second, served[1])
        await self.until(lambda: not self.front.passages and not self.link.streams)

    async def reset(self, one: Client, other: Client) -> None:
        """
        One end of a connection is reset: so is the other.
        """
        one.wire.write(b"half of it")
        await self.until(lambda: other.data.endswith(b"half of it"))
        one.wire.abortConnection()
        await self.until(lambda: other.is_lost)
        self.assertEqual(type(other.reason), ConnectionLost)

    async def test_not_before_the_agent(self) -> None:
        """
        There is no 200 before the agent has connected, and a caller that leaves meanwhile ends the dial.
        """
        self.agent.holds = True
        client = await self.unix_client()
        client.wire.write(f"CONNECT {NODE_IP}:{self.kubelet_port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await self.until(lambda: self.agent.dials)
        self.assertEqual(client.data, b"")
        client.wire.abortConnection()
        await self.until(lambda: not self.link.streams and not self.front.passages)

    async def test_refused_by_agent(self) -> None:
        """
        A refusal of the agent's is the answer, its message in the status line as well, as an API server shows nothing else;
        the connection can be used again.
        """
        message = "10.0.0.8:10250: nobody answered within 5 s"
        self.agent.refusal = ConnectRefused(504, "Timeout", "timeout", message)
        client, answer = await self.connect(f"{NODE_IP}:{self.kubelet_port}")
        self.assertEqual((answer.status, answer.reason), (504, message))
        self.assertEqual((answer.json["kind"], answer.json["reason"], answer.json["message"]), ("Status", "Timeout", message))
        self.assertEqual(answer.headers["yurt-refused"], "timeout")
        self.agent.refusal, client.data = None, b""
        _, answer = await self.connect(f"{NODE_IP}:{self.kubelet_port}", client)
        self.assertEqual(answer.status, 200)

    async def test_not_connected(self) -> None:
        """
        A node whose agent is gone is 503 at once, with since when and why.
        """
        self.registry.remove(self.registration, reactor.seconds() - 42, "connection reset")
        _, answer = await self.connect(f"{NODE_IP}:10250")
        self.assertEqual((answer.status, answer.json["details"]), (503, {"name": "edge-1", "kind": "nodes"}))
        self.assertIn("42 s ago (connection reset)", answer.reason)

    async def test_no_node(self) -> None:
        """
        An address that no node has is 503 at once on a port for nodes, and a target that is none 400.
        """
        for target, status in (("10.9.9.9:10250", 503), ("10.9.9.9", 400), ("a:b:c", 400)):
            _, answer = await self.connect(target)
            self.assertEqual(answer.status, status, target)
            self.assertIn(target.split(":")[0], answer.json["message"])


class DirectTests(SocketCase):
    """
    Connections that need no agent.
    """

    def allow_loopback(self) -> None:
        """
        Let the server dial this host, which is the only one that tests have.
        """
        self.patch(egress, "is_own", lambda host: False)

    async def test_others(self) -> None:
        """
        A webhook, or a node without agent, is dialled by the server itself.
        """
        self.allow_loopback()
        port = await self.listen(Factory.forProtocol(Echo))
        client, answer = await self.connect(f"127.0.0.1:{port}", early=b"webhook")
        self.assertEqual(answer.status, 200)
        await self.ends_with(client, b"WEBHOOK")
        self.informer.changed("cloud", None, Node("cloud", ("127.0.0.1",), "127.0.0.1"))
        client, answer = await self.connect(f"cloud:{port}", early=b"node")
        await self.ends_with(client, b"NODE")
        self.assertEqual(self.agent.dials, [])

    async def test_quiet(self) -> None:
        """
        At a stop those are not waited for on which their callers say nothing: API servers keep connections to aggregated ones.
        """
        self.allow_loopback()
        port = await self.listen(Factory.forProtocol(Echo))
        silent, _ = await self.connect(f"127.0.0.1:{port}", early=b"said once")
        used, _ = await self.connect(f"127.0.0.1:{port}", early=b"said ")
        await self.until(lambda: silent.data.endswith(b"SAID ONCE") and used.data.endswith(b"SAID "))
        clock = Clock()
        quiet = QuietStreams(clock, self.front.direct, at_node=False)
        quiet.start()
        self.addCleanup(quiet.stop)
        for _ in range(int(QUIET / STEP) + 1):
            heard = len(used.data)
            used.wire.write(b"again ")
            await self.until(lambda: len(used.data) > heard)  # noqa: B023
            clock.advance(STEP)
        await silent.lost
        self.assertFalse(used.is_lost)
        self.assertEqual(len(list(self.front.direct())), 1)

    async def test_dial_fails(self) -> None:
        """
        Why it cannot be dialled is told.
        """
        self.allow_loopback()
        closed = socket.create_server(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        closed.close()
        _, answer = await self.connect(f"127.0.0.1:{port}")
        self.assertEqual((answer.status, answer.headers["yurt-refused"]), (502, "refused"))
        self.assertEqual(answer.reason, f"127.0.0.1:{port}, dialled by the server: connection refused")
        _, answer = await self.connect(f"{'long' * 16}.example.com:443")
        self.assertEqual((answer.status, answer.headers["yurt-refused"]), (502, "name-unknown"))

    async def test_pod_at_the_edge(self) -> None:
        """
        A pod that no packet reaches is told to be on a node that only dials out, if it is; not one that has refused itself.
        """
        self.allow_loopback()
        for name, networks, has_agent in (("edge-2", ("fd00:1::/64", "127.2.0.0/24"), True), ("cloud", ("127.3.0.0/24",), False)):
            node = Node(name, has_agent=has_agent, pod_networks=networks)
            self.informer.changed(name, None, node)
        _, answer = await self.connect("127.2.0.9:1")
        self.assertEqual(answer.reason, "127.2.0.9:1, dialled by the server: connection refused")

        class Silent:
            def connect(self, factory: object) -> Deferred[Any]:
                return fail(TimeoutError())

        self.patch(egress, "tcp_endpoint", lambda *what: Silent())
        _, answer = await self.connect("127.2.0.9:8443")
        self.assertEqual((answer.status, answer.headers["yurt-refused"]), (504, "timeout"))
        self.assertIn("it is of the pods on node edge-2, which only dials out", answer.json["message"])
        _, answer = await self.connect("127.3.0.9:8443")
        self.assertNotIn("it is of the pods", answer.json["message"])

    async def test_silent_name_server(self) -> None:
        """
        A name that no name server answers is given up in time, and told.
        """
        asked: list[str] = []

        class Silent:
            def resolveHostName(self, receiver: object, host: str, **how: object) -> None:
                asked.append(host)

        before = reactor.nameResolver
        reactor.installNameResolver(cast(IHostnameResolver, Silent()))
        self.addCleanup(reactor.installNameResolver, before)
        self.patch(egress, "DIAL_TIMEOUT", 0.1)
        _, answer = await self.connect("webhook.example.com:443")
        self.assertEqual((answer.status, answer.headers["yurt-refused"]), (504, "timeout"))
        self.assertEqual(asked, ["webhook.example.com"])

    async def test_not_to_itself(self) -> None:
        """
        Loopback and link-local addresses are not dialled, by whatever name.
        """
        for host in ("127.0.0.1", "[::1]", "0.0.0.0", "169.254.169.254", "[fe80::1]", "[::ffff:127.0.0.1]", "localhost"):
            _, answer = await self.connect(f"{host}:{self.insecure_port}")
            self.assertEqual(answer.status, 403, host)


class SecureTests(SocketCase):
    """
    CONNECT by mTLS.
    """

    async def test_authorised(self) -> None:
        """
        A caller must be allowed to create nodes/proxy, of that node, or of all nodes for what is none.
        """
        self.api.allowed = lambda spec: spec["resourceAttributes"]["name"] == "edge-1"
        identity = certs.issue(self.ca, "kube-apiserver")
        _, answer = await self.connect(f"{NODE_IP}:{self.kubelet_port}", await self.client(identity))
        self.assertEqual(answer.status, 200)
        _, answer = await self.connect("10.9.9.9:443", await self.client(identity))
        self.assertEqual(answer.status, 403)
        self.assertIn("nodes is forbidden", answer.reason)
        asked = [asked["spec"]["resourceAttributes"] for asked in self.api.asked]
        self.assertEqual([(one["verb"], one["name"]) for one in asked], [("create", "edge-1"), ("create", "")])

    async def test_nobody(self) -> None:
        """
        Without a certificate nothing is connected, and the answer is a proxy's.
        """
        _, answer = await self.connect(f"{NODE_IP}:{self.kubelet_port}", await self.client())
        self.assertEqual((answer.status, answer.json["code"]), (407, 407))
        self.assertEqual(answer.headers["proxy-authenticate"], "Bearer")
        self.assertEqual(self.agent.dials, [])


class EgressSocketTests(TestCase):
    """
    The socket in the file system.
    """

    def setUp(self) -> None:
        self.folder = self.mktemp()
        self.path = os.path.join(self.folder, "egress.sock")

    def start(self) -> EgressSocket:
        """
        Listen until the test ends.
        """
        service = EgressSocket(reactor, self.path, cast(IProtocolFactory, Factory()))
        service.startService()
        self.addCleanup(service.stopService)
        return service

    def mode(self, path: str) -> int:
        """
        Who may do what.
        """
        return stat.S_IMODE(os.lstat(path).st_mode)

    def test_modes(self) -> None:
        """
        Only the owner may open the socket, and the folder that was made for it; a folder that was there keeps its modes.
        """
        self.start()
        self.assertEqual((self.mode(self.folder), self.mode(self.path)), (0o700, 0o600))

    async def test_removed(self) -> None:
        """
        It is gone after the stop.
        """
        service = self.start()
        self.assertTrue(os.path.exists(self.path))
        await service.stopService()
        self.assertFalse(os.path.exists(self.path))

    def test_stale(self) -> None:
        """
        The socket of a process that was killed is replaced.
        """
        os.mkdir(self.folder)
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(self.path)
        self.start()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)

    def refused(self) -> str:
        """
        Why it does not start.
        """
        return str(self.assertRaises(StartFailed, self.start))

    def test_in_use(self) -> None:
        """
        That of a process which listens is left to it, and what is no socket stays.
        """
        os.mkdir(self.folder)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.path)
            other.listen()
            self.assertIn("another process", self.refused())
        os.unlink(self.path)
        with open(self.path, "w") as file:
            file.write("precious")
        self.assertIn("no socket", self.refused())
        with open(self.path) as file:
            self.assertEqual(file.read(), "precious")

    def test_no_folder(self) -> None:
        """
        A folder that cannot be made ends the start with a message.
        """
        with open(self.folder, "w"):
            self.assertIn(self.path, self.refused())


class Over:
    """
    An endpoint that speaks TLS over a connection of a Client's.
    """

    def __init__(self, client: Client, tls: ClientTLS) -> None:
        self._client = client
        self._tls = tls

    def connect(self, factory: Any) -> Deferred[Any]:
        """
        See IStreamClientEndpoint.
        """
        endpoint = wrapClientTLS(self._tls.creator(NODE_IP), cast(Any, Taken(self._client)))
        return cast("Deferred[Any]", endpoint.connect(factory))


class Taken:
    """
    An endpoint that gives its protocol the transport of a Client.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def connect(self, factory: Any) -> Deferred[Any]:
        """
        See IStreamClientEndpoint.
        """
        protocol = factory.buildProtocol(None)
        self._client.dataReceived = protocol.dataReceived  # type: ignore[method-assign]
        protocol.makeConnection(self._client.wire)
        return succeed(protocol)
