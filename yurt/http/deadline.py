"""
A deadline that moves with almost every message, and seldom comes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Deadline:
    """
    Calls ``expired`` when its moment has come.  A later moment replaces an earlier one without touching the reactor's timer,
    which looks again when it fires.
    """

    __slots__ = ("_expired", "_moment", "_reactor", "_seconds", "_timer")

    def __init__(self, reactor: IReactorTime, expired: Callable[[], object]) -> None:
        self._reactor = reactor
        self._seconds = reactor.seconds
        self._expired = expired
        self._moment = inf
        self._timer: IDelayedCall | None = None

    @property
    def is_set(self) -> bool:
        """
        Whether there is a moment to come.
        """
        return self._moment is not inf

    @property
    def left(self) -> float:
        """
        Seconds until the moment, at least none.
        """
        return max(0.0, self._moment - self._seconds())

    def set(self, seconds: float) -> None:
        """
        Let the moment be so many seconds from now.
        """
        self._moment = self._seconds() + seconds
        timer = self._timer
        if timer is None:
            self._timer = self._reactor.callLater(seconds, self._timer_fired)
        elif timer.getTime() > self._moment:
            timer.reset(seconds)

    def clear(self) -> None:
        """
        There is no moment; the timer stays for the next one.
        """
        self._moment = inf

    def cancel(self) -> None:
        """
        There is none, and none follows.
        """
        self._moment = inf
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _timer_fired(self) -> None:
        self._timer = None
        if self._moment is inf:
            return
        left = self._moment - self._seconds()
        if left > 0:
            self._timer = self._reactor.callLater(left, self._timer_fired)
        else:
            self._expired()
