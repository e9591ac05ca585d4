"""
Tell systemd how the daemon fares: sd_notify(3) in a few lines, and nothing where there is no systemd.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorCore, IReactorTime
from twisted.internet.task import LoopingCall

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"


def notify(message: str, environ: Mapping[str, str] = os.environ) -> bool:
    """
    Send ``message`` to the socket that NOTIFY_SOCKET names; false when there is none or it does not take it.
    """
    path = environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    name = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(message.encode(), name)
    except OSError:
        return False
    return True


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """
    Seconds between two signs of life: half of what systemd allows this process, None when it does not ask.
    """
    microseconds = environ.get("WATCHDOG_USEC", "")
    pid = environ.get("WATCHDOG_PID") or str(os.getpid())
    if not microseconds.isdecimal() or int(microseconds) == 0 or pid != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000


class _Reactor(IReactorCore, IReactorTime):
    """
    What a Notify needs of the reactor.
    """


class Notify(Service):
    """
    READY when the reactor runs, signs of life while it turns, STOPPING at the end.

    Not before the reactor runs: until then a signal to stop ends the process without any clean-up.
    """

    def __init__(self, reactor: _Reactor, send: Callable[[str], bool] = notify, interval: float | None = None) -> None:
        self.reactor = reactor
        self.send = send
        self.interval = interval
        self.alive = LoopingCall(send, WATCHDOG)
        self.alive.clock = reactor

    def startService(self) -> None:
        """
        Say READY and begin with signs of life, soon.
        """
        super().startService()
        self.reactor.callWhenRunning(self._started)

    def stopService(self) -> None:
        """
        Say STOPPING; systemd asks for no signs of life from then on.
        """
        super().stopService()
        if self.alive.running:
            self.alive.stop()
        self.send(STOPPING)

    def _started(self) -> None:
        if not self.running:
            return
        self.send(READY)
        if self.interval is not None:
            self.alive.start(self.interval)
