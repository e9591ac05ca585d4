"""
Tests of the whole agent, against servers and kubelets on loopback.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests import certs
from tests.http.test_dial import Proxy
from tests.mux.links import HalfCloseable
from tests.process.case import TROUBLE, Child
from tests.tunnel.links import AUTHORITY, NAME, NODE, Echo, LinkCase, Said, TunnelServer, credentials, reactor, until
from tests.web_client import get
from yurt.http.dial import Build
from yurt.mux.connection import MuxConnection, MuxLimits
from yurt.tls import Credentials
from yurt.tunnel import quiet as quiet_module
from yurt.tunnel import wear
from yurt.tunnel.agent import connector, dialler, links, routes
from yurt.tunnel.agent.config import AgentConfig
from yurt.tunnel.agent.service import TunnelAgent
from yurt.tunnel.connect import ConnectRefused
from yurt.tunnel.hello import Refusal
from yurt.tunnel.link import HELLO_TIMEOUT
from yurt.tunnel.opening import StreamEndpoint
from yurt.tunnel.quiet import QuietStreams


class FakeNames:
    """
    Names with the addresses that the test gives them.
    """

    def __init__(self, **known: tuple[str, ...]) -> None:
        self.known = {NAME: known.get("addresses", ("127.0.0.1",))}

    def addresses(self, name: str) -> Deferred[tuple[str, ...]]:
        """
        See :class:`yurt.tunnel.agent.names.Names`.
        """
        return succeed(self.known.get(name, ()))


class Cable:
    """
    A TCP relay between agent and server that can be cut without anybody being told.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.is_cut = False
        self.ends: list[End] = []

    def accept(self) -> Protocol:
        """
        A connection of the agent.
        """
        near, far = End(self), End(self)
        near.other, far.other = far, near
        TCP4ClientEndpoint(reactor, "127.0.0.1", self.port).connect(Build(lambda _: far))
        return near


class End(Protocol):
    """
    One side of a connection through a cable.
    """

    other: End

    def __init__(self, cable: Cable) -> None:
        self.cable = cable
        self.held = b""
        cable.ends.append(self)

    def connectionMade(self) -> None:
        self.other.dataReceived(b"")

    def dataReceived(self, data: bytes) -> None:
        self.held += data
        if self.other.transport is not None and not self.cable.is_cut:
            self.other.transport.write(self.held)
            self.held = b""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.other.transport is not None and not self.cable.is_cut:
            self.other.transport.loseConnection()


class AgentCase(LinkCase):
    """
    One agent.
    """

    agent: TunnelAgent

    def begin(self, *servers: TunnelServer, names: FakeNames | None = None, **how: Any) -> TunnelAgent:
        """
        An agent of these servers, which does not wait long between attempts, and is gone after the test.
        """
        known = tuple((NAME, server.port) for server in servers)
        config = AgentConfig("edge-1", known, credentials(NODE), meta_port=0)
        self.agent = agent = TunnelAgent(reactor, replace(config, **how))
        agent.connector.chance = lambda: 0.02
        agent.connector.names = names or FakeNames()  # type: ignore[assignment]  # what is used of it
        agent.startService()
        self.addCleanup(self.end)
        return agent

    async def end(self) -> None:
        """
        Leave.
        """
        for link in list(self.agent.connector.links):
            if link.mux is not None and self.agent.running:
                link.mux.abort("the test is over")
        if self.agent.running:
            await self.agent.stopService()

    async def dial(self, server: TunnelServer, host: str, port: int, inside: Protocol | None = None) -> Any:
        """
        A connection through the agent.
        """
        await until(lambda: server.muxes)
        inside = inside or Said()
        return await StreamEndpoint(server.mux, host, port, reactor=reactor).connect(Build(lambda _: inside))

    async def refused(self, server: TunnelServer, host: str, port: int) -> ConnectRefused:
        """
        Why there is none.
        """
        try:
            await self.dial(server, host, port)
        except ConnectRefused as refused:
            self.assertIn(f"{host}:{port}" if ":" not in host else f"[{host}]:{port}", refused.message)
            return refused
        self.fail("there is a connection")

    def page(self, path: str) -> tuple[int, Any]:
        """
        Status and content of a meta page.
        """
        status, headers, body = get(self.agent.site, path)
        return status, json.loads(body) if headers[b"content-type"] == b"application/json" else body.decode()


