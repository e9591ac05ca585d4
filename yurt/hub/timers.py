"""
Named timers, each of which runs at most once at a time.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Timers:
    """
    The timers of one thing that ends.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._running: dict[str, IDelayedCall] = {}

    def set(self, name: str, seconds: float, call: Callable[[], object]) -> None:
        """
        Call ``call`` after ``seconds``, instead of what this timer was set to before.
        """
        self.cancel(name)
        self._running[name] = self._reactor.callLater(max(0.0, seconds), call)

    def cancel(self, name: str) -> None:
        """
        Stop a timer if it runs.
        """
        timer = self._running.pop(name, None)
        if timer is not None and timer.active():
            timer.cancel()

    def cancel_all(self) -> None:
        """
        Stop them all.
        """
        for name in list(self._running):
            self.cancel(name)
