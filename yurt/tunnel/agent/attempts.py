"""
Attempts at one address of a server that overlap while it is silent.

What takes TCP connections and says nothing may be a load balancer whose server is away, or an HTTP proxy that waits for it; or
a server with a thousand agents before this one.  The former are to be tried again soon; at the latter an attempt that is given
up has queued in vain, and the next one queues anew.  So an attempt that hears nothing goes on, and others begin beside it;
whichever is through first stays.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from yurt.tunnel.agent.links import Link
from yurt.tunnel.agent.patience import FIRST_WAIT

Dial = Callable[[Callable[[], object]], Coroutine[Any, Any, Link]]
"""Makes one attempt, and calls what it is given if nothing is heard for CONNECT_TIMEOUT once the connection is there."""


class Attempts:
    """
    Makes ``link``: that of the attempt which is through first.  It fails as the first attempt does, when that fails before; an
    attempt has HELLO_TIMEOUT, by a proxy twice that, and another one begins at most CONNECT_TIMEOUT and FIRST_WAIT after the one
    before.  May be cancelled.
    """

    def __init__(self, reactor: IReactorTime, dial: Dial, chance: Callable[[], float]) -> None:
        self._reactor = reactor
        self._dial = dial
        self._chance = chance
        self._running: list[Deferred[Link]] = []
        self._timer: IDelayedCall | None = None
        self._over = False
        self.link: Deferred[Link] = Deferred(lambda _: self._end())
        self._begin()

    def _begin(self) -> None:
        attempt = Deferred.fromCoroutine(self._dial(self._begin_another))
        self._running.append(attempt)
        attempt.addCallbacks(self._made, self._failed, errbackArgs=(attempt,))

    def _begin_another(self) -> None:
        if self._timer is None or not self._timer.active():
            self._timer = self._reactor.callLater(self._chance() * FIRST_WAIT, self._begin)

    def _made(self, link: Link) -> None:
        self._end()
        self.link.callback(link)

    def _failed(self, failure: Failure, attempt: Deferred[Link]) -> None:
        if self._over:
            return
        if attempt is self._running[0]:
            self._end()
            self.link.errback(failure)
        else:
            self._begin_another()

    def _end(self) -> None:
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for attempt in self._running:
            attempt.cancel()
