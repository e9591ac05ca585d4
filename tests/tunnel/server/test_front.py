"""
Promises to who addresses the server itself, over real sockets and a real link.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from tests import certs
from tests.tunnel.server.edge import NODE_IP, Client, EdgeCase, Flood, parse
from yurt.http.limits import ServerLimits
from yurt.tunnel.connect import ConnectRefused
from yurt.tunnel.server.node import Node

reactor: Any = _reactor


class RecordedLog:
    """
    In the place of a logger whose lines a test looks at.
    """

    def __init__(self, told: list[str]) -> None:
        self.told = told

    def warn(self, text: str, **fields: object) -> None:
        """
        See :class:`twisted.logger.Logger`.
        """
        self.told.append(text.format(**fields))


class PlainTests(EdgeCase):
    """
    What passes through, asked in plain text from this host.
    """

    async def test_get(self) -> None:
        """
        Method, path, query and headers reach the kubelet as they were sent, with the server's certificate; of the answer
        likewise.  What names the node in headers of OpenYurt's does not go on.
        """
        client = await self.client(tls=False)
        answer = await self.ask(
            client, self.head("/stats/summary?only=1", X_Mine="a", X_Tunnel_Proxy_Host="edge-1", Authorization="B x")
        )
        told = answer.json
        self.assertEqual((answer.status, answer.headers["x-kubelet"]), (200, "yes"))
        self.assertEqual((told["method"], told["target"]), ("GET", "/stats/summary?only=1"))
        self.assertEqual(told["caller"], "CN=tunnel-proxy-client,O=openyurt:yurttunnel")
        headers = told["headers"]
        self.assertEqual(
            (headers["host"], headers["x-mine"], headers["authorization"]), (f"{NODE_IP}:{self.kubelet_port}", "a", "B x")
        )
        self.assertNotIn("x-tunnel-proxy-host", headers)

    async def test_plain_port(self) -> None:
        """
        To a port of plain HTTP plain HTTP is spoken, on the loopback address that the port is served on.
        """
        client = await self.client(tls=False)
        answer = await self.ask(client, self.head("/metrics", f"{NODE_IP}:{self.plain_port}"))
        self.assertEqual((answer.status, answer.json["caller"]), (200, None))
        self.assertEqual(self.agent.dials, [f"127.0.0.1:{self.plain_port}"])

    async def test_kept_connections(self) -> None:
        """
        One dial serves many requests of many clients; those dropped as idle are dialled anew.
        """
        for _ in range(3):
            client = await self.client(tls=False)
            for _ in range(3):
                self.assertEqual((await self.ask(client, self.head("/healthz"))).status, 200)
        self.assertEqual(len(self.agent.dials), 1)
        self.upstreams.drop_idle("edge-1")
        await self.until(lambda: not self.agent.sockets)
        self.assertEqual((await self.ask(client, self.head("/healthz"))).status, 200)
        self.assertEqual(len(self.agent.dials), 2)

    async def test_closed_by_kubelet(self) -> None:
        """
        An idle connection that the kubelet closes goes, with its stream and the agent's socket, and the next request dials anew.
        """
        self.kubelet_factory.limits = ServerLimits(idle_timeout=0.05, first_timeout=10.0)
        client = await self.client(tls=False)
        for _ in range(2):
            self.assertEqual((await self.ask(client, self.head("/healthz"))).status, 200)
            await self.until(lambda: not (self.link.streams or self.agent.sockets))
            self.assertEqual([pool.open_connections for pool in self.upstreams.pools()], [0])
        self.assertEqual(len(self.agent.dials), 2)

    async def test_upload(self) -> None:
        """
        Bodies go on, with a length or chunked, and so does a client that waits for the leave to send one.
        """
        client = await self.client(tls=False)
        answer = await self.ask(client, self.head("/run/x/y/z", method="POST", Content_Length="5") + b"12345")
        self.assertEqual((answer.status, answer.json["size"], answer.json["headers"]["content-length"]), (200, 5, "5"))
        chunked = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
        answer = await self.ask(client, self.head("/x", method="PUT", Transfer_Encoding="chunked") + chunked)
        self.assertEqual(answer.json["size"], 7)
        client.data = b""
        client.wire.write(self.head("/x", method="PUT", Content_Length="2", Expect="100-continue"))
        await self.until(lambda: client.data)
        self.assertTrue(client.data.startswith(b"HTTP/1.1 100 "), client.data)
        answer = await self.ask(client, b"ok")
        self.assertEqual(answer.json["size"], 2)

    async def test_upload_held(self) -> None:
        """
        A kubelet that does not read stops the client's upload, and gets all of it when it reads on.
        """
        client = await self.client(tls=False)
        total = 48 * 1024 * 1024
        client.wire.write(self.head("/held-upload", method="PUT", Content_Length=str(total)))
        client.wire.write(bytes(total))
        await self.until(lambda: self.kubelet.uploads and self.kubelet.uploads[0].size)
        upload = self.kubelet.uploads[0]
        seen = -1
        while seen != self.link.bytes_sent:
            seen = self.link.bytes_sent
            await self.until(self.tick())
        self.assertLess(seen, total // 2)
        self.kubelet.requests[0].resume()  # type: ignore[attr-defined]
        await self.until(lambda: parse(client.data) is not None)
        self.assertEqual(upload.size, total)

    def tick(self) -> Callable[[], object]:
        """
        True after a few turns of the reactor.
        """
        turns = iter(range(50))
        return lambda: next(turns, None) is None

    async def test_followed_log(self) -> None:
        """
        Each piece of a chunked answer reaches the client at once, and the end when it ends; the connection lives on.
        """
        client = await self.client(tls=False)
        client.wire.write(self.head("/containerLogs/default/web/c?follow=true"))
        await self.until(lambda: b"\r\n\r\n" in client.data)
        for line in (b"one", b"two"):
            self.kubelet.requests[0].write(line)
            await self.ends_with(client, b"3\r\n" + line + b"\r\n")
        self.kubelet.requests[0].finish()
        await self.until(lambda: client.data.endswith(b"0\r\n\r\n"))
        self.assertEqual((await self.ask(client, self.head("/healthz"))).status, 200)

    async def test_trailers(self) -> None:
        """
        Trailers of an answer go on.
        """
        client = await self.client(tls=False)
        await self.ask(client, self.head("/trailers"))
        self.assertTrue(client.data.endswith(b"0\r\nX-Sum: 4\r\n\r\n"), client.data)

    async def test_stalled_reader(self) -> None:
        """
        A client that stops reading stops its own answer in the kubelet, and no other client's.
        """
        stalled = await self.client(tls=False)
        stalled.wire.write(self.head("/flood"))
        await self.until(lambda: stalled.size)
        stalled.wire.pauseProducing()
        flood = Flood.all[0]
        await self.until(lambda: not flood.running)
        for _ in range(3):
            other = await self.client(tls=False)
            self.assertEqual((await self.ask(other, self.head("/healthz"))).status, 200)
        self.assertFalse(flood.running)
        before = flood.sent
        stalled.wire.resumeProducing()
        await self.until(lambda: flood.sent > before + 20_000_000)

    async def test_client_gone(self) -> None:
        """
        When the client leaves, the request is cancelled down to the kubelet's socket: in the middle of an answer, before one.
        """
        await self.leave(b"/flood", b"200")
        await self.leave(b"/silent", b"")
        await self.until(lambda: not self.front.passages)
        self.assertEqual(self.link.streams, 0)
        self.assertEqual(self.sample("total_in_proxy_requests"), 0)

    async def leave(self, target: bytes, at: bytes) -> None:
        """
        Hang up when the kubelet has the request and ``at`` has come; wait until the kubelet knows.
        """
        client, before = await self.client(tls=False), len(self.kubelet.requests)
        client.wire.write(self.head(target.decode()))
        await self.until(lambda: at in client.data and len(self.kubelet.requests) > before)
        client.wire.abortConnection()
        await self.until(lambda: not self.agent.sockets and self.kubelet.lost[-1:] == [target])

    async def test_client_gone_while_dialling(self) -> None:
        """
        A dial that nobody waits for any more is reset.
        """
        self.agent.holds = True
        client = await self.client(tls=False)
        client.wire.write(self.head("/healthz"))
        await self.until(lambda: self.agent.dials)
        self.assertEqual(self.sample("total_in_proxy_requests"), 1)
        client.wire.abortConnection()
        await self.until(lambda: not self.link.streams and not self.front.passages)

    async def test_nothing_is_left(self) -> None:
        """
        Hundreds of requests whose clients leave at once leave no request, stream, socket or connection behind.
        """
        for _ in range(30):
            clients = [await self.client(tls=False) for _ in range(10)]
            for client, target in zip(clients, ("/silent", "/flood") * 5, strict=True):
                client.wire.write(self.head(target))
                reactor.callLater(0.001, client.wire.abortConnection)
            await DeferredList([client.lost for client in clients])
        await self.until(lambda: not (self.front.passages or self.agent.sockets or self.link.streams))
        self.assertEqual([pool.open_connections for pool in self.upstreams.pools()], [0])

    async def test_kubelet_gone(self) -> None:
        """
        An answer that breaks off is cut at the client, who sees that it is not whole.
        """
        client = await self.client(tls=False)
        client.wire.write(self.head("/held"))
        await self.until(lambda: b"\r\n\r\n" in client.data)
        self.kubelet.requests[0].abort()
        await client.lost
        self.assertNotIn(b"0\r\n\r\n", client.data)


class UpgradeTests(EdgeCase):
    """
    Exec, attach and port-forward.
    """

    def exec(self, path: str = "/exec/default/web/c", method: str = "POST") -> bytes:
        """
        An exec as kubectl's.
        """
        return self.head(
            path, method=method, Connection="Upgrade", Upgrade="SPDY/3.1", X_Stream_Protocol_Version="v4.channel.k8s.io"
        )

    async def test_both_ways(self) -> None:
        """
        After the 101 bytes go both ways, those sent early first; the request counts until the end, which the kubelet hears of.
        """
        client = await self.client(tls=False)
        client.wire.write(self.exec() + b"early ")
        await self.until(lambda: client.data.endswith(b"early "))
        self.assertTrue(client.data.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"))
        self.assertIn(b"Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n", client.data)
        client.wire.write(b"late")
        await self.until(lambda: client.data.endswith(b"early late"))
        self.assertEqual(self.sample("in_proxy_requests", verb="post", path="/exec"), 1)
        client.wire.loseConnection()
        await self.until(lambda: self.kubelet.ended)
        await self.until(lambda: not self.front.passages and not self.agent.sockets)
        self.assertEqual(self.sample("in_proxy_requests", verb="post", path="/exec"), 0)

    async def test_much_both_ways(self) -> None:
        """
        Megabytes come back as they were sent, by TLS from end to end.
        """
        self.api.allowed = lambda spec: True
        client = await self.client(certs.issue(self.ca, "admin"))
        client.wire.write(self.exec())
        await self.until(lambda: client.data.endswith(b"\r\n\r\n"))
        before, payload = client.size, os.urandom(900_000) + bytes(8_000_000)
        client.data = b""
        client.wire.write(payload)
        await self.until(lambda: client.size - before == len(payload))
        self.assertEqual(client.data[:900_000], payload[:900_000])

    async def test_refused_by_kubelet(self) -> None:
        """
        Another answer than a 101 is passed on as it is.
        """
        client = await self.client(tls=False)
        self.kubelet.upgrade = lambda request, path: request.respond(400, [], b"no such container")  # type: ignore[method-assign]
        answer = await self.ask(client, self.exec())
        self.assertEqual((answer.status, answer.body), (400, b"no such container"))

    async def test_deaf_command(self) -> None:
        """
        A command that reads nothing hears of the client's end all the same, if only after a while.
        """
        self.patch(__import__("yurt.tunnel.server.passage", fromlist=["x"]), "LINGER", 0.2)
        client = await self.client(tls=False)
        client.wire.write(self.exec("/exec/default/deaf/c"))
        await self.until(lambda: client.data.endswith(b"\r\n\r\n"))
        client.wire.write(bytes(32 * 1024 * 1024))
        await self.until(lambda: self.link.bytes_sent > 1_000_000)
        client.wire.abortConnection()
        await self.until(lambda: not self.agent.sockets and not self.link.streams and not self.front.passages)


class SecureTests(EdgeCase):
    """
    Who may do what, by TLS.
    """

    async def test_nobody(self) -> None:
        """
        Without certificate and token the answer is 401 and says what to show, before anything is told of nodes.
        """
        client = await self.client()
        for host in ("", "nowhere:10250"):
            answer = await self.ask(client, self.head("/healthz", host))
            self.assertEqual((answer.status, answer.json["reason"]), (401, "Unauthorized"))
            self.assertIn("certificate", answer.json["message"])
            self.assertEqual(answer.headers["www-authenticate"], "Bearer")
        self.assertEqual(self.sample("refused_total", reason="unauthenticated"), 2)

    async def test_failed_handshakes(self) -> None:
        """
        A caller whose TLS fails gets an alert and no more, unless it speaks plain HTTP, which is told it; the log says from where
        and why, and it is counted.  One that leaves before or after its hand-shake has failed at nothing.
        """
        told: list[str] = []
        self.patch(self.front.refusals, "log", RecordedLog(told))
        for identity in (None, certs.issue(self.ca, "jane")):
            (await self.client(identity)).wire.abortConnection()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.secure_port)
        silent = await connectProtocol(endpoint, Client())
        silent.wire.abortConnection()
        await silent.lost
        stranger = await self.client(certs.issue(certs.make_ca("other"), "jane"))
        await stranger.lost
        plain = cast(Client, await connectProtocol(endpoint, Client()))
        answer = await self.ask(plain, self.head("/healthz"))
        self.assertEqual((answer.status, answer.json["reason"]), (400, "BadRequest"))
        self.assertIn("was asked in plain HTTP: use https", answer.json["message"])
        await plain.lost
        await self.until(lambda: len(told) == 2)
        self.assertIn("a caller from 127.0.0.1: TLS: certificate verify failed: it is not signed by the CA", told[0])
        self.assertIn("(of 'CN=jane')", told[0])
        self.assertIn("TLS: http request", told[1])
        self.assertEqual(self.sample("refused_total", reason="handshake"), 2)

    async def test_certificate(self) -> None:
        """
        A certificate's user is asked for with its groups, for the very node and verb; who may not gets 403 with all of that,
        and an answer holds for a while.
        """
        client = await self.client(certs.issue(self.ca, "jane", ["ops", "dev"]))
        for _ in range(2):
            answer = await self.ask(client, self.head("/pods"))
            self.assertEqual((answer.status, answer.json["reason"]), (403, "Forbidden"))
            for word in ('nodes "edge-1"', 'User "jane"', "cannot get", "nodes/proxy", "no rule allows it"):
                self.assertIn(word, answer.json["message"])
        self.assertEqual(
            [asked["spec"] for asked in self.api.asked],
            [
                {
                    "user": "jane",
                    "groups": ["ops", "dev", "system:authenticated"],
                    "resourceAttributes": {
                        "verb": "get",
                        "version": "v1",
                        "resource": "nodes",
                        "subresource": "proxy",
                        "name": "edge-1",
                    },
                }
            ],
        )
        self.assertEqual(self.kubelet.requests, [])

    async def test_token(self) -> None:
        """
        A bearer token's owner may do what the API server allows; the token is not shown to the node.
        """
        self.api.users["s3cret"] = {"username": "system:serviceaccount:monitoring:prometheus", "groups": ["g"], "uid": "u"}
        self.api.allowed = lambda spec: spec["user"].endswith(":prometheus") and spec["uid"] == "u"
        client = await self.client()
        for _ in range(2):
            answer = await self.ask(client, self.head("/metrics", Authorization="Bearer s3cret"))
            self.assertEqual(answer.status, 200)
            self.assertNotIn("authorization", answer.json["headers"])
        head = self.head("/metrics", Authorization="Bearer node's", **{"Proxy-Authorization": "Bearer s3cret"})
        headers = (await self.ask(client, head)).json["headers"]
        self.assertEqual((headers["authorization"], headers.get("proxy-authorization")), ("Bearer node's", None))
        self.assertEqual([asked["kind"] for asked in self.api.asked], ["TokenReview", "SubjectAccessReview"])
        answer = await self.ask(client, self.head("/metrics", Authorization="Bearer other"))
        self.assertEqual(answer.status, 401)
        self.assertNotIn(b"other", answer.body)

    async def test_verbs(self) -> None:
        """
        The verb follows the method; what reaches into a pod is never merely read.
        """
        self.api.allowed = lambda spec: True
        client = await self.client(certs.issue(self.ca, "jane"))
        for method, target in (
            ("GET", "/pods"),
            ("POST", "/x"),
            ("PUT", "/x"),
            ("PATCH", "/x"),
            ("DELETE", "/x"),
            ("GET", "/attach/a/b/c"),
        ):
            self.assertEqual((await self.ask(client, self.head(target, method=method))).status, 200)
        verbs = [asked["spec"]["resourceAttributes"]["verb"] for asked in self.api.asked]
        self.assertEqual(verbs, ["get", "create", "update", "patch", "delete"])

    async def test_log(self) -> None:
        """
        The log of a refusal names the request and its sender, but neither tokens nor what a command is.
        """
        lines: list[str] = []
        self.patch(self.front.refusals, "refuse", lambda word, message: lines.append(f"{word}: {message}"))
        client = await self.client()
        for target in ("/exec/default/web/c?command=p4ss", "/cri/exec/t0ken", "/pods"):
            await self.ask(client, self.head(target, Authorization="Bearer s3cret"))
        self.assertEqual(len(lines), 3)
        self.assertTrue(lines[0].startswith("unauthenticated: GET '/exec/default/web/c' from 127.0.0.1: "), lines)
        for secret in ("p4ss", "t0ken", "s3cret"):
            self.assertNotIn(secret, "".join(lines))

    async def test_api_server_gone(self) -> None:
        """
        While the API server does not answer nobody gets in, the answer says why, and nothing of it is kept.
        """
        from yurt.kube.api import ApiError

        self.api.users["s3cret"] = {"username": "jane"}
        self.api.allowed = lambda spec: True
        self.api.error = ApiError(0, "NoAnswer", "https://cloud: connection refused")
        client = await self.client()
        answer = await self.ask(client, self.head("/pods", Authorization="Bearer s3cret"))
        self.assertEqual((answer.status, answer.json["reason"]), (503, "ServiceUnavailable"))
        self.assertIn("connection refused", answer.json["message"])
        self.api.error = None
        self.assertEqual((await self.ask(client, self.head("/pods", Authorization="Bearer s3cret"))).status, 200)

    async def test_pod_path(self) -> None:
        """
        A request that names only a pod goes to the kubelet of the pod's node; a pod that is not there is told.
        """
        self.api.allowed = lambda spec: True
        self.pods.nodes["default", "web"] = "edge-1"
        client = await self.client(certs.issue(self.ca, "kube-apiserver", ["system:masters"]))
        client.wire.write(self.head("/containerLogs/default/web/c", "x-tunnel-server-internal-svc:10250"))
        await self.until(lambda: client.data.startswith(b"HTTP/1.1 200 "))
        client = await self.client(certs.issue(self.ca, "kube-apiserver", ["system:masters"]))
        answer = await self.ask(client, self.head("/exec/default/gone/c", "elsewhere:10250"))
        self.assertEqual((answer.status, answer.json["reason"]), (404, "NotFound"))
        self.assertIn('pods "gone" not found', answer.json["message"])


class AllowedNamesTests(EdgeCase):
    """
    With --allowed-names.
    """

    allowed_names = frozenset({"kube-apiserver-kubelet-client"})

    async def test_allowed(self) -> None:
        """
        Who is named needs no other word; others do.
        """
        client = await self.client(certs.issue(self.ca, "kube-apiserver-kubelet-client"))
        self.assertEqual((await self.ask(client, self.head("/pods"))).status, 200)
        self.assertEqual(self.api.asked, [])
        other = await self.client(certs.issue(self.ca, "jane"))
        self.assertEqual((await self.ask(other, self.head("/pods"))).status, 403)


class ErrorTests(EdgeCase):
    """
    Errors that a person can use.
    """

    max_requests = 2

    async def refused(self, host: str = "", target: str = "/pods") -> tuple[int, str, str]:
        """
        Status, reason and message of the answer.
        """
        client = await self.client(tls=False)
        answer = await self.ask(client, self.head(target, host))
        self.assertEqual((answer.json["kind"], answer.json["code"]), ("Status", answer.status))
        self.assertEqual(answer.headers["content-type"], "application/json")
        return answer.status, answer.json["reason"], answer.json["message"]

    async def test_unknown_node(self) -> None:
        """
        A node that the cluster does not have is 404, a port that is not the tunnel's 403.
        """
        status, reason, message = await self.refused("edge-9:10250")
        self.assertEqual((status, reason), (404, "NotFound"))
        self.assertIn("edge-9", message)
        status, reason, message = await self.refused("edge-1:22")
        self.assertEqual((status, reason), (403, "Forbidden"))
        self.assertIn("http-proxy-ports", message)

    async def test_nodes_not_listed(self) -> None:
        """
        Before the nodes are listed nobody can say that there is no such node.
        """
        self.informer.synced, self.informer.problem = False, "the API server does not answer"
        status, reason, message = await self.refused("edge-9:10250")
        self.assertEqual((status, reason), (503, "ServiceUnavailable"))
        self.assertIn("does not answer", message)

    async def test_not_connected(self) -> None:
        """
        A node whose agent is gone is 503, with since when and why, and so it is at once, with a pool of its own.
        """
        self.assertEqual((await self.ask(await self.client(tls=False), self.head("/healthz"))).status, 200)
        self.registry.remove(self.registration, reactor.seconds() - 42, "no sign of life for 15 s")
        self.link.abort("the test said so")
        await self.until(lambda: not self.agent.sockets)
        began = reactor.seconds()
        status, reason, message = await self.refused()
        self.assertEqual((status, reason), (503, "ServiceUnavailable"))
        self.assertIn("node edge-1 is not connected", message)
        self.assertIn("42 s ago (no sign of life for 15 s)", message)
        self.assertGreaterEqual(reactor.seconds(), began)

    async def test_dial_refused(self) -> None:
        """
        What the agent says of its dial goes on, status and all.
        """
        self.agent.refusal = ConnectRefused(504, "Timeout", "timeout", "10.0.0.8:10250: nobody answered within 5 s")
        status, reason, message = await self.refused()
        self.assertEqual((status, reason), (504, "Timeout"))
        self.assertIn("nobody answered within 5 s", message)

    async def test_nobody_listens(self) -> None:
        """
        A port that nobody listens on is 502.
        """
        node = Node("edge-2", ("10.0.0.9",), "10.0.0.9", kubelet_port=1, has_agent=True)
        self.informer.changed("edge-2", None, node)
        self.ports.ports = type(self.ports.ports)(localhost=frozenset({1}))
        from yurt.tunnel.server.registry import Agent

        self.registry.add(Agent("edge-2", self.link))
        status, reason, message = await self.refused("edge-2:1")
        self.assertEqual((status, reason), (502, "BadGateway"))
        self.assertIn("refused", message)

    async def test_wrong_certificate(self) -> None:
        """
        A kubelet with a certificate of another CA, or for another address, is not spoken to; the answer says why.
        """
        for authority, address, why in (
            (self.ca, NODE_IP, "certificate verify failed"),
            (self.kubelet_ca, "10.0.0.9", "another name"),
        ):
            port = await self.serve_kubelet(authority, address)
            other = Node("edge-3", ("10.0.0.8",), "10.0.0.8", kubelet_port=port, has_agent=True)
            self.informer.changed("edge-3", self.nodes.by_name("edge-3"), other)
            self.ports.ports = type(self.ports.ports)(localhost=frozenset({port}))
            from yurt.tunnel.server.registry import Agent

            self.registry.add(Agent("edge-3", self.link))
            status, reason, message = await self.refused(f"edge-3:{port}")
            self.assertEqual((status, reason), (502, "BadGateway"))
            self.assertIn(why, message)
        self.assertEqual(self.kubelet.requests, [])

    async def test_no_method(self) -> None:
        """
        A method that no kubelet knows is 405.
        """
        client = await self.client(tls=False)
        answer = await self.ask(client, self.head("/pods", method="PROPFIND"))
        self.assertEqual((answer.status, answer.json["reason"]), (405, "MethodNotAllowed"))

    async def test_too_many(self) -> None:
        """
        Beyond the bound of requests at once there is a 429, and room again when one is over.
        """
        clients = [await self.client(tls=False) for _ in range(2)]
        for client in clients:
            client.wire.write(self.head("/held"))
        await self.until(lambda: len(self.kubelet.requests) == 2)
        status, reason, message = await self.refused()
        self.assertEqual((status, reason), (429, "TooManyRequests"))
        clients[0].wire.abortConnection()
        await self.until(lambda: len(self.front.passages) == 1)
        self.assertEqual((await self.ask(await self.client(tls=False), self.head("/healthz"))).status, 200)


class UnverifiedTests(EdgeCase):
    """
    Without --kubelet-certificate-authority.
    """

    verify_kubelet = False

    async def test_any_certificate(self) -> None:
        """
        Any kubelet's certificate will do, and it still gets ours.
        """
        client = await self.client(tls=False)
        answer = await self.ask(client, self.head("/healthz"))
        self.assertEqual((answer.status, answer.json["caller"]), (200, "CN=tunnel-proxy-client,O=openyurt:yurttunnel"))
