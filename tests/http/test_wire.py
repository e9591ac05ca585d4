"""
Tests of :mod:`yurt.http.wire`.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from yurt.http import wire
from yurt.http.wire import (
    MAX_AT_ONCE,
    MAX_PIECES,
    STREAM_AT_ONCE,
    EagerPoll,
    one_write,
    plain_turns,
    send_at_once,
    send_by_turn,
    tune,
)
from yurt.sockets import KEEPALIVE_AFTER, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES


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

    async def test_pieces_in_a_row(self) -> None:
        """
        The pieces that were collected arrive whole and in order, also when the kernel takes some of them, or a part of one.
        """
        talker, listener = await self.connect()
        transport = cast(Any, talker.transport)
        send_at_once(transport, STREAM_AT_ONCE)
        dice = random.Random(6)
        sent = sha256()
        size = 0
        while size < 24 * 1024 * 1024:
            pieces = [dice.randbytes(dice.choice((1, 10, 5000, 60_000))) for _ in range(dice.choice((1, 4, MAX_PIECES + 1)))]
            with one_write:
                for piece in pieces:
                    transport.write(piece)
                    sent.update(piece)
                    size += len(piece)
        cast(Any, listener.transport).resumeProducing()
        transport.loseConnection()
        await listener.over
        self.assertEqual((listener.size, listener.seen.hexdigest()), (size, sent.hexdigest()))

    async def test_views(self) -> None:
        """
        What a view shows is sent as it was when it was written, unless whoever collects lets views outlast that: then those that
        are not just passing are not copied.
        """
        talker, listener = await self.connect()
        transport = cast(Any, talker.transport)
        self.assertTrue(wire.takes_views(transport))
        self.assertFalse(wire.takes_views(listener.transport))
        shown = bytearray(b"-")

        def write_all() -> None:
            for how in (transport.write, partial(wire.write_view, transport)):
                shown[:] = b"a"
                how(memoryview(shown))
                shown[:] = b"b"

        write_all()
        with one_write:
            write_all()
        with one_write:
            one_write.keep_views()
            write_all()
            with one_write:
                write_all()
        with one_write, one_write:
            one_write.keep_views()
            write_all()
        cast(Any, listener.transport).resumeProducing()
        transport.loseConnection()
        await listener.over
        self.assertEqual(listener.seen.hexdigest(), sha256(b"aaaababaaa").hexdigest())

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

    async def test_closed_at_once(self) -> None:
        """
        A connection that holds nothing waits for no turn in which it could be written to before it is closed, or half closed.
        """
        for end in (wire.close, wire.half_close):
            talker, listener = await self.connect()
            transport = cast(Any, talker.transport)
            with wire.one_write:
                transport.write(b"last words")
                end(transport)
            self.assertNotIn(transport, reactor.getWriters())
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


class Answering(Protocol):
    """
    Answers what it hears in one go, and notes what the first client has heard by then.
    """

    def __init__(self, case: ByTurnTests) -> None:
        self.case = case

    def connectionMade(self) -> None:
        tune(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.case.heard_before.append(heard(self.case.clients[0]))
        transport = cast(Any, self.transport)
        with one_write:
            transport.write(b"answer to ")
            transport.write(data)
            if data.startswith(b"end"):
                one_write.message_ended()
                self.case.heard_after.append([heard(client) for client in self.case.clients])
        if data == b"fail":
            raise RuntimeError("so it should")
        if data == b"bye":
            transport.loseConnection()


def heard(client: socket.socket) -> bytes:
    """
    What has arrived at ``client``, without taking it.
    """
    try:
        return client.recv(1000, socket.MSG_PEEK)
    except BlockingIOError:
        return b""


class ByTurnTests(SynchronousTestCase):
    """
    Tests of :func:`send_by_turn`, on a reactor of their own.
    """

    take_turns = staticmethod(send_by_turn)

    def setUp(self) -> None:
        self.reactor = EPollReactor()
        self.addCleanup(self.close)
        self.take_turns(self.reactor)
        self.heard_before: list[bytes] = []
        self.heard_after: list[list[bytes]] = []
        port = self.reactor.listenTCP(0, Factory.forProtocol(lambda: Answering(self)), interface="127.0.0.1")
        self.clients = [socket.create_connection(("127.0.0.1", cast(Any, port).getHost().port)) for _ in range(2)]
        for client in self.clients:
            client.setblocking(False)
        self.turn_until(lambda: len(self.reactor.getReaders()) >= 3)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        for one in self.reactor.removeAll():
            cast(Any, one).connectionLost(Failure(ConnectionDone()))

    def turn_until(self, done: Callable[[], bool]) -> None:
        """
        Turns of the reactor until something has happened.
        """
        for _ in range(1000):
            if done():
                return
            self.reactor.iterate(0.01)
        self.fail("waited in vain")

    def say(self, *words: bytes) -> None:
        """
        What the clients say arrives before the next turn.
        """
        for client, word in zip(self.clients, words, strict=False):
            client.send(word)
        self.turn_until(lambda: len(self.heard_before) >= len(words))

    def test_in_a_row(self) -> None:
        """
        What is written in a turn leaves when all events of it are carried out, in one piece for each connection.
        """
        self.patch(wire, "HELD_FOR", 60.0)
        self.say(b"one", b"two")
        self.assertEqual(self.heard_before, [b"", b""])
        self.assertEqual([heard(client) for client in self.clients], [b"answer to one", b"answer to two"])

    def test_long_turns(self) -> None:
        """
        It waits no longer than it may for the other events.
        """
        self.patch(wire, "HELD_FOR", 0.0)
        self.say(b"one", b"two")
        self.assertEqual(sorted(self.heard_before)[0], b"")
        self.assertEqual([heard(client) for client in self.clients], [b"answer to one", b"answer to two"])

    def test_ended_message(self) -> None:
        """
        The end of a message leaves before its event is wholly carried out, when it is the last one of the turn.
        """
        self.say(b"end")
        self.assertEqual(self.heard_after, [[b"answer to end", b""]])

    def test_ended_messages(self) -> None:
        """
        The ends of messages wait for each other: they leave with that of the last event.
        """
        self.patch(wire, "HELD_FOR", 60.0)
        self.say(b"end 1", b"end 2")
        self.assertEqual(self.heard_after, [[b"", b""], [b"answer to end 1", b"answer to end 2"]])

    def test_before_a_close(self) -> None:
        """
        A close sends what was written before it.
        """
        self.say(b"bye")
        self.turn_until(lambda: heard(self.clients[0]) != b"")
        self.assertEqual(self.clients[0].recv(1000), b"answer to bye")
        self.turn_until(lambda: self.at_end(self.clients[0]))

    def at_end(self, client: socket.socket) -> bool:
        """
        Whether the other side has closed.
        """
        try:
            return client.recv(1000) == b""
        except BlockingIOError:
            return False

    def test_failure(self) -> None:
        """
        An event that fails keeps no other from being carried out.
        """
        self.say(b"fail", b"two")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(heard(self.clients[1]), b"answer to two")

    def test_other_reactors(self) -> None:
        """
        A reactor of another kind is left as it is.
        """
        send_by_turn(Clock())


class PlainTurnsTests(ByTurnTests):
    """
    Tests of :func:`plain_turns`, where each event sends what it has to say.
    """

    take_turns = staticmethod(plain_turns)

    def test_in_a_row(self) -> None:
        """
        What is written for one event leaves before the next one is carried out.
        """
        self.say(b"one", b"two")
        self.assertEqual(self.heard_before, [b"", b"answer to one"])
        self.assertEqual([heard(client) for client in self.clients], [b"answer to one", b"answer to two"])

    def test_ended_messages(self) -> None:
        """
        The end of a message leaves at once.
        """
        self.say(b"end 1", b"end 2")
        self.assertEqual(self.heard_after, [[b"answer to end 1", b""], [b"answer to end 1", b"answer to end 2"]])


class EagerPollTests(SynchronousTestCase):
    """
    Tests of :class:`EagerPoll`.
    """

    def setUp(self) -> None:
        self.patch(wire, "SOON", 1.0)
        self.now = 0.0
        self.comes = 0.0
        self.slept: list[float] = []
        self.gave_way = 0
        self.eager = EagerPoll(self.poll, lambda: self.now, self.give_way)

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        """
        A kernel whose next event comes at ``comes``; a sleep that it ends takes 0.5 s more.
        """
        if timeout:
            self.slept.append(timeout)
            until = self.comes + 0.5
            self.now = max(self.now, until if timeout < 0 else min(until, self.now + timeout))
        return [(most, 1)] if self.now >= self.comes else []

    def give_way(self) -> None:
        self.gave_way += 1
        self.now += 0.25

    def wait(self, seconds: float, timeout: float = -1) -> list[tuple[int, int]]:
        """
        Wait for an event that comes after so many seconds.
        """
        self.comes = self.now + seconds
        self.slept.clear()
        return self.eager(timeout, 5)

    def test_soon(self) -> None:
        """
        After an event that came soon the next one is not slept for, and others may run meanwhile.
        """
        for slept in ([-1], [], []):
            self.assertEqual(self.wait(0.25), [(5, 1)])
            self.assertEqual(self.slept, slept)
        self.assertEqual(self.gave_way, 2)

    def test_late(self) -> None:
        """
        One that does not come soon is slept for in the end, and the next one at once.
        """
        self.wait(0.25)
        self.assertEqual(self.wait(10), [(5, 1)])
        self.assertEqual((self.slept, self.gave_way), ([-1], 4))
        self.assertEqual(self.wait(0.25), [(5, 1)])
        self.assertEqual((self.slept, self.gave_way), ([-1], 4))

    def test_there_already(self) -> None:
        """
        What is there is not waited for.
        """
        self.assertEqual(self.wait(0), [(5, 1)])
        self.assertEqual((self.slept, self.gave_way), ([], 0))

    def test_timers(self) -> None:
        """
        A timer that is due is not held up by events that might come, nor one that is due soon.
        """
        self.wait(0.25)
        self.assertEqual(self.wait(1, timeout=0), [])
        self.wait(0.25)
        self.assertEqual(self.wait(1, timeout=0.5), [])
        self.assertEqual((self.slept, self.gave_way), ([0.5], 0))
        self.wait(0.25)
        self.assertEqual(self.wait(10, timeout=2.0), [])
        self.assertEqual((self.slept, self.gave_way), ([2.0], 4))
