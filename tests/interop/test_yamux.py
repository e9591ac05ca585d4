"""
:mod:`yurt.mux` against the Go implementation of yamux, in both roles.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import subprocess
import tempfile
from functools import cache
from glob import glob
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from yurt.mux.connection import MuxConnection, MuxStream
from yurt.mux.frames import MuxClosed

reactor: Any = any_reactor
SOURCE = Path(__file__).parent / "yamux" / "main.go"
GO_PATH = "/usr/share/gocode"
STREAMS = 3000
AT_ONCE = 60
"""Streams open at the same time; the Go side resets those that it has no room for, more than 256 not yet accepted."""


def go_program() -> str | None:
    """
    The Go tool, if there is one.
    """
    found = shutil.which("go")
    return found or next(iter(sorted(glob("/usr/lib/go-*/bin/go"), reverse=True)), None)


def missing() -> str | None:
    """
    Why there is no Go implementation to test against, if so.
    """
    if go_program() is None:
        return "there is no Go compiler (package golang-go)"
    if not os.path.isdir(f"{GO_PATH}/src/github.com/hashicorp/yamux"):
        return "there is no Go yamux (package golang-github-hashicorp-yamux-dev)"
    return None


@cache
def build() -> str:
    """
    Compile the Go side, once.
    """
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = os.path.join(folder, "peer")
    environ = dict(os.environ, GO111MODULE="off", GOPATH=GO_PATH, GOCACHE=f"{folder}/cache", GOFLAGS="", CGO_ENABLED="0")
    command = [cast(str, go_program()), "build", "-o", program, str(SOURCE)]
    subprocess.run(command, env=environ, check=True, timeout=300)
    return program


class Peer(ProcessProtocol):
    """
    The Go side's process: what it printed, and how it ended.
    """

    def __init__(self) -> None:
        self.printed = b""
        self.ended: Deferred[int | None] = Deferred()

    def errReceived(self, data: bytes) -> None:
        self.printed += data

    outReceived = errReceived

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(cast(Any, reason.value).exitCode)


class Summer(Protocol):
    """
    Reads a line with a length, that many bytes, and answers with their SHA-256.
    """

    def __init__(self) -> None:
        self._head = b""
        self._left: int | None = None
        self._sum = sha256()

    def dataReceived(self, data: bytes) -> None:
        if self._left is None:
            self._head += data
            line, end, data = self._head.partition(b"\n")
            if not end:
                return
            self._left = int(line)
        self._left -= len(data)
        self._sum.update(data)
        if self._left == 0:
            transport: Any = self.transport
            transport.write(self._sum.hexdigest().encode())
            transport.loseConnection()


@implementer(IHalfCloseableProtocol)
class Asker(Protocol):
    """
    Writes all, ends its direction if told to, and waits for the end of the answer.
    """

    def __init__(self, question: bytes, end: bool) -> None:
        self._question = question
        self._end = end
        self._answer: list[bytes] = []
        self.over: Deferred[bytes] = Deferred()
        self.first: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(self._question)
        if self._end:
            transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        self._answer.append(data)
        if not self.first.called:
            self.first.callback(None)

    def readConnectionLost(self) -> None:
        cast(Any, self.transport).loseConnection()

    def writeConnectionLost(self) -> None:
        """
        The end was sent.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason is connectionDone:
            self.over.callback(b"".join(self._answer))
        else:
            self.over.errback(reason)