class ProxiedTests(AgentCase):
    """
    Tests of an agent whose site lets nothing out but an HTTP proxy.
    """

    def proxy(self, answer: bytes | None = None) -> tuple[SimpleNamespace, str]:
        """
        A proxy, which answers as told or does what it is asked, and its URL.
        """
        proxy = SimpleNamespace(heads=[], answer=answer)

        def build() -> Protocol:
            connection = Proxy()
            connection.factory = cast(Any, proxy)
            return connection

        return proxy, f"http://user:secret@127.0.0.1:{self.listen(build)}"

    async def test_through_a_proxy(self) -> None:
        """
        The proxy is asked for the server by its name, which nobody else need know, and streams go through it.
        """
        server, port = self.serve(), self.listen(Echo)
        proxy, url = self.proxy()
        target = (NAME, server.port)
        allowed = frozenset({port})
        agent = self.begin(server, names=FakeNames(addresses=()), proxies={target: url}, allowed_ports=allowed)
        await until(lambda: agent.connector.connected)
        self.assertTrue(proxy.heads[0].startswith(b"CONNECT %s:%d HTTP/1.1\r\n" % (NAME.encode(), server.port)))
        self.assertIn(b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=", proxy.heads[0])
        said = await self.dial(server, "127.0.0.1", port)
        said.write(b"across")
        await until(lambda: said.has(b"across"))
        self.assertNotIn("secret", json.dumps(agent.connector.routes[0].status()))

    async def test_proxy_that_refuses(self) -> None:
        """
        What the proxy says is the reason, and once it agrees the agent is connected.
        """
        server = self.serve()
        proxy, url = self.proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        agent = self.begin(server, proxies={(NAME, server.port): url})
        await until(lambda: "407 Proxy Authentication Required" in " ".join(agent.connector.problems))
        self.assertNotIn("secret", " ".join(agent.connector.problems))
        proxy.answer = None
        await until(lambda: agent.connector.connected)

    async def test_proxy_that_is_silent(self) -> None:
        """
        A proxy that does not answer, as one that cannot reach the server, is asked once more beside: the agent is connected while
        the first attempt still waits.
        """
        self.patch(connector, "CONNECT_TIMEOUT", 0.05)
        server = self.serve()
        proxy, url = self.proxy(b"")
        agent = self.begin(server, proxies={(NAME, server.port): url})
        await until(lambda: proxy.heads)
        proxy.answer = None
        await until(lambda: agent.connector.connected)
        self.assertNotIn("yurttunnel_agent_connect_failures_total{", self.page("/metrics")[1])


class DialTests(AgentCase):
    """
    Tests of what servers ask the agent to dial.
    """

    async def test_kubelet(self) -> None:
        """
        A server reaches a port of the node by address and by name, and bytes go both ways.
        """
        server, port = self.serve(), self.listen(Echo)
        self.begin(server, allowed_ports=frozenset({port}))
        for host in ("127.0.0.1", "localhost", "edge-1"):
            said = await self.dial(server, host, port)
            said.write(b"hello")
            await until(partial(said.has, b"hello"))
            said.transport.loseConnection()
        await until(lambda: server.mux.streams == 0)
        self.assertIn("yurttunnel_agent_dial_duration_seconds_count 3.0\n", self.page("/metrics")[1])

    async def test_request_and_answer(self) -> None:
        """
        A request that ends by a half-close gets the whole of a large answer, then both ends close.
        """
        answer = os.urandom(1024 * 1024)

        class Kubelet(HalfCloseable):
            def readConnectionLost(self) -> None:
                transport: Any = self.transport
                transport.write(answer)
                transport.loseConnection()

        server, port = self.serve(), self.listen(Kubelet)
        self.begin(server, allowed_ports=frozenset({port}))
        said = await self.dial(server, "127.0.0.1", port, HalfCloseable())
        said.transport.loseWriteConnection()
        await until(lambda: "read" in said.ends)
        self.assertEqual(said.data, answer)
        await until(lambda: server.mux.streams == 0)

    async def test_forbidden(self) -> None:
        """
        Other hosts and other ports are refused, without a dial.
        """
        server, port = self.serve(), self.listen(Echo)
        self.begin(server, names=FakeNames())
        for host, number in (
            ("192.0.2.1", 10250),
            ("127.0.0.1", port),
            (NAME, 22),
            ("0.0.0.0", 10250),
            ("::", 10250),
            ("::ffff:192.0.2.1", 10250),
            ("3221225985", 10250),  # 192.0.2.1, as resolvers read it
            ("0300.0.02.1", 10250),
        ):
            refused = await self.refused(server, host, number)
            self.assertEqual((refused.status, refused.word), (403, "forbidden"))

    async def test_reasons(self) -> None:
        """
        Refused, unknown and silent are told apart.
        """
        server = self.serve()
        with socket.socket() as closed, socket.socket() as full:
            for one in (closed, full):
                one.bind(("127.0.0.1", 0))
            full.listen(0)
            self.patch(dialler, "DIAL_TIMEOUT", 0.1)
            silent, port = full.getsockname()[1], closed.getsockname()[1]
            self.begin(server, allowed_ports=frozenset({silent, port}))
            with socket.create_connection(full.getsockname()):
                timed_out = await self.refused(server, "127.0.0.1", silent)
                refused = await self.refused(server, "127.0.0.1", port)
                unknown = await self.refused(server, "nowhere.invalid", 10250)
                no_name = await self.refused(server, "a..b", 10250)
        self.assertEqual((timed_out.status, timed_out.word), (504, "timeout"))
        self.assertEqual((refused.status, refused.word), (502, "refused"))
        for answer in (unknown, no_name):
            self.assertEqual((answer.status, answer.word), (502, "name-unknown"))
        metrics = self.page("/metrics")[1]
        for word, times in (("timeout", 1), ("refused", 1), ("name-unknown", 2)):
            self.assertIn(f'yurttunnel_agent_refused_total{{reason="{word}"}} {times}.0\n', metrics)

    async def test_silent_name_server(self) -> None:
        """
        A name that nobody answers is given up as a dial is, and told; the lookup is cancelled.
        """
        cancelled: list[Deferred[tuple[str, ...]]] = []

        class SilentNames(FakeNames):
            def addresses(self, name: str) -> Deferred[tuple[str, ...]]:
                return Deferred(cancelled.append)

        server = self.serve()
        self.patch(dialler, "DIAL_TIMEOUT", 0.1)
        agent = self.begin(server)
        agent.dialler._names = SilentNames()  # type: ignore[assignment]  # what is used of it
        refused = await self.refused(server, "nowhere.invalid", 10250)
        self.assertEqual((refused.status, refused.word), (504, "timeout"))
        self.assertIn("name", refused.message)
        self.assertEqual(len(cancelled), 1)

    async def test_side_by_side(self) -> None:
        """
        A dial that hangs keeps no other one from getting through; when its server gives it up, the agent does.
        """
        server, port = self.serve(), self.listen(Echo)
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            silent = full.getsockname()[1]
            self.begin(server, allowed_ports=frozenset({port, silent}))
            with socket.create_connection(full.getsockname()):
                await until(lambda: server.muxes)
                hanging = Deferred.fromCoroutine(self.dial(server, "127.0.0.1", silent))
                said = await self.dial(server, "127.0.0.1", port)
                said.write(b"x")
                await until(lambda: said.data)
                self.assertNoResult(hanging)
                hanging.cancel()
                await self.assertFailure(hanging, CancelledError)
                said.transport.abortConnection()
                await until(lambda: "dials_abandoned_total 1.0" in self.page("/metrics")[1])
        (link,) = self.agent.connector.links
        assert link.mux is not None
        self.assertEqual(link.mux.streams, 0)

    async def test_leaves_nothing(self) -> None:
        """
        Streams that are reset, at whatever moment, leave no descriptor.
        """
        server, port = self.serve(), self.listen(Echo)
        self.begin(server, allowed_ports=frozenset({port}))
        (await self.dial(server, "127.0.0.1", port)).transport.abortConnection()
        await until(lambda: not server.mux.streams)
        before = len(os.listdir("/proc/self/fd"))
        for turn in range(60):
            dialling = Deferred.fromCoroutine(self.dial(server, "127.0.0.1", port))
            dialling.addErrback(lambda failure: failure.trap(CancelledError) and None)
            if turn % 3:
                said = await dialling
                if turn % 3 == 2:
                    said.write(bytes(100_000))
                said.transport.abortConnection()
            else:
                dialling.cancel()
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
        self.assertEqual(server.mux.streams, 0)


class ConnectionTests(AgentCase):
    """
    Tests of how the agent stays connected.
    """

    async def test_what_it_says(self) -> None:
        """
        Its certificate names the node; its hello the addresses that it was given.
        """
        server = self.serve()
        self.begin(server, node_ips=("10.0.0.8", "fd00::8"))
        await until(lambda: server.muxes)
        self.assertEqual((server.nodes, server.hellos[0].addresses), (["edge-1"], ("10.0.0.8", "fd00::8")))
        self.assertEqual(server.hellos[0].host, f"{NAME}:{server.port}")

    async def test_server_dies(self) -> None:
        """
        A server that was killed is found again when it is back, and streams work.
        """
        server, port = self.serve(), self.listen(Echo)
        self.begin(server, allowed_ports=frozenset({port}))
        said = await self.dial(server, "127.0.0.1", port)
        await server.die()
        await until(lambda: said.lost)
        await until(lambda: self.page("/v1/readyz")[0] == 503)
        await until(lambda: "connection refused" in self.page("/v1/readyz")[1]["reasons"][0])
        server.start()
        await until(lambda: self.page("/v1/readyz")[0] == 200)
        (await self.dial(server, "127.0.0.1", port)).transport.abortConnection()

    async def test_cable(self) -> None:
        """
        A link that goes silent, with nobody told, is noticed, and made anew once it is healed.
        """
        limits = MuxLimits(ping_after=0.05, ping_patience=0.05)
        self.patch(connector, "MuxConnection", partial(MuxConnection, limits=limits))
        server = self.serve()
        cable = Cable(server.port)
        port, server.port = server.port, self.listen(cable.accept)
        self.begin(server)
        await until(lambda: self.agent.connector.connected)
        cable.is_cut = True
        await until(lambda: not self.agent.connector.connected)
        self.assertIn("no sign of life", self.page("/v1/status")[1]["servers"][0]["problem"])
        cable.is_cut = False
        await until(lambda: self.agent.connector.connected)
        self.assertIn('disconnects_total{reason="silent"} 1.0', self.page("/metrics")[1])
        server.port = port
        for end in cable.ends:
            end.transport and end.transport.abortConnection()  # type: ignore[attr-defined]

    async def test_silence_in_its_place(self) -> None:
        """
        What takes connections in a server's place and says nothing is asked again and again while it does not answer, so that the
        server is found when it is back: the first attempt would last for longer than this test.
        """
        self.patch(connector, "CONNECT_TIMEOUT", 0.05)
        server = self.serve()
        cable = Cable(server.port)
        cable.is_cut = True
        port, server.port = server.port, self.listen(cable.accept)
        agent = self.begin(server)
        await until(lambda: len(cable.ends) >= 4)
        self.assertEqual(server.hellos, [])
        cable.is_cut = False
        await until(lambda: agent.connector.connected)
        self.assertEqual(len(server.muxes), 1)
        server.port = port
        for end in cable.ends:
            end.transport and end.transport.abortConnection()  # type: ignore[attr-defined]

    test_silence_in_its_place.timeout = HELLO_TIMEOUT / 2  # type: ignore[attr-defined]

    async def test_server_refuses(self) -> None:
        """
        A refusal is shown, and ends when the server takes the agent.
        """
        server = self.serve()
        server.refusal = Refusal(503, "ServiceUnavailable", "this server is full")
        self.begin(server)
        await until(lambda: len(server.hellos) > 1)
        status, ready = self.page("/v1/readyz")
        self.assertEqual((status, ready["ready"]), (503, False))
        self.assertIn("refused: this server is full", ready["reasons"][0])
        server.refusal = None
        await until(lambda: self.page("/v1/readyz")[0] == 200)

    async def test_server_moves(self) -> None:
        """
        A server whose name leads elsewhere now is found there.
        """
        names = FakeNames()
        server = self.serve()
        self.begin(server, names=names)
        await until(lambda: server.muxes)
        names.known[NAME] = ("127.0.0.2",)
        await server.die()
        moved = self.serve("server-2", "127.0.0.2", server.port)
        await until(lambda: moved.muxes)
        await until(lambda: len(self.agent.connector.routes) == len(self.agent.connector.connected) == 1)
        self.assertEqual(self.agent.connector.connected[0].address, "127.0.0.2")

    async def test_two_servers(self) -> None:
        """
        Each server has a link; the agent is ready with one of them, and tells which.
        """
        one, two = self.serve("one"), self.serve("two")
        self.begin(one, two)
        await until(lambda: one.muxes and two.muxes)
        await until(lambda: len(self.page("/v1/readyz")[1]["servers"]) == 2)
        await one.die()
        await until(lambda: len(self.page("/v1/readyz")[1]["servers"]) == 1)
        status, ready = self.page("/v1/readyz")
        self.assertEqual((status, ready["ready"]), (200, True))
        self.assertIn(f"{NAME}:{two.port} (127.0.0.1)", ready["servers"][0]["server"])

    async def test_one_server_twice(self) -> None:
        """
        A server that is reached by two addresses keeps one link, and a stream that runs on the other one is not cut.
        """
        port = self.listen(Echo)
        server = self.serve("same")
        names = FakeNames()
        self.begin(server, names=names, allowed_ports=frozenset({port}))
        said = await self.dial(server, "127.0.0.1", port)
        again = self.serve("same", "127.0.0.2", server.port)
        names.known[NAME] = ("127.0.0.1", "127.0.0.2")
        self.agent.connector.retry()
        await until(lambda: again.muxes and server.muxes[0].peer_going_away)
        said.write(b"still")
        await until(lambda: said.data == b"still")
        self.assertEqual([route.address for route in self.agent.connector.connected], ["127.0.0.2"])
        said.transport.loseConnection()
        await until(lambda: not server.muxes)
        (await self.dial(again, "127.0.0.1", port)).transport.abortConnection()

    async def test_wrong_certificate(self) -> None:
        """
        A server of another CA is not trusted, and the agent says so.
        """
        server = self.serve()
        other = certs.make_ca("other")
        untrusting = Credentials(ca_data=other.cert_pem, cert_data=NODE.cert_pem, key_data=NODE.key_pem)
        self.begin(server, credentials=untrusting)
        await until(lambda: "verify failed" in self.page("/v1/readyz")[1]["reasons"][0])
        self.assertEqual(server.hellos, [])

    async def test_new_certificate(self) -> None:
        """
        Files that were replaced are used for the next connection.
        """
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "ca.pem").write_bytes(AUTHORITY.cert_pem)
        (folder / "node.pem").write_bytes(NODE.cert_pem + NODE.key_pem)
        server = self.serve()
        self.begin(server, credentials=Credentials(ca_file=str(folder / "ca.pem"), cert_file=str(folder / "node.pem")))
        await until(lambda: server.muxes)
        renewed = certs.issue(AUTHORITY, "system:node:edge-renewed")
        (folder / "new").write_bytes(renewed.cert_pem + renewed.key_pem)
        (folder / "new").rename(folder / "node.pem")
        await server.die()
        server.start()
        await until(lambda: server.muxes)
        self.assertEqual(server.nodes, ["edge-1", "edge-renewed"])

    async def test_before_expiry(self) -> None:
        """
        Before a certificate expires a link is followed by another one: what runs goes on, and new streams find no gap.
        """
        for name in ("RENEW_FROM", "RENEW_UNTIL"):
            self.patch(wear, name, 0.0)
        for module in (links, routes):
            self.patch(module, "LOOK", 0.05)
        server, port = self.serve(), self.listen(Echo)
        self.begin(server, allowed_ports=frozenset({port}))
        said = await self.dial(server, "127.0.0.1", port)
        first = server.muxes[0]
        while server.muxes[-1] is first or not first.peer_going_away:
            (await self.dial(server, "127.0.0.1", port)).transport.abortConnection()
        said.write(b"still")
        await until(lambda: said.data == b"still")
        said.transport.loseConnection()
        await until(lambda: first not in server.muxes)
        self.assertEqual(set(server.lost), {"the peer closed the connection"})

    async def test_server_leaves(self) -> None:
        """
        A server that is about to stop and comes back: the streams that run go on, new ones use the new link.
        """
        server, port = self.serve(), self.listen(Echo)
        self.begin(server, allowed_ports=frozenset({port}))
        said = await self.dial(server, "127.0.0.1", port)
        server.mux.go_away()
        await until(lambda: len(server.muxes) == 2)
        (await self.dial(server, "127.0.0.1", port)).transport.abortConnection()
        said.write(b"still")
        await until(lambda: said.data == b"still")
        said.transport.abortConnection()


