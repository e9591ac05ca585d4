"""
What the acts of the demo have in common: lines for people, ports, daemons as children, waiting.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

NODE = "demo-node"
HERE = "127.0.0.1"
START_TIMEOUT = 20.0
STEP_TIMEOUT = 30.0
LOOK_INTERVAL = 0.1
STOP_TIMEOUT = 10.0
"""Seconds that a daemon has to end in good order before it is killed."""
DRAIN = "--drain-timeout=2s"
"""Somebody may follow a log that never ends while the demo is to end."""


def usable_port(wanted: int, host: str = HERE) -> int:
    """
    ``wanted`` if nobody listens there, else any free port of ``host``.
    """
    for port in (wanted, 0):
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind((host, port))
            except OSError:
                continue
            return int(one.getsockname()[1])
    raise OSError(f"no free port on {host}")


def say(text: str = "") -> None:
    """
    Print a line now.
    """
    print(text, flush=True)


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """
    Do all of them at once, each to its end; raises the first failure if there was any.
    """
    outcomes: list[Any] = await DeferredList([Deferred.fromCoroutine(work) for work in works], consumeErrors=True)
    for went_well, outcome in outcomes:
        if not went_well:
            outcome.raiseException()


class Daemon(ProcessProtocol):
    """
    A daemon in the foreground, as a child; its last words are kept for the case that it ends too early.
    """

    def __init__(self, reactor: Any, name: str) -> None:
        self._reactor, self.name = reactor, name
        self._ended: Deferred[None] = Deferred()
        self.has_ended = False
        self.last_words = b""

    def start(self, *options: str) -> None:
        """
        Begin.
        """
        argv = [str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile=", self.name, *options]
        self._reactor.spawnProcess(self, argv[0], argv, env=dict(os.environ))

    async def stop(self) -> None:
        """
        End it, in STOP_TIMEOUT by force, and wait until it has ended.
        """
        if self.transport is not None and not self.has_ended:
            self.transport.signalProcess("TERM")
            killing = self._reactor.callLater(STOP_TIMEOUT, self.transport.signalProcess, "KILL")
            await self._ended
            if killing.active():
                killing.cancel()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.last_words = (self.last_words + data)[-2000:]

    def processExited(self, reason: Failure) -> None:
        self.has_ended = True
        self._ended.callback(None)

    async def until(self, what: str, condition: Callable[[], Coroutine[Any, Any, Any]], timeout: float = STEP_TIMEOUT) -> Any:
        """
        Wait for a condition of which this daemon is the cause; returns its value.  Raises ``RuntimeError`` with the last words.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and not self.has_ended:
            if value := await condition():
                return value
            await deferLater(self._reactor, LOOK_INTERVAL)
        said = self.last_words.decode(errors="replace")
        raise RuntimeError(f"no {what} after {timeout:g} s; {self.name} said: {said}")
