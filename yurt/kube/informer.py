"""
A collection of an API server, followed for as long as the daemon runs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.kube.api import ApiClient, ApiError
from yurt.kube.mirror import Ask, Change, Mirror
from yurt.kube.objects import ObjectError
from yurt.kube.pause import pause
from yurt.kube.watch import WatchError

T = TypeVar("T")

Callback = Callable[[str, "T | None", "T | None"], object]

PAGE_TIMEOUT = 60.0
"""Seconds that one page of a list may take on a thin link."""
MAX_PAGE_BYTES = 32 * 1024 * 1024
"""Bytes of a page that are taken; of a larger one half the objects are asked for."""


class Informer(Service, Generic[T]):
    """
    Keeps ``items`` (``namespace/name``, or the name alone → what ``decode`` kept) like the collection ``path``.

    It lists, watches and goes on where it was for ever; the start of the service waits for nothing.  See
    :class:`~yurt.kube.mirror.Mirror` for ``decode``, ``draw`` and ``others``; ``what`` names it in logs and problems.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        client: ApiClient,
        path: str,
        decode: Callable[[bytes], T | None],
        *,
        what: str,
        label_selector: str = "",
        field_selector: str = "",
        draw: Callable[[], float] = random.random,
        others: Sequence[str] = (),
    ) -> None:
        self.mirror: Mirror[T] = Mirror(path, decode, label_selector, field_selector, draw, others)
        self.what = what
        self._reactor = reactor
        self._client = client
        self._following: Deferred[None] | None = None
        self._callbacks: list[Callback[T]] = []
        self._awaiting_sync: list[Callable[[], object]] = []
        self._told: str | None = None

    @property
    def items(self) -> dict[str, T]:
        """
        What is known now; not to be changed.
        """
        return self.mirror.items

    @property
    def synced(self) -> bool:
        """
        Whether ``items`` has once been the whole collection.
        """
        return self.mirror.synced

    @property
    def problem(self) -> str | None:
        """
        Why ``items`` may be out of date, or why it is not there yet; None when all is well.
        """
        if self.mirror.problem is not None:
            return f"{self.what}: {self.mirror.problem}"
        return None if self.synced else f"{self.what}: not listed yet"

    def subscribe(self, callback: Callback[T]) -> Callable[[], None]:
        """
        Call ``callback(key, old, new)`` after each change from now on; answers how to end that.
        """
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def on_synced(self, callback: Callable[[], object]) -> None:
        """
        Call ``callback()`` once the whole collection is known; at once if it is.
        """
        if self.synced:
            callback()
        else:
            self._awaiting_sync.append(callback)

    def startService(self) -> None:
        """
        Begin to follow.
        """
        super().startService()
        self._following = Deferred.fromCoroutine(self._follow())
        self._following.addErrback(self._stopped)

    def stopService(self) -> None:
        """
        Follow no more; what is known stays.
        """
        super().stopService()
        following, self._following = self._following, None
        if following is not None:
            following.cancel()

    def _stopped(self, failure: Failure) -> None:
        failure.trap(CancelledError)

    async def _follow(self) -> None:
        while True:
            ask, began = self.mirror.next_ask(), self._reactor.seconds()
            try:
                await (self._watch(ask) if ask.watch else self._list(ask))
                lasted = self._reactor.seconds() - began
                seconds = self.mirror.watch_ended(lasted) if ask.watch else 0.0
            except CancelledError:
                raise
            except Exception as error:
                if not isinstance(error, (ApiError, ObjectError, WatchError)):
                    self.log.failure("{what}: a mistake of ours", what=self.what)
                seconds = self.mirror.failed(error, self._reactor.seconds() - began)
                self._tell_problem()
            if seconds:
                await pause(self._reactor, seconds)

    async def _list(self, ask: Ask) -> None:
        body = await self._client.call(b"GET", ask.target, timeout=PAGE_TIMEOUT, limit=MAX_PAGE_BYTES)
        self._tell(self.mirror.page(body))
        if self.synced and self._awaiting_sync:
            waiting, self._awaiting_sync = self._awaiting_sync, []
            for callback in waiting:
                with self.log.failuresHandled("{what}: a subscriber failed", what=self.what):
                    callback()

    async def _watch(self, ask: Ask) -> None:
        def received(data: bytes) -> None:
            self._tell(self.mirror.received(data))

        await self._client.stream(ask.target, self._watch_began, received, lasting=ask.lasting)

    def _watch_began(self) -> None:
        self.mirror.watch_began()
        self._tell_problem()

    def _tell(self, changes: Iterable[Change[T]]) -> None:
        for change in changes:
            for callback in tuple(self._callbacks):
                with self.log.failuresHandled("{what}: a subscriber failed", what=self.what):
                    callback(change.key, change.old, change.new)

    def _tell_problem(self) -> None:
        """
        Log a problem when it is a new one, and its end.
        """
        problem = self.mirror.problem
        if problem == self._told:
            return
        if problem is None:
            self.log.info("{what}: followed again", what=self.what)
        else:
            self.log.warn("{what}: {problem}; trying again", what=self.what, problem=problem)
        self._told = problem