class DrainTests(AgentCase):
    """
    Tests of the stop.
    """

    async def test_streams_end(self) -> None:
        """
        The server is told, new streams are refused, and the agent leaves when the last one has ended.
        """
        server, port = self.serve(), self.listen(Echo)
        self.begin(server, allowed_ports=frozenset({port}))
        said = await self.dial(server, "127.0.0.1", port)
        stopping = self.agent.stopService()
        await until(lambda: server.muxes[0].peer_going_away)
        self.assertTrue(self.page("/v1/status")[1]["draining"])
        self.assertEqual(self.page("/v1/readyz")[0], 503)
        self.assertEqual(self.page("/v1/readyz")[1]["reasons"], ["the agent is about to stop"])
        said.write(b"still")
        await until(lambda: said.data == b"still")
        self.assertNoResult(stopping)
        said.transport.loseConnection()
        await stopping
        await until(lambda: not server.muxes)
        self.assertEqual((len(server.hellos), server.lost), (1, ["the peer closed the connection"]))

    async def test_bounded(self) -> None:
        """
        Streams that do not end are cut when the time is over.
        """
        server, port = self.serve(), self.listen(Echo)
        self.begin(server, allowed_ports=frozenset({port}), drain_timeout=0.05)
        said = await self.dial(server, "127.0.0.1", port)
        await self.agent.stopService()
        await until(lambda: said.lost)
        await until(lambda: not server.muxes)

    async def test_quiet(self) -> None:
        """
        Streams on which nothing is said are waited for no longer, while others go on: nobody reaches the node meanwhile.
        """
        self.patch(connector, "QuietStreams", partial(QuietStreams, after=0.2))
        self.patch(quiet_module, "STEP", 0.02)
        server, port = self.serve(), self.listen(Echo)
        self.begin(server, allowed_ports=frozenset({port}))
        busy, quiet = [await self.dial(server, "127.0.0.1", port) for _ in range(2)]
        stopping = self.agent.stopService()
        while not quiet.lost:
            busy.write(b"x")
            await deferLater(reactor, 0.02, lambda: None)
        self.assertIsNone(busy.lost)
        self.assertNoResult(stopping)
        busy.transport.loseConnection()
        await stopping

    async def test_nothing_to_wait_for(self) -> None:
        """
        Without a stream, or without a link, the agent leaves at once.
        """
        server = self.serve()
        self.begin(server)
        await until(lambda: self.agent.connector.connected)
        await self.agent.stopService()
        await until(lambda: not server.muxes)
        await server.stop_listening()
        self.begin(server)
        await self.agent.stopService()
        self.assertEqual(self.agent.connector.links, set())

    async def test_late_stream(self) -> None:
        """
        A stream that the server opened before it was told is refused as one that comes too late.
        """
        server = self.serve()
        self.begin(server)
        await until(lambda: server.muxes)
        self.agent.dialler.draining = True
        refused = await self.refused(server, "127.0.0.1", 10250)
        self.assertEqual((refused.status, refused.word), (503, "draining"))


