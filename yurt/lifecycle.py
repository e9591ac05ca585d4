"""
What a daemon does with its process: its clock, its signals, its open files.
"""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable
from types import FrameType

from twisted.application.service import Service
from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import (
    IReactorFromThreads,
)
from twisted.logger import Logger

log = Logger()

MAX_OPEN_FILES = 65536
"""More than any daemon here needs; some systems allow a thousand million, which slows the start of children down."""


def use_steady_time(reactor: ReactorBase) -> None:
    """
    Let timers follow the monotonic clock; call it before anything is scheduled.

    Twisted's follow the time of day, and a box without a battery for its clock is told that late: when its time is set
    back by an hour, nothing that was to happen within the hour happens.
    """
    if not reactor.running and not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic


def stop_once(reactor: ReactorBase) -> None:
    """
    Let the first SIGTERM or SIGINT stop the daemon, and further ones change nothing: what ends in order goes on, and Twisted does
    not log that its reactor cannot be stopped twice.
    """

    def again(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        reactor.callFromThread(log.info, "{name} again: the stop goes on, what still runs is let end", name=name)

    def stopping() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, again)

    stop = reactor.stop
    asked: list[bool] = []

    def stop_first() -> None:
        if not asked:
            stop()
            asked.append(True)

    # Two signals may come in one turn, the second before anything has begun to stop.
    reactor.stop = stop_first  # type: ignore[method-assign]
    reactor.addSystemEventTrigger("before", "shutdown", stopping)


def raise_file_limit() -> int:
    """
    Allow this process MAX_OPEN_FILES, or as many as it may have, and return how many may be open now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft == resource.RLIM_INFINITY:
        soft = room
    elif soft < room:
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, hard))
        soft = room
    log.info("up to {files} files may be open", files=soft)
    return soft


class OnHangup(Service):
    """
    Call ``reload`` in the reactor thread on every SIGHUP, which would otherwise kill the process without clean-up.
    """

    def __init__(self, reactor: IReactorFromThreads, reload: Callable[[], object]) -> None:
        self.reactor = reactor
        self.reload = reload

    def startService(self) -> None:
        """
        Take the signal.
        """
        super().startService()
        signal.signal(signal.SIGHUP, self._received)

    def stopService(self) -> None:
        """
        Ignore the signal from now on: a stop that has begun goes on to its end.
        """
        super().stopService()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.reactor.callFromThread(self.reload)
