"""
Answers of the API server that hold for a short time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from yurt.kube.api import ApiError

V = TypeVar("V")

AT_ONCE = 64
"""Questions that the API server is asked at once: strangers may show a new token with every request."""
MAX_QUESTIONS = 4096
"""Questions that are asked or wait for their turn, also those of callers who have left."""


class Recent(Generic[V]):
    """
    Keeps an answer for ``keep_for(answer)`` seconds, and at most ``limit`` of them; errors are never kept.  Who asks what
    is just being asked waits for the same answer.  Questions beyond AT_ONCE wait for their turn.
    """

    def __init__(self, reactor: IReactorTime, keep_for: Callable[[V], float], limit: int) -> None:
        self._seconds = reactor.seconds
        self._keep_for = keep_for
        self._limit = limit
        self._kept: OrderedDict[Hashable, tuple[float, V]] = OrderedDict()
        self._asking: dict[Hashable, list[Deferred[V]]] = {}
        self._turns = DeferredSemaphore(AT_ONCE)

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """
        The answer kept for ``key``, or else what ``ask()`` gives; raises what that raises, and :class:`ApiError` when too many
        questions wait.  When the caller is cancelled the
        question goes on, for others and for the next time.
        """
        kept = self._kept.get(key)
        if kept is not None and kept[0] > self._seconds():
            return kept[1]
        waiting: Deferred[V] = Deferred()
        if key in self._asking:
            self._asking[key].append(waiting)
        elif len(self._asking) >= MAX_QUESTIONS:
            raise ApiError(503, "ServiceUnavailable", f"{MAX_QUESTIONS} questions wait for the API server already")
        else:
            self._asking[key] = [waiting]
            asking = self._turns.run(lambda: Deferred.fromCoroutine(ask()))
            asking.addCallbacks(self._keep, callbackArgs=(key,)).addBoth(self._tell, key)
        return await waiting

    def _keep(self, answer: V, key: Hashable) -> V:
        self._kept.pop(key, None)
        self._kept[key] = (self._seconds() + self._keep_for(answer), answer)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)
        return answer

    def _tell(self, outcome: V | Failure, key: Hashable) -> None:
        for waiting in self._asking.pop(key):
            if waiting.called:
                continue
            if isinstance(outcome, Failure):
                waiting.errback(outcome)
            else:
                waiting.callback(outcome)
