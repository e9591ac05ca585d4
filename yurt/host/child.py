"""
Running the short-lived child from a daemon.
"""

from __future__ import annotations

import os
import sys
from typing import Protocol

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import yurt
from yurt.host.errors import HostError
from yurt.host.messages import Request, Result, decode_result, encode

CHILD_TIMEOUT = 30.0
"""Seconds that a child may take: its imports, and a firewall tool that waits for its lock."""

MAX_RESULT_BYTES = 64 * 1024
"""Bytes that a child may answer; a result is a handful of sentences."""

MAX_COMPLAINT_BYTES = 16 * 1024
"""Bytes of a child's standard error that are kept; the last line is told."""

_PACKAGE_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(yurt.__file__)))


class HostReactor(IReactorProcess, IReactorTime):
    """
    What running a child takes of a reactor.
    """


class RunChild(Protocol):
    """
    The signature of :func:`run_child`, for those who pretend.
    """

    def __call__(self, reactor: HostReactor, request: Request, timeout: float = ...) -> Deferred[Result]: ...


def run_child(reactor: HostReactor, request: Request, timeout: float = CHILD_TIMEOUT) -> Deferred[Result]:
    """
    Have a child do what ``request`` asks.

    The Deferred fails with HostError when the child cannot be started, takes longer than ``timeout`` seconds (it is killed), or
    ends without an answer.  Cancelling it kills the child.
    """
    protocol = _ChildProtocol(reactor, encode(request), timeout)
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LD_LIBRARY_PATH")}
    folders = [_PACKAGE_FOLDER, os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(folder for folder in folders if folder)
    try:
        # Python looks for modules in the folder it starts in, too: that must be one that only root can write.
        reactor.spawnProcess(protocol, sys.executable, [sys.executable, "-m", "yurt.host"], environment, "/")
    except OSError as failed:
        protocol.fail(HostError(f"starting {sys.executable} -m yurt.host: {failed.strerror}"))
    return protocol.result


class _ChildProtocol(ProcessProtocol):
    """
    One child: hands it the request, gathers the answer, ends it when it takes too long.
    """

    def __init__(self, clock: IReactorTime, request: bytes, timeout: float) -> None:
        self.result: Deferred[Result] = Deferred(lambda _: self._kill())
        self._clock = clock
        self._request = request
        self._timeout = timeout
        self._deadline: IDelayedCall | None = None
        self._answer = bytearray()
        self._complaint = bytearray()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self._deadline = self._clock.callLater(self._timeout, self._time_out)
        self.transport.write(self._request)
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._answer += data
        if len(self._answer) > MAX_RESULT_BYTES:
            self._kill()
            self.fail(HostError(f"the host's child answered more than {MAX_RESULT_BYTES} bytes"))

    def errReceived(self, data: bytes) -> None:
        self._complaint += data
        del self._complaint[:-MAX_COMPLAINT_BYTES]

    def processExited(self, reason: Failure) -> None:
        """
        Wait for processEnded, when everything it wrote has been read.
        """

    def processEnded(self, reason: Failure) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        if self.result.called:
            return
        try:
            if not reason.check(error.ProcessDone):
                raise HostError(f"the host's child ended without an answer: {self._last_words(reason)}")
            self.result.callback(decode_result(bytes(self._answer)))
        except HostError as failed:
            self.fail(failed)

    def fail(self, failed: HostError) -> None:
        """
        Give up, once.
        """
        if not self.result.called:
            self.result.errback(Failure(failed))

    def _time_out(self) -> None:
        self._kill()
        self.fail(HostError(f"the host's child gave no answer within {self._timeout:g} s and was killed"))

    def _kill(self) -> None:
        if self.transport is None:
            return
        try:
            self.transport.signalProcess("KILL")
        except error.ProcessExitedAlready:
            pass

    def _last_words(self, reason: Failure) -> str:
        lines = self._complaint.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else reason.getErrorMessage()
