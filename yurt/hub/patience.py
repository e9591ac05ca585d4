"""
How long requests wait for a silent server before somebody asks whether it is still there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

if TYPE_CHECKING:
    from yurt.hub.cloud import Server

PATIENCE = 0.8
"""Seconds that a request waits for a response head, or for more of a body, before its server is suspected."""

ANSWER_WITHIN = 65.0
"""Seconds for the answer to a request about resources to begin, of a server that is alive: an API server itself gives up after 60
(its --request-timeout), and says so.  What takes longer is lost, as large packets are where a link has become narrower."""

DOUBT_EVERY = 8
"""How many times its patience a request or a watch waits between two probes of its server, after the first two."""

PATIENCE_TICK = 0.1
"""Seconds between looks at who has waited too long."""


def is_doubted(looks: int) -> bool:
    """
    Whether who has waited for so many times its patience has the server probed: not each time, for each probe costs a connection.
    """
    return looks <= 2 or looks % DOUBT_EVERY == 0


class Waiting(Protocol):
    """
    A request that waits for its response, or for more of it.
    """

    @property
    def awaits_more(self) -> bool: ...

    def impatient(self) -> None: ...

    def leave(self, server: Server) -> None: ...


class Patience:
    """
    Who waits for a response head, or for more of a body, and since when.  One timer for all.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._waiting: dict[Waiting, float] = {}
        self._timer: IDelayedCall | None = None
        self.ticks = 0
        """Grows while anybody waits: a cheap clock of PATIENCE_TICK, to tell a new piece of an answer from the same read."""

    def watch(self, waiting: Waiting) -> None:
        """
        Start to wait, or begin the wait anew.
        """
        self._waiting.pop(waiting, None)
        self._waiting[waiting] = self._reactor.seconds() + PATIENCE
        if self._timer is None:
            self._timer = self._reactor.callLater(PATIENCE_TICK, self._look)

    def forget(self, waiting: Waiting) -> None:
        """
        The wait is over.
        """
        self._waiting.pop(waiting, None)

    def leave(self, server: Server) -> None:
        """
        ``server`` has fallen silent: who waits for it may go elsewhere.
        """
        for waiting in list(self._waiting):
            waiting.leave(server)

    def stop(self) -> None:
        """
        Nobody waits any more.
        """
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        self.ticks += 1
        now = self._reactor.seconds()
        overdue = []
        for waiting, until in self._waiting.items():
            if until > now:
                break  # they stand in the order in which their patience ends
            overdue.append(waiting)
        for waiting in overdue:
            del self._waiting[waiting]
        for waiting in overdue:
            waiting.impatient()
            if waiting.awaits_more:
                self.watch(waiting)  # the server lives: it may fall silent yet
        if self._waiting and self._timer is None:
            self._timer = self._reactor.callLater(PATIENCE_TICK, self._look)
