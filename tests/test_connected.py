"""
Tests of :mod:`yurt.connected`.
"""

import socket

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from yurt.connected import Connected


class Keeper(Protocol):
    """
    Keeps what comes, and tells of the end.
    """

    def __init__(self) -> None:
        self.received = b""
        self.over: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.over.callback(None)


class ConnectedTests(TestCase):
    """
    Tests of :class:`Connected`.
    """

    async def test_conversation(self) -> None:
        """
        It is a transport of either family: with both addresses, a name, reads, writes and an end.
        """
        for host, family, kind in (("127.0.0.1", socket.AF_INET, IPv4Address), ("::1", socket.AF_INET6, IPv6Address)):
            with socket.create_server((host, 0), family=family) as listening, socket.socket(family) as client:
                client.connect(listening.getsockname())
                handle, peer = listening.accept()
                wire = Connected(handle, peer, reactor)
                keeper = Keeper()
                wire.begin(keeper)
                self.assertEqual(wire.getPeer(), kind("TCP", *client.getsockname()))
                self.assertEqual(wire.getHost(), kind("TCP", *listening.getsockname()))
                self.assertEqual(repr(wire), f"<Keeper with {host} port {peer[1]}>")
                client.sendall(b"hello")
                while not keeper.received:
                    await deferLater(reactor, 0)
                self.assertEqual(keeper.received, b"hello")
                wire.write(b"good-bye")
                wire.loseConnection()
                await keeper.over
                self.assertEqual(client.recv(10), b"good-bye")
                self.assertEqual(client.recv(10), b"")
                self.assertEqual((wire.getPeer(), wire.logPrefix()), (kind("TCP", *client.getsockname()), "NoneType"))

    def test_nothing_before_it_begins(self) -> None:
        """
        Until somebody is there who takes what comes, the reactor does not know of it.
        """
        here, there = socket.socketpair()
        self.addCleanup(here.close)
        self.addCleanup(there.close)
        Connected(here, ("nobody", 1), reactor)
        self.assertNotIn(here.fileno(), {reader.fileno() for reader in reactor.getReaders()})
