"""
What the cloud says, on its way into the cache: one thing after the other, a long one in several turns of the reactor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Hashable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

Steps = Generator[None, None, None]

MAX_WAITING = 2000
"""Things that may wait for a long one, watch events mostly; beyond, the long one is ended at once."""

MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Bytes that may wait so."""


class Turns:
    """
    Does jobs in the order in which they come.

    A job returns None, or steps that are done one a turn; the jobs after it wait until they are.  While nothing is under way a
    job is done at once, up to its first pause.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._steps: Steps | None = None
        self._about: Hashable = None
        self._waiting: deque[tuple[Callable[[], Steps | None], int, Hashable]] = deque()
        self._waiting_bytes = 0
        self._next: IDelayedCall | None = None
        self._finishing = False

    @property
    def idle(self) -> bool:
        """
        Whether nothing is under way.
        """
        return self._steps is None

    def expects(self, about: Hashable) -> bool:
        """
        Whether a job about that is under way or waits.
        """
        return self._steps is not None and (about == self._about or any(about == other for _, _, other in self._waiting))

    def run(self, job: Callable[[], Steps | None], size: int = 0, about: Hashable = None) -> None:
        """
        Do ``job`` when all jobs before it are done; ``size`` is what it holds in memory, in bytes.
        """
        if self._steps is None:
            self._begin(job, about)
            self._go_on()
            return
        self._waiting.append((job, size, about))
        self._waiting_bytes += size
        if len(self._waiting) > MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
            self.finish()

    def finish(self) -> None:
        """
        Do all that is left now: for readers that must see it.
        """
        self._finishing = True
        while self._steps is not None:
            self._go_on()
        self._finishing = False

    def _begin(self, job: Callable[[], Steps | None], about: Hashable) -> None:
        self._about = about
        try:
            self._steps = job()
        except Exception:
            self.log.failure("something could not be cached")

    def _go_on(self) -> None:
        """
        One step, and after the last one the jobs that waited, up to the first pause.
        """
        while self._steps is not None and not self._pauses(self._steps):
            self._steps = None
            while self._steps is None and self._waiting:
                job, size, about = self._waiting.popleft()
                self._waiting_bytes -= size
                self._begin(job, about)
        if self._steps is not None and self._next is None and not self._finishing:
            self._next = self._reactor.callLater(0, self._turn)

    def _pauses(self, steps: Steps) -> bool:
        """
        Do a step; whether another one follows.
        """
        try:
            next(steps)
        except StopIteration:
            return False
        except Exception:
            self.log.failure("something could not be cached")
            return False
        return True

    def _turn(self) -> None:
        self._next = None
        self._go_on()
