"""
Tests of :mod:`yurt.tunnel.server.abandoned`: real callers of a whole server, before a node that takes nothing.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.tunnel.server.site import LOOPBACK, PATIENCE, Agent, Client, Site, free_ports, until
from yurt.tunnel.server import abandoned
from yurt.tunnel.server.service import TunnelServer

KUBELET = ("10.0.0.8", 10250)
PIECE = bytes(64 * 1024)


class Deaf(Client):
    """
    A kubelet that reads nothing, until it is told to read a piece now and then.
    """

    taken = 0

    def connectionMade(self) -> None:
        self.wire.pauseProducing()

    def read_slowly(self) -> None:
        """
        Read one piece every few milliseconds.
        """
        self.wire.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        self.taken += len(data)
        self.wire.pauseProducing()
        self.wire.reactor.callLater(0.02, self.wire.resumeProducing)


class AbandonedTests(TestCase):
    """
    Tests of the service.
    """

    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]
        self.reactor: Any = reactor
        self.patch(abandoned, "LOOK", 0.02)
        self.patch(abandoned, "PATIENCE", 0.2)
        self.patch(abandoned, "LINGER", 0.4)
        self.looks = 0
        look = abandoned.Abandoned.look

        def counted(service: abandoned.Abandoned) -> None:
            look(service)
            self.looks += 1

        self.patch(abandoned.Abandoned, "look", counted)
        self.sent = 0
        self.site = Site(self, reactor)
        self.server: TunnelServer = self.site.server()
        self.kubelets: list[Deaf] = []
        kubelets = self.kubelets

        class Kubelet(Deaf):
            def connectionMade(self) -> None:
                kubelets.append(self)
                super().connectionMade()

        self.agent: Agent = await self.site.agent(self.server, target=self.site.listen(Kubelet))

    async def caller(self, port: int, *, diverted: bool = False, head: bytes = b"") -> socket.socket:
        """
        A caller that has sent more than there is room for.
        """
        local = free_ports(1)[0]
        if diverted:
            self.site.destinations[local] = KUBELET
        caller = socket.create_connection((LOOPBACK, port), source_address=(LOOPBACK, local))
        self.addCleanup(caller.close)
        caller.setblocking(False)
        caller.sendall(head)
        await until(self.reactor, lambda: self.agent.mux.streams == 1)
        stalled = self.sent = 0
        while stalled < 50:
            try:
                self.sent += caller.send(PIECE)
                stalled = 0
            except BlockingIOError:
                stalled += 1
            await deferLater(self.reactor, 0.002)
        return caller

    async def is_cut(self) -> None:
        """
        Wait until nothing is left of the connection.
        """
        await until(self.reactor, lambda: not self.agent.mux.streams and not self.server.diverted.splices)

    async def many_looks(self) -> None:
        """
        Wait for longer than anybody's patience.
        """
        seen = self.looks
        began = self.reactor.seconds()
        await until(self.reactor, lambda: self.looks > seen + 5 and self.reactor.seconds() - began > 3 * abandoned.PATIENCE)

    async def test_diverted(self) -> None:
        """
        A caller that waits is let wait; one that closed is gone, though its kernel cannot say so, and its connection is reset.
        """
        caller = await self.caller(self.server.config.secure_port, diverted=True)
        await self.many_looks()
        self.assertEqual(self.agent.mux.streams, 1)
        caller.close()
        await self.is_cut()

    async def test_request(self) -> None:
        """
        So is the caller of a request in plain HTTP, and of a CONNECT.
        """
        self.server.nodes.learn("edge-1", ("10.0.0.8",))
        upload = b"POST /x HTTP/1.1\r\nHost: edge-1:10255\r\nContent-Length: 1000000000\r\n\r\n"
        for head in (upload, b"CONNECT edge-1:10255 HTTP/1.1\r\nHost: edge-1\r\n\r\n"):
            caller = await self.caller(self.server.config.insecure_port, head=head)
            await self.many_looks()
            self.assertEqual(self.agent.mux.streams, 1)
            caller.close()
            await self.is_cut()

    async def test_half_closed(self) -> None:
        """
        A caller that has sent all and waits for the answer is not gone.
        """
        client = await self.site.connect(self.server.config.secure_port, KUBELET)
        client.wire.write(b"all")
        client.wire.loseWriteConnection()
        await until(self.reactor, lambda: self.agent.mux.streams == 1)
        await self.many_looks()
        self.assertEqual(self.agent.mux.streams, 1)
        self.assertIsNone(client.lost)
        client.wire.abortConnection()
        await self.is_cut()

    async def test_slow_node(self) -> None:
        """
        A node that still takes what was sent gets all of it, however long that is after its caller has gone.
        """
        self.patch(abandoned, "PATIENCE", 1.0)
        self.patch(abandoned, "LINGER", PATIENCE)
        caller = await self.caller(self.server.config.secure_port, diverted=True)
        caller.close()
        began = self.reactor.seconds()
        (kubelet,) = self.kubelets
        kubelet.read_slowly()
        await until(self.reactor, lambda: kubelet.ended)
        self.assertEqual(kubelet.taken, self.sent)
        self.assertGreater(self.reactor.seconds() - began, abandoned.PATIENCE)
        kubelet.wire.loseConnection()
        await self.is_cut()
