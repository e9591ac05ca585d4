"""
Tests for :mod:`yurt.host.kept`.
"""

from __future__ import annotations

import os
import signal
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.host.test_child import FakeReactor, until_no_child
from yurt.host.child import CHILD_TIMEOUT, EXIT_TIMEOUT
from yurt.host.errors import HostError
from yurt.host.kept import KEPT, KeptChild
from yurt.host.messages import Request, Result, encode

REQUEST = Request("ensure")
LINE = encode(REQUEST) + b"\n"


class KeptChildTests(SynchronousTestCase):
    """
    Tests for :class:`KeptChild` with pretended processes.
    """

    def setUp(self) -> None:
        self.reactor = cast(Any, FakeReactor())
        self.child = KeptChild(self.reactor)

    def do(self, backend: str) -> None:
        """
        Ask, and have the child answer.
        """
        result = self.child.ask(REQUEST)
        self.reactor.say(Result(backend=backend))
        self.assertEqual(self.successResultOf(result), Result(backend=backend))

    def test_not_before_it_is_needed(self) -> None:
        """
        Nothing is started before something is asked, and closing what was never used does nothing.
        """
        self.child.close()
        self.assertEqual(self.reactor.processes, [])

    def test_row(self) -> None:
        """
        Requests in a row are one child's, however long the row; each use keeps it.
        """
        for _ in range(5):
            self.do("legacy")
            self.reactor.advance(KEPT - 1)
        self.assertEqual(len(self.reactor.processes), 1)
        self.assertEqual(self.reactor.process.written, 5 * LINE)

    def test_ends(self) -> None:
        """
        When nothing was asked for a while its input is closed, and the next request is another one's; no timer is left.
        """
        self.do("legacy")
        self.reactor.advance(KEPT)
        self.assertEqual(self.reactor.process.written, LINE + b".")
        self.reactor.end()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.do("nf_tables")
        self.assertEqual(len(self.reactor.processes), 2)

    def test_asked_while_it_ends(self) -> None:
        """
        Who has been told to end is asked no more.
        """
        self.do("legacy")
        self.reactor.advance(KEPT)
        self.do("nf_tables")
        self.assertEqual(len(self.reactor.processes), 2)

    def test_does_not_end(self) -> None:
        """
        One that is to end and does not is killed.
        """
        self.do("legacy")
        self.child.close()
        self.reactor.advance(EXIT_TIMEOUT)
        self.assertEqual(self.reactor.process.signals, ["KILL"])

    def test_long_work(self) -> None:
        """
        While it works it is not idle.
        """
        self.child.prepare()
        self.reactor.advance(KEPT - 1)
        result = self.child.ask(REQUEST)
        self.reactor.advance(2)
        self.assertEqual(self.reactor.process.written, LINE)
        self.reactor.say(Result())
        self.successResultOf(result)

    def test_prepared(self) -> None:
        """
        It can be started ahead, and ends when it was for nothing.
        """
        self.child.prepare()
        self.child.prepare()
        self.assertEqual((len(self.reactor.processes), self.reactor.process.written), (1, b""))
        self.do("legacy")
        self.child.prepare()
        self.assertEqual(len(self.reactor.processes), 1)
        self.reactor.advance(KEPT)
        self.assertEqual(self.reactor.process.written, LINE + b".")

    def test_hangs(self) -> None:
        """
        One that hangs is killed, and the next request is another one's.
        """
        result = self.child.ask(REQUEST)
        self.reactor.advance(CHILD_TIMEOUT)
        self.failureResultOf(result, HostError)
        self.assertEqual(self.reactor.process.signals, ["KILL"])
        self.do("legacy")
        self.assertEqual(len(self.reactor.processes), 2)

    def test_dies_idle(self) -> None:
        """
        One that died between two requests is not asked: nobody hears of it.
        """
        self.do("legacy")
        self.reactor.end(9)
        self.do("legacy")
        self.assertEqual(len(self.reactor.processes), 2)

    def test_dies_at_work(self) -> None:
        """
        One that dies at work fails that request, with its last words, and no other.
        """
        result = self.child.ask(REQUEST)
        self.reactor.protocol.errReceived(b"Killed for want of memory\n")
        self.reactor.end(9)
        self.assertIn("Killed for want of memory", str(self.failureResultOf(result, HostError).value))
        self.do("legacy")

    def test_cancelled(self) -> None:
        """
        A request that is cancelled ends the child at once.
        """
        self.child.ask(REQUEST).addErrback(lambda _: None).cancel()
        self.assertEqual(self.reactor.process.signals, ["KILL"])
        self.do("legacy")
        self.assertEqual(len(self.reactor.processes), 2)

    def test_cannot_start(self) -> None:
        """
        A machine without room for a process is an error of this request; the next tries again.
        """

        def refuse(*args: object) -> None:
            raise OSError(11, "Resource temporarily unavailable")

        spawn = self.reactor.spawnProcess
        self.reactor.spawnProcess = refuse
        failure = self.failureResultOf(self.child.ask(REQUEST), HostError)
        self.assertIn("Resource temporarily unavailable", str(failure.value))
        self.reactor.spawnProcess = spawn
        self.do("legacy")


class RealKeptChildTests(TestCase):
    """
    Tests for :class:`KeptChild` with real processes that have nothing to do.
    """

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor = cast(Any, reactor)
        self.child = KeptChild(self.reactor)

    def signal(self, number: int) -> None:
        """
        Send a signal to the process that is kept.
        """
        assert self.child._child is not None
        os.kill(cast(Any, self.child._child.transport).pid, number)

    async def test_life(self) -> None:
        """
        It answers again and again, is followed by another when it is killed, and ends when its input does.
        """
        self.assertEqual([await self.child.ask(REQUEST) for _ in range(3)], 3 * [Result()])
        self.signal(signal.SIGKILL)
        await until_no_child(self.reactor)
        self.assertEqual(await self.child.ask(REQUEST), Result())
        self.child.close()
        await until_no_child(self.reactor)

    async def test_stuck(self) -> None:
        """
        One that is stuck is killed when its time is over, and followed by another.
        """
        await self.child.ask(REQUEST)
        self.signal(signal.SIGSTOP)
        with self.assertRaises(HostError):
            await self.child.ask(REQUEST, 0.05)
        await until_no_child(self.reactor)
        self.assertEqual(await self.child.ask(REQUEST), Result())
        self.child.close()
        await until_no_child(self.reactor)
