"""
Waiting, inside of a coroutine.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


def pause(reactor: IReactorTime, seconds: float) -> Deferred[None]:
    """
    Fires after so many seconds; cancelling it ends the wait.
    """
    call = reactor.callLater(seconds, lambda: done.callback(None))
    done: Deferred[None] = Deferred(lambda _: call.cancel())
    return done
