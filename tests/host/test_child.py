"""
Tests for :mod:`yurt.host.child` and what it says to the child.
"""

from __future__ import annotations

import sys
from typing import Any, cast

from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.internet.process import reapProcessHandlers
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from yurt.host.child import CHILD_TIMEOUT, EXIT_TIMEOUT, MAX_RESULT_BYTES, run_child
from yurt.host.errors import HostError
from yurt.host.firewall import pod_rules
from yurt.host.links import parse_link
from yurt.host.messages import Request, Result, decode_request, decode_result, encode


class FakeProcess:
    """
    A child that does nothing by itself; remembers what it was told.
    """

    def __init__(self) -> None:
        self.written = b""
        self.signals: list[str] = []

    def write(self, data: bytes) -> None:
        self.written += data

    def closeStdin(self) -> None:
        self.written += b"."

    def signalProcess(self, signal: str) -> None:
        self.signals.append(signal)


class FakeReactor(Clock):
    """
    A reactor whose processes are :class:`FakeProcess`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[FakeProcess] = []

    def spawnProcess(self, protocol: ProcessProtocol, executable: str, args: list[str], env: dict[str, str], path: str) -> None:
        self.spawned = (executable, args, env, path)
        self.processes.append(FakeProcess())
        self.protocol: Any = protocol
        protocol.makeConnection(self.process)

    @property
    def process(self) -> FakeProcess:
        """
        The child that was started last.
        """
        return self.processes[-1]

    def say(self, result: Result) -> None:
        """
        Have it answer.
        """
        self.protocol.outReceived(encode(result) + b"\n")

    def end(self, status: int | None = None) -> None:
        """
        Have the child end, well by default.
        """
        reason = Failure(error.ProcessTerminated(status) if status else error.ProcessDone(0))
        self.protocol.processExited(reason)
        self.protocol.processEnded(reason)


REQUEST = Request("ensure", parse_link("yurthub-dummy0", "auto", ("169.254.2.1",)), pod_rules(("169.254.2.1",), (10261,)))


class MessageTests(SynchronousTestCase):
    """
    Tests for :mod:`yurt.host.messages`.
    """

    def test_round_trip(self) -> None:
        """
        What is written is what is read.
        """
        result = Result(("made it",), ("but",), "tap", "legacy")
        self.assertEqual(decode_request(encode(REQUEST)), REQUEST)
        self.assertEqual(decode_result(encode(result)), result)

    def test_not_understood(self) -> None:
        """
        Anything else is an error of ours, not of the JSON library.
        """
        for data in (b"", b"{", b"[]", b'{"action":"explode"}'):
            self.assertRaises(HostError, decode_request, data)
        self.assertRaises(HostError, decode_result, b'{"changes": 1}')


class RunChildTests(SynchronousTestCase):
    """
    Tests for :func:`run_child` with a pretended process.
    """

    def setUp(self) -> None:
        self.reactor = cast(Any, FakeReactor())
        self.result = run_child(self.reactor, REQUEST)

    def test_spawn(self) -> None:
        """
        The child is this Python, in a folder where no stranger can put a module, and gets the request and the end of input.
        """
        executable, args, _, path = self.reactor.spawned
        self.assertEqual((executable, args, path), (sys.executable, [sys.executable, "-m", "yurt.host"], "/"))
        self.assertEqual(self.reactor.process.written, encode(REQUEST) + b"\n.")

    def test_answer(self) -> None:
        """
        An answer in pieces is one result; no timer is left.
        """
        for byte in encode(Result(backend="legacy")):
            self.reactor.protocol.outReceived(bytes([byte]))
        self.assertNoResult(self.result)
        self.reactor.protocol.outReceived(b"\n")
        self.assertEqual(self.successResultOf(self.result), Result(backend="legacy"))
        self.reactor.end()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_does_not_end(self) -> None:
        """
        A child that answers and does not end is killed.
        """
        self.reactor.say(Result())
        self.successResultOf(self.result)
        self.reactor.advance(EXIT_TIMEOUT)
        self.assertEqual(self.reactor.process.signals, ["KILL"])
        self.reactor.end(9)

    def test_ends_silently(self) -> None:
        """
        A child that ends without an answer is an error, even if it ends well.
        """
        self.reactor.end()
        self.assertIn("ended without an answer", str(self.failureResultOf(self.result, HostError).value))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_nonsense(self) -> None:
        """
        So is an answer that is none.
        """
        self.reactor.protocol.outReceived(b"Hello\n")
        self.assertIn("not understood", str(self.failureResultOf(self.result, HostError).value))

    def test_failed(self) -> None:
        """
        A child that dies is an error with its last words.
        """
        self.reactor.protocol.errReceived(b"Traceback\nModuleNotFoundError: No module named 'pyroute2'\n")
        self.reactor.end(1)
        self.assertIn("No module named 'pyroute2'", str(self.failureResultOf(self.result, HostError).value))

    def test_timeout(self) -> None:
        """
        A child that hangs is killed, and the caller does not wait for its end.
        """
        self.reactor.advance(CHILD_TIMEOUT)
        self.failureResultOf(self.result, HostError)
        self.assertEqual(self.reactor.process.signals, ["KILL"])
        self.reactor.end(9)

    def test_too_much(self) -> None:
        """
        A child that does not stop talking is killed.
        """
        self.reactor.protocol.outReceived(bytes(MAX_RESULT_BYTES + 1))
        self.failureResultOf(self.result, HostError)
        self.assertEqual(self.reactor.process.signals, ["KILL"])

    def test_cancel(self) -> None:
        """
        Cancelling kills the child.
        """
        self.result.cancel()
        self.failureResultOf(self.result, CancelledError)
        self.assertEqual(self.reactor.process.signals, ["KILL"])
        self.reactor.end(9)

    def test_cannot_spawn(self) -> None:
        """
        A machine without room for another process is an error, not an exception.
        """

        def refuse(*args: object) -> None:
            raise OSError(11, "Resource temporarily unavailable")

        self.patch(self.reactor, "spawnProcess", refuse)
        failure = self.failureResultOf(run_child(self.reactor, REQUEST), HostError)
        self.assertIn("Resource temporarily unavailable", str(failure.value))


async def until_no_child(reactor: Any) -> None:
    """
    Wait until no child of this process is left.
    """
    while reapProcessHandlers:
        await deferLater(reactor, 0.01)


class RealChildTests(TestCase):
    """
    Tests for :func:`run_child` with a real process that has nothing to do.
    """

    async def test_round_trip(self) -> None:
        """
        The child starts, reads, answers and ends.
        """
        from twisted.internet import reactor

        self.assertEqual(await run_child(reactor, Request("ensure")), Result())  # type: ignore[arg-type]  # has both interfaces
        await until_no_child(reactor)
