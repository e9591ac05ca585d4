"""
Running a child from a daemon, for one request or for several.
"""

from __future__ import annotations

import os
import sys
from typing import Protocol

from twisted.internet import error
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import yurt
from yurt.host.errors import HostError
from yurt.host.messages import Request, Result, decode_result, encode

CHILD_TIMEOUT = 30.0
"""Seconds that a child may take: its imports, and a firewall tool that waits for its lock."""

EXIT_TIMEOUT = 5.0
"""Seconds that a child may take to end when it has nothing more to do."""

MAX_RESULT_BYTES = 64 * 1024
"""Bytes of one answer of a child; a result is a handful of sentences."""

MAX_COMPLAINT_BYTES = 16 * 1024
"""Bytes of a child's standard error that are kept; the last line is told."""

_PACKAGE_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(yurt.__file__)))


class HostReactor(IReactorProcess, IReactorTime, IReactorFDSet):
    """
    What running a child takes of a reactor, and hearing from the kernel.
    """


class RunChild(Protocol):
    """
    The signature of :func:`run_child`, for those who pretend.
    """

    def __call__(self, reactor: HostReactor, request: Request, timeout: float = ...) -> Deferred[Result]: ...


def run_child(reactor: HostReactor, request: Request, timeout: float = CHILD_TIMEOUT) -> Deferred[Result]:
    """
    Have a child of its own do what ``request`` asks; see :meth:`Child.ask`.
    """
    child = Child(reactor)
    result = child.ask(request, timeout)
    child.finish()
    return result


class Child(ProcessProtocol):
    """
    One child, started at once: is handed requests one after the other, and ended when an answer takes too long.

    ``open`` says whether it can be asked: neither told to end, nor ended.
    """

    def __init__(self, reactor: HostReactor) -> None:
        self.open = True
        self._reactor = reactor
        self._result: Deferred[Result] | None = None
        self._deadline: IDelayedCall | None = None
        self._answer = bytearray()
        self._complaint = bytearray()
        self._refused = ""
        environment = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LD_LIBRARY_PATH")}
        folders = [_PACKAGE_FOLDER, os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(folder for folder in folders if folder)
        try:
            # Python looks for modules in the folder it starts in, too: that must be one that only root can write.
            reactor.spawnProcess(self, sys.executable, [sys.executable, "-m", "yurt.host"], environment, "/")
        except OSError as failed:
            self.open = False
            self._refused = f"starting {sys.executable} -m yurt.host: {failed.strerror}"

    def ask(self, request: Request, timeout: float = CHILD_TIMEOUT) -> Deferred[Result]:
        """
        Have it do what ``request`` asks, when the request before has been answered.

        The Deferred fails with HostError when the child cannot be started, takes longer than ``timeout`` seconds (it is killed),
        or ends without an answer.  Cancelling it kills the child.
        """
        if self.transport is None:
            return fail(HostError(self._refused))
        result: Deferred[Result] = Deferred(lambda _: self._kill())
        self._result = result
        self._within(timeout, f"gave no answer within {timeout:g} s")
        self.transport.write(encode(request) + b"\n")
        return result

    def finish(self) -> None:
        """
        Let it end, when the request that it has is answered.
        """
        if self.open:
            self.open = False
            assert self.transport is not None
            self.transport.closeStdin()
            if self._result is None:
                self._within(EXIT_TIMEOUT, "did not end")

    def outReceived(self, data: bytes) -> None:
        self._answer += data
        answer, end, _ = self._answer.partition(b"\n")
        if len(answer) > MAX_RESULT_BYTES:
            self._give_up(f"answered more than {MAX_RESULT_BYTES} bytes")
        elif end:
            self._answer.clear()
            self._answered(bytes(answer))

    def errReceived(self, data: bytes) -> None:
        self._complaint += data
        del self._complaint[:-MAX_COMPLAINT_BYTES]

    def processExited(self, reason: Failure) -> None:
        """
        Ask it no more; wait for processEnded, when everything it wrote has been read.
        """
        self.open = False

    def processEnded(self, reason: Failure) -> None:
        self.open = False
        self._rest()
        self._fail(f"ended without an answer: {self._last_words(reason)}")

    def _answered(self, answer: bytes) -> None:
        self._rest()
        if not self.open:
            self._within(EXIT_TIMEOUT, "did not end")
        result, self._result = self._result, None
        if result is None or result.called:
            return
        try:
            result.callback(decode_result(answer))
        except HostError as failed:
            result.errback(Failure(failed))

    def _within(self, seconds: float, failing: str) -> None:
        self._rest()
        self._deadline = self._reactor.callLater(seconds, self._give_up, f"{failing} and was killed")

    def _rest(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def _give_up(self, what: str) -> None:
        self._kill()
        self._fail(what)

    def _fail(self, what: str) -> None:
        """
        Give up the request that is not answered, if there is one.
        """
        result, self._result = self._result, None
        if result is not None and not result.called:
            result.errback(Failure(HostError(f"the host's child {what}")))

    def _kill(self) -> None:
        self.open = False
        if self.transport is None:
            return
        try:
            self.transport.signalProcess("KILL")
        except error.ProcessExitedAlready:
            pass

    def _last_words(self, reason: Failure) -> str:
        lines = self._complaint.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else reason.getErrorMessage()
