"""
Tests of :mod:`yurt.tunnel.hello`.
"""

from __future__ import annotations

import json

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.trial.unittest import SynchronousTestCase

from tests import certs
from yurt.tunnel.hello import (
    FEATURES,
    MAX_HELLO_BYTES,
    MAX_NODE_ADDRESSES,
    PEER_PATH,
    SERVER_NAME,
    AgentHello,
    AnswerReader,
    HelloError,
    HelloReader,
    NotAnAgent,
    Refusal,
    ServerHello,
    is_server,
    node_of,
    serialise_answer,
    serialise_hello,
)

HELLO = AgentHello("tunnel.example.com:10262", addresses=("10.0.0.8", "fd00::8"), user_agent="test/1")
REQUEST = b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n"
AUTHORITY = certs.make_ca()


def certificate(common_name: str, dns: list[str] | None = None) -> x509.Certificate:
    """
    One for that name.
    """
    return x509.load_pem_x509_certificate(certs.issue(AUTHORITY, common_name, dns=dns).cert_pem)


class RequestTests(SynchronousTestCase):
    """
    Tests of the server's half.
    """

    def read(self, data: bytes) -> AgentHello | Refusal | None:
        """
        What a server makes of some bytes.
        """
        return HelloReader().feed(data)

    def refused(self, data: bytes) -> Refusal:
        """
        Why it refuses them.
        """
        refusal = self.read(data)
        assert isinstance(refusal, Refusal), refusal
        return refusal

    def test_as_documented(self) -> None:
        """
        The request looks as in docs/tunnel-protocol.md.
        """
        self.assertEqual(
            serialise_hello(HELLO).decode().splitlines(),
            [
                "GET /v1/tunnel HTTP/1.1",
                "Host: tunnel.example.com:10262",
                "Connection: Upgrade",
                "Upgrade: yurt-tunnel/1",
                "User-Agent: test/1",
                "Yurt-Node-Addresses: 10.0.0.8, fd00::8",
                "Yurt-Features: drain",
                "",
            ],
        )

    def test_round_trip(self) -> None:
        """
        What one side says the other one hears, of agents and of servers.
        """
        for hello in (HELLO, AgentHello("[fd00::1]:10262", path=PEER_PATH, features=frozenset({"drain", "new"}))):
            self.assertEqual(self.read(serialise_hello(hello)), hello)

    def test_byte_by_byte(self) -> None:
        """
        However it arrives, the hello is there with its last byte, and what follows belongs to the mux.
        """
        data = serialise_hello(HELLO)
        reader = HelloReader()
        for index in range(len(data) - 1):
            self.assertIsNone(reader.feed(data[index : index + 1]))
        self.assertEqual(reader.feed(data[-1:] + b"\0\1mux"), HELLO)
        self.assertEqual(reader.rest, b"\0\1mux")

    def test_versions(self) -> None:
        """
        A version is picked from a list; without one in common the answer is 426 and lists what is spoken.
        """
        hello = self.read(REQUEST % (b"/v1/tunnel", b"yurt-tunnel/2, yurt-tunnel/1"))
        assert isinstance(hello, AgentHello)
        self.assertEqual(hello.versions, ("yurt-tunnel/2", "yurt-tunnel/1"))
        refusal = self.refused(REQUEST % (b"/v1/tunnel", b"yurt-tunnel/2"))
        self.assertEqual((refusal.status, refusal.reason), (426, "UpgradeRequired"))
        self.assertIn(b"Upgrade: yurt-tunnel/1\r\n", serialise_answer(refusal))

    def test_refusals(self) -> None:
        """
        Everything else is refused with its status: another path, no upgrade, no HTTP/1.1, too long a head.
        """
        for data, status in (
            (REQUEST % (b"/", b"yurt-tunnel/1"), 404),
            (b"GET /v1/tunnel HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
            (b"GET /v1/tunnel HTTP/1.1\r\nHost: a\r\nX: " + b"x" * MAX_HELLO_BYTES, 400),
            (b"GET /v1/tunnel HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: yurt-tunnel/1\r\n\r\n", 400),
            ((REQUEST % (b"/v1/tunnel", b"yurt-tunnel/1")).replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
        ):
            self.assertEqual(self.refused(data).status, status, data[:40])

    def test_addresses_are_bounded(self) -> None:
        """
        No more addresses are taken than a node can sensibly have.
        """
        many = tuple(f"10.0.0.{number}" for number in range(MAX_NODE_ADDRESSES + 5))
        hello = self.read(serialise_hello(AgentHello("a:1", addresses=many)))
        assert isinstance(hello, AgentHello)
        self.assertEqual(hello.addresses, many[:MAX_NODE_ADDRESSES])


class AnswerTests(SynchronousTestCase):
    """
    Tests of the dialling side's half.
    """

    def test_round_trip(self) -> None:
        """
        The id and the features of a server arrive; unknown features are dropped; what follows belongs to the mux.
        """
        data = serialise_answer(ServerHello("id-1", features=FEATURES | {"new"})) + b"mux"
        reader = AnswerReader()
        for index in range(len(data) - 4):
            self.assertIsNone(reader.feed(data[index : index + 1]))
        self.assertEqual(reader.feed(data[-4:]), ServerHello("id-1"))
        self.assertEqual(reader.rest, b"mux")
        self.assertIsNone(reader.end())

    def test_refusal(self) -> None:
        """
        A refusal brings status, reason, message and when to come again, also byte by byte.
        """
        refusal = Refusal(503, "ServiceUnavailable", "this server is stopping", 4.0)
        data = serialise_answer(refusal)
        reader = AnswerReader()
        said = [reader.feed(data[index : index + 1]) for index in range(len(data))]
        self.assertEqual(said, [None] * (len(data) - 1) + [refusal])

    def test_status_body(self) -> None:
        """
        A refusal is an ordinary response with a Status body, and ends the connection.
        """
        head, _, body = serialise_answer(Refusal(403, "Forbidden", "no", 1.2)).partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 403 Forbidden\r\n"))
        self.assertIn(b"\r\nConnection: close", head)
        self.assertIn(b"\r\nRetry-After: 1", head)
        status = json.loads(body)
        self.assertEqual((status["kind"], status["code"], status["message"]), ("Status", 403, "no"))

    def test_foreign_refusal(self) -> None:
        """
        An answer of something else than a server of ours is a refusal with the little that it says, whole or cut off.
        """
        reader = AnswerReader()
        self.assertEqual(reader.feed(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"), Refusal(404, "", "404 Not Found"))
        reader = AnswerReader()
        self.assertIsNone(reader.feed(b"HTTP/1.1 502 Bad Gateway\r\nRetry-After: soon\r\n\r\n<html>"))
        self.assertEqual(reader.end(), Refusal(502, "", "502 Bad Gateway"))

    def test_endless_refusal(self) -> None:
        """
        A body without end is read as far as the bound.
        """
        reader = AnswerReader()
        self.assertIsNone(reader.feed(b"HTTP/1.1 403 Forbidden\r\n\r\n"))
        self.assertEqual(reader.feed(b"x" * MAX_HELLO_BYTES), Refusal(403, "", "403 Forbidden"))

    def test_nonsense(self) -> None:
        """
        What is no answer is named.
        """
        for data, why in (
            (b"SSH-2.0-OpenSSH\r\n", "no HTTP"),
            (b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "something else"),
            (b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: yurt-tunnel/1\r\n\r\n", "Yurt-Server-Id"),
        ):
            error = self.assertRaises(HelloError, AnswerReader().feed, data)
            self.assertIn(why, str(error))

    def test_nothing(self) -> None:
        """
        Without an answer there is no refusal.
        """
        self.assertIsNone(AnswerReader().end())


class NodeTests(SynchronousTestCase):
    """
    Tests of what certificates say.
    """

    def test_nodes(self) -> None:
        """
        The node is in the common name of a kubelet's certificate, and in the one DNS name of OpenYurt's.
        """
        self.assertEqual(node_of(certificate("system:node:edge-1.example")), "edge-1.example")
        self.assertEqual(node_of(certificate("tunnel-agent-client", ["edge-2"])), "edge-2")

    def test_others(self) -> None:
        """
        All others are refused: the server's own, those of people, those that name no node or several.
        """
        for name, dns in (
            (SERVER_NAME, None),
            ("kubernetes-admin", None),
            ("system:node:", None),
            ("system:node:a/../b", None),
            ("system:node:Ä", None),
            ("tunnel-agent-client", None),
            ("tunnel-agent-client", ["a", "b"]),
            ("tunnel-agent-client", ["*.example"]),
        ):
            error = self.assertRaises(NotAnAgent, node_of, certificate(name, dns))
            self.assertEqual(error.refusal.status, 403)
            self.assertIn(repr(name), str(error))

    def test_server(self) -> None:
        """
        A server is known by its common name and by what its certificate is for: a node that calls itself as a server does
        has none for servers.
        """
        server, client = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
        for name, usages, expected in (
            (SERVER_NAME, (server,), True),
            (SERVER_NAME, (server, client), True),
            (SERVER_NAME, (client,), False),
            ("system:node:a", (server, client), False),
        ):
            identity = certs.issue(AUTHORITY, name, usages=usages)
            self.assertEqual(is_server(x509.load_pem_x509_certificate(identity.cert_pem)), expected)
