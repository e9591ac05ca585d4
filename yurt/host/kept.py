"""
A child that is kept for a while: its start and its imports take longer than most of what it is asked, and changes come in rows.
"""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from yurt.host.child import CHILD_TIMEOUT, Child, HostReactor
from yurt.host.messages import Request, Result

Outcome = TypeVar("Outcome")

KEPT = 90.0
"""
Seconds that a child is kept after its last use; then it ends, and its memory is free again.  Longer than the time between two
checks of all rules, so that the child of one is still there for whatever changes until the next.
"""


class KeptChild:
    """
    Hands requests, one at a time, to a child that is started when it is needed; when it was killed or died, to another one.
    """

    def __init__(self, reactor: HostReactor) -> None:
        self._reactor = reactor
        self._child: Child | None = None
        self._timer: IDelayedCall | None = None

    def prepare(self) -> None:
        """
        Have a child there for what will be asked soon.
        """
        self._take()
        self._keep()

    def ask(self, request: Request, timeout: float = CHILD_TIMEOUT) -> Deferred[Result]:
        """
        Do what ``request`` asks, when the request before has been answered; see :meth:`yurt.host.child.Child.ask`.
        """
        child = self._take()
        self._rest()
        return child.ask(request, timeout).addBoth(self._answered)

    def close(self) -> None:
        """
        Let the child end.
        """
        self._rest()
        if self._child is not None:
            self._child.finish()
            self._child = None

    def _take(self) -> Child:
        if self._child is None or not self._child.open:
            self._child = Child(self._reactor)
        return self._child

    def _answered(self, result: Outcome) -> Outcome:
        self._keep()
        return result

    def _keep(self) -> None:
        self._rest()
        self._timer = self._reactor.callLater(KEPT, self.close)

    def _rest(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
