"""
Tests of :mod:`yurt.tunnel.server.abandoned`: real callers of a whole server, before a node that takes nothing.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.ports import free_port
from tests.tunnel.server.site import LOOPBACK, Agent, Client, Site, until
from yurt.tunnel.server import abandoned
from yurt.tunnel.server.abandoned import LINGER, LOOK, PATIENCE, Abandoned, Open
from yurt.tunnel.server.service import TunnelServer

KUBELET = ("10.0.0.8", 10250)
PIECE = bytes(1024 * 1024)


class Deaf(Client):
    """
    A kubelet that reads nothing.
    """

    def connectionMade(self) -> None:
        self.wire.pauseProducing()


class AbandonedTests(TestCase):
    """
    Tests of the service.
    """

    timeout = 180

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
        self.site = Site(self, reactor)
        self.server: TunnelServer = self.site.server()
        self.kubelets: list[Deaf] = []
        kubelets = self.kubelets

        class Kubelet(Deaf):
            def connectionMade(self) -> None:
                kubelets.append(self)  # the reactor does not keep what is not read
                super().connectionMade()

        self.agent: Agent = await self.site.agent(self.server, target=self.site.listen(Kubelet))

    async def caller(self, port: int, *, diverted: bool = False, head: bytes = b"") -> socket.socket:
        """
        A caller that has sent more than there is room for.
        """
        local = free_port()
        if diverted:
            self.site.destinations[local] = KUBELET
        caller = socket.create_connection((LOOPBACK, port), source_address=(LOOPBACK, local))
        self.addCleanup(caller.close)
        caller.setblocking(False)
        caller.sendall(head)
        await until(self.reactor, lambda: self.agent.mux.streams == 1)
        stalled = 0
        while stalled < 50:
            try:
                caller.send(PIECE)
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


class FakeReactor(Clock):
    """
    A clock whose reactor reads from nobody.
    """

    def getReaders(self) -> list[object]:
        """
        See IReactorFDSet.
        """
        return []


class FakeTransport:
    """
    The server's end of a Unix socket, the other one of which is ``caller``.
    """

    connected = True

    def __init__(self) -> None:
        self.socket, self.caller = socket.socketpair()
        self.aborted = 0

    def fileno(self) -> int:
        """
        See IReadDescriptor.
        """
        return self.socket.fileno()

    def getPeer(self) -> object:
        """
        See ITransport.
        """
        return object()

    def abortConnection(self) -> None:
        """
        See IAbortable.
        """
        self.aborted += 1


class PatienceTests(SynchronousTestCase):
    """
    Tests of how long an abandoned connection is let be.
    """

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.transport = FakeTransport()
        self.addCleanup(self.transport.socket.close)
        self.addCleanup(self.transport.caller.close)
        self.open = Open(self.transport, False)
        self.told: list[str] = []
        self.service = Abandoned(self.reactor, lambda: [self.open], self.told.append)
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def passes(self, seconds: float) -> None:
        """
        So much time passes, with its looks.
        """
        self.reactor.pump([LOOK] * int(seconds / LOOK))

    def test_caller_that_waits(self) -> None:
        """
        A caller that is there is never cut.
        """
        self.transport.caller.sendall(b"x")
        self.passes(10 * LINGER)
        self.assertEqual(self.transport.aborted, 0)

    def test_nothing_is_taken(self) -> None:
        """
        One that is gone is cut when nothing of what it sent was taken for PATIENCE, counted from the last that was, and told.
        """
        self.transport.caller.sendall(b"some bytes")
        self.transport.caller.close()
        for number in range(1, 20):
            self.passes(PATIENCE)
            self.open = replace(self.open, passed_on=number)
        self.passes(PATIENCE)
        self.transport.socket.recv(4)
        self.passes(PATIENCE)
        self.assertEqual((self.transport.aborted, self.told), (0, []))
        self.passes(LOOK)
        self.assertEqual((self.transport.aborted, len(self.told)), (1, 1))

    def test_is_being_closed(self) -> None:
        """
        The kernel's tables are not read for a connection that is not read for a moment, as each is that is being closed.
        """
        asked: list[str] = []

        def is_own(host: str) -> bool:
            asked.append(host)
            return False

        self.service._is_own = is_own
        self.transport.getPeer = lambda: IPv4Address("TCP", "192.0.2.1", 1)  # type: ignore[method-assign]
        self.passes(LOOK)
        self.assertEqual(asked, [])
        self.passes(LOOK)
        self.assertEqual(asked, ["192.0.2.1"])

    def test_all_was_passed_on(self) -> None:
        """
        Where its end was read, too, the node has LINGER for what it still has to read.
        """
        self.open = replace(self.open, ended=True)
        self.transport.caller.close()
        self.passes(LOOK)
        self.passes(LINGER)
        self.assertEqual(self.transport.aborted, 0)
        self.passes(LOOK)
        self.assertEqual(self.transport.aborted, 1)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
