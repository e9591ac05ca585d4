"""
Tests of :mod:`yurt.http.wire`.
"""

from __future__ import annotations

import random
import socket
from hashlib import sha256
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from yurt.http.wire import KEEPALIVE_AFTER, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES, MAX_AT_ONCE, tune


class Talker(Protocol):
    """
    Sends with a tuned wire.
    """

    def connectionMade(self) -> None:
        tune(self.transport)


class Listener(Protocol):
    """
    Reads nothing until it is told to, then hashes all.
    """

    def __init__(self) -> None:
        self.seen = sha256()
        self.size = 0
        self.over: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        cast(Any, self.transport).pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        self.seen.update(data)
        self.size += len(data)

    def connectionLost(self, reason: object = None) -> None:
        self.over.callback(None)


class WriteAtOnceTests(TestCase):
    """
    Writes that go to the socket without a turn of the reactor.
    """

    async def connect(self) -> tuple[Talker, Listener]:
        """
        Both ends of a connection.
        """
        listener = Listener()
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(lambda: listener))
        self.addCleanup(port.stopListening)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        talker = await endpoint.connect(Factory.forProtocol(Talker))
        return cast(Talker, talker), listener

    async def test_probed(self) -> None:
        """
        A peer that says nothing is asked after a minute whether it is still there, not after the two hours of Linux.
        """
        talker, listener = await self.connect()
        handle = cast(Any, talker.transport).getHandle()
        self.assertEqual(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        found = [handle.getsockopt(socket.IPPROTO_TCP, name) for name in names]
        self.assertEqual(found, [KEEPALIVE_AFTER, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES])
        cast(Any, talker.transport).loseConnection()
        cast(Any, listener.transport).resumeProducing()
        await listener.over

    async def test_order_under_pressure(self) -> None:
        """
        What is written arrives whole and in order, also when the peer reads nothing for a while and the kernel takes only parts.
        """
        talker, listener = await self.connect()
        dice = random.Random(5)
        sent = sha256()
        size = 0
        while size < 24 * 1024 * 1024:
            piece = dice.randbytes(dice.choice((1, 100, 5000, MAX_AT_ONCE, MAX_AT_ONCE + 1, 300_000)))
            cast(Any, talker.transport).write(piece)
            sent.update(piece)
            size += len(piece)
        cast(Any, listener.transport).resumeProducing()
        cast(Any, talker.transport).loseConnection()
        await listener.over
        self.assertEqual((listener.size, listener.seen.hexdigest()), (size, sent.hexdigest()))

    async def test_written_before_close(self) -> None:
        """
        A close sends what was written before it.
        """
        talker, listener = await self.connect()
        cast(Any, talker.transport).write(b"last words")
        cast(Any, talker.transport).loseConnection()
        cast(Any, listener.transport).resumeProducing()
        await listener.over
        self.assertEqual(listener.seen.hexdigest(), sha256(b"last words").hexdigest())

    async def test_peer_gone(self) -> None:
        """
        Writing to a peer that is gone raises nothing and ends the connection in the usual way.
        """
        talker, listener = await self.connect()
        lost: Deferred[None] = Deferred()
        talker.connectionLost = lambda reason=None: lost.callback(None)  # type: ignore[method-assign]
        cast(Any, talker.transport).pauseProducing()
        cast(Any, listener.transport).abortConnection()
        await listener.over
        for _ in range(3):
            cast(Any, talker.transport).write(b"is anybody there?")
        await lost