class GoTests:
    """
    What must hold whoever is the client.
    """

    skip = missing()
    client: bool
    timeout = 120

    async def start(self) -> None:
        """
        Connect the Go side.
        """
        test = cast(TestCase, self)
        self.lost: Deferred[Exception] = Deferred()
        self.mux = MuxConnection(
            reactor, client=self.client, accept=lambda stream: stream.attach(Summer()), lost=self.lost.callback
        )
        connected: Deferred[None] = Deferred()
        made = self.mux.connectionMade

        def connection_made() -> None:
            made()
            connected.callback(None)

        test.patch(self.mux, "connectionMade", connection_made)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(lambda: self.mux))
        test.addCleanup(port.stopListening)
        self.peer = Peer()
        role = "server" if self.client else "client"
        program = build()
        reactor.spawnProcess(self.peer, program, [program, role, f"127.0.0.1:{port.getHost().port}"], env=None)
        test.addCleanup(self.cut)
        await connected

    async def cut(self) -> None:
        """
        Leave no connection and no process behind, whatever failed.
        """
        self.mux.abort("the test is over")
        if not self.peer.ended.called:
            await self.peer.ended

    async def stop(self) -> None:
        """
        Nothing is left on either side, and the Go side has not complained.
        """
        test = cast(TestCase, self)
        await self.mux.when_idle()
        left, _ = (await self.ask(b"left\n")).split()
        test.assertEqual((left, self.mux.streams), (b"0", 0))
        self.mux.abort("the test is over")
        await self.lost
        test.assertEqual(await self.peer.ended, 0)
        test.assertNotIn(b"[ERR]", self.peer.printed)

    def ask(self, question: bytes, end: bool = False) -> Deferred[bytes]:
        """
        The answer to what is asked in a stream of its own.
        """
        asker = Asker(question, end)
        self.mux.open().attach(asker)
        return asker.over

    async def test_streams_both_ways(self) -> None:
        """
        Thousands of streams from either side at once carry all bytes; half-closed ones, too.
        """
        await self.start()
        test = cast(TestCase, self)
        theirs = self.ask(b"run %d %d\n" % (STREAMS, AT_ONCE))
        turns: DeferredSemaphore = DeferredSemaphore(AT_ONCE)
        ours = gatherResults([turns.run(self.check_sum, turn) for turn in range(STREAMS)])
        test.assertEqual(await theirs, b"%d" % STREAMS)
        await ours
        await self.stop()

    def check_sum(self, turn: int) -> Deferred[None]:
        """
        Have the Go side sum up one stream.
        """
        noise = random.Random(turn)
        data = noise.randbytes(2_000_000 if turn % 100 == 0 else noise.randrange(20_000))
        answer = self.ask(b"sum\n" + data, end=True)
        return answer.addCallback(cast(TestCase, self).assertEqual, sha256(data).hexdigest().encode())

    async def test_echo(self) -> None:
        """
        Both directions of one stream at once: no side waits for the other for ever.
        """
        await self.start()
        data = random.Random(7).randbytes(5_000_000)
        cast(TestCase, self).assertTrue(await self.ask(b"echo\n" + data, end=True) == data)
        await self.stop()

    async def test_resets(self) -> None:
        """
        Streams that are reset in the midst of data are reset there, too, and leave nothing.
        """
        await self.start()
        test = cast(TestCase, self)
        for _ in range(300):
            asker = Asker(b"endless\n", False)
            self.mux.open().attach(asker)
            await asker.first
            cast(MuxStream, asker.transport).abortConnection()
            await asker.over.addErrback(lambda _: b"")
        resets = b""
        while resets != b"300":
            resets = (await self.ask(b"left\n")).split()[1]
        test.assertEqual(resets, b"300")
        await self.stop()

    async def test_reset_by_peer(self) -> None:
        """
        Streams that the other side has no room for are lost, and only those.
        """
        await self.start()
        test = cast(TestCase, self)
        hold = Asker(b"hold\n", False)
        self.mux.open().attach(hold)
        await hold.first
        answers = [self.ask(b"echo\nx", end=True) for _ in range(300)]
        lost: list[Failure] = []
        for answer in answers:
            answer.addErrback(lost.append)
        await self.ask(b"sum\n").addErrback(lost.append)
        cast(Any, hold.transport).write(b".")
        await gatherResults(answers)
        test.assertEqual(len(lost), 301 - 257)
        await self.stop()

    async def test_pings(self) -> None:
        """
        Both sides' pings are answered.
        """
        await self.start()
        test = cast(TestCase, self)
        for _ in range(50):
            test.assertEqual(await self.ask(b"ping\n"), b"<nil>")
        test.assertIsNotNone(self.mux.rtt)
        await self.stop()

    async def test_our_go_away(self) -> None:
        """
        After our go away the other side opens nothing; what is open goes on.
        """
        await self.start()
        test = cast(TestCase, self)
        test.assertEqual(await self.ask(b"open\n"), b"opened")
        opener = Asker(b"open\n"[:-1], False)
        self.mux.open().attach(opener)
        self.mux.go_away()
        cast(Any, opener.transport).write(b"\n")
        test.assertEqual(await opener.over, b"remote end is not accepting connections")
        self.mux.abort("the test is over")
        test.assertEqual(await self.peer.ended, 0)

    async def test_their_go_away(self) -> None:
        """
        After the other side's go away we open nothing; what is open goes on.
        """
        await self.start()
        test = cast(TestCase, self)
        told: Deferred[None] = Deferred()
        self.mux.on_go_away = lambda: told.callback(None)
        open_before = Asker(b"echo\n", False)
        self.mux.open().attach(open_before)
        test.assertEqual(await self.ask(b"go-away\n"), b"<nil>")
        await told
        test.assertRaises(MuxClosed, self.mux.open)
        transport = cast(Any, open_before.transport)
        transport.write(b"still here")
        transport.loseWriteConnection()
        test.assertEqual(await open_before.over, b"still here")
        self.mux.abort("the test is over")
        test.assertEqual(await self.peer.ended, 0)


class ClientTests(GoTests, TestCase):
    """
    We are yamux's client, as the agent.
    """

    client = True


class ServerTests(GoTests, TestCase):
    """
    We are yamux's server, as the tunnel server.
    """

    client = False