class ProcessTests(LinkCase):
    """
    Tests of ``twistd yurt-tunnel-agent`` as a process.
    """

    async def test_life(self) -> None:
        """
        It connects, serves a stream, and at SIGTERM lets that end before it leaves as an init system expects.
        """
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        for name, content in (("ca", AUTHORITY.cert_pem), ("cert", NODE.cert_pem), ("key", NODE.key_pem)):
            (folder / name).write_bytes(content)
        server, port, child = self.serve(), self.listen(Echo), Child()
        argv = [
            str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "yurt-tunnel-agent", "--node-name=edge-1",
            f"--tunnelserver-addr=localhost:{server.port}", f"--tls-cert-file={folder}/cert", "--meta-port=0",
            f"--tls-private-key-file={folder}/key", f"--client-ca-file={folder}/ca", f"--allowed-ports={port}",
        ]  # fmt: skip
        process = reactor.spawnProcess(child, argv[0], argv, env=dict(os.environ), path=str(folder))
        self.addCleanup(lambda: None if child.status is not None else process.signalProcess("KILL"))
        await until(lambda: server.muxes)
        dialling = StreamEndpoint(server.mux, "127.0.0.1", port, reactor=reactor).connect(Build(lambda _: Said()))
        said: Any = await dialling
        process.signalProcess("TERM")
        await until(lambda: server.muxes[0].peer_going_away)
        said.write(b"still")
        await until(lambda: said.data)
        self.assertIsNone(child.status)
        said.transport.loseConnection()
        await child.ended
        self.assertIn(child.status, (0, 143, -15))
        self.assertNotRegex(child.said, TROUBLE)
        self.assertIn(b"the agent has stopped", child.said)


