"""
A daemon that keeps no firewall rules, because its operator turned them off: those that an earlier run of it left, which was
killed, still do their work, and are removed.
"""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from yurt.host.child import HostReactor, RunChild, run_child
from yurt.host.errors import HostError
from yurt.host.messages import Request, Result
from yurt.host.sole import Sole

PAUSE = 1.0
"""Seconds after the start: there is no hurry, and the start has other things to do."""


class Leftovers(Service):
    """
    Does once, after the start, what ``request`` asks, unless another process has ``sole``, the name of those who keep such rules.
    What fails is told in the log alone: rules are turned off where a daemon has no right to change them, too.
    """

    log = Logger()
    name = "leftovers"

    def __init__(self, reactor: HostReactor, request: Request, sole: Sole | None = None, *, run: RunChild = run_child) -> None:
        self._reactor = reactor
        self._request = request
        self._sole = sole
        self._run = run
        self._work: Deferred[None] | None = None

    def startService(self) -> None:
        """
        Begin; returns at once and never fails.
        """
        super().startService()
        self._work = Deferred.fromCoroutine(self._remove())

    def stopService(self) -> None:
        """
        Leave it, if it is not done.
        """
        super().stopService()
        if self._work is not None:
            self._work.cancel()

    async def _remove(self) -> None:
        try:
            await deferLater(self._reactor, PAUSE)
            if self._sole is None or self._sole.take():
                self._tell(await self._run(self._reactor, self._request))
        except HostError as error:
            self._tell(Result(problems=(str(error),)))
        except CancelledError:
            pass
        finally:
            if self._sole is not None:
                self._sole.leave()

    def _tell(self, result: Result) -> None:
        for change in result.changes:
            self.log.warn("firewall rules are turned off, but an earlier run had left some: {change}", change=change)
        for problem in result.problems:
            self.log.info("firewall rules that an earlier run may have left: {problem}", problem=problem)
