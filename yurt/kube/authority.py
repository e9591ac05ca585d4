"""
Following the CA of a cluster that a daemon has joined: it is exchanged by naming the old one and the new one for a while.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from yurt.kube.api import ApiError

PERIOD = 3600.0
"""Seconds between two looks, and up to half as much more."""


class AuthorityFollower(Service):
    """
    Calls ``look()`` now and then; what it raises because nobody could be asked, or what was said is of no use, waits for the next
    time.
    """

    log = Logger()

    def __init__(self, reactor: Any, look: Callable[[], Awaitable[None]]) -> None:
        self._reactor = reactor
        self._look = look
        self._next: IDelayedCall | None = None
        self._looking: Deferred[None] | None = None

    def startService(self) -> None:
        """
        Look after the first period.
        """
        super().startService()
        self._wait()

    def stopService(self) -> None:
        """
        Look no more.
        """
        super().stopService()
        looking, self._looking = self._looking, None
        if self._next is not None and self._next.active():
            self._next.cancel()
        if looking is not None:
            looking.cancel()

    def look_now(self) -> None:
        """
        Wait no longer.
        """
        if self._next is not None and self._next.active():
            self._next.reset(0)

    def _wait(self) -> None:
        self._looking = None
        if self.running:
            self._next = self._reactor.callLater(PERIOD * (1 + random.random() / 2), self._begin)

    def _begin(self) -> None:
        looking = self._looking = Deferred.fromCoroutine(self._once())
        looking.addCallback(lambda _: self._wait())
        looking.addErrback(lambda failure: failure.trap(CancelledError))

    async def _once(self) -> None:
        try:
            await self._look()
        except (ApiError, ValueError, OSError) as error:
            self.log.info("the cluster's CA was not looked at: {error}", error=error)