class PageTests(AgentCase):
    """
    Tests of the meta pages.
    """

    async def test_pages(self) -> None:
        """
        Health is the event loop's, readiness that of the links; the status tells everything, the metrics count it.
        """
        server = self.serve()
        await server.stop_listening()
        self.begin(server)
        self.assertEqual(self.page("/v1/healthz"), (200, "OK"))
        self.assertEqual(self.page("/v1/readyz")[0], 503)
        server.start()
        await until(lambda: self.agent.connector.connected)
        status, ready = self.page("/v1/readyz")
        self.assertEqual((status, ready["ready"], ready["reasons"]), (200, True, []))
        self.assertRegex(ready["servers"][0]["since"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        whole = self.page("/v1/status")[1]
        self.assertEqual((whole["node"], whole["ports"], whole["problems"]), ("edge-1", [10250, 10255], []))
        self.assertEqual(
            {key: whole["servers"][0][key] for key in ("address", "state", "serverId", "streams")},
            {"address": "127.0.0.1", "state": "connected", "serverId": "server-1", "streams": 0},
        )
        metrics = self.page("/metrics")[1]
        for line in (
            "yurttunnel_agent_servers 1.0",
            "yurttunnel_agent_connects_total 1.0",
            "yurttunnel_agent_certificate_expiry_seconds 8",
            "process_resident_memory_bytes ",
        ):
            self.assertIn(line, metrics)
