"""
One controller at work: what it follows, its queue, its workers.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.application.service import IServiceCollection, MultiService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.controllers.controller import CREATE, DELETE, UPDATE, Controller, Observed, Source, Write
from yurt.controllers.metrics import ControllerMetrics
from yurt.controllers.workqueue import MAX_PAUSE, WorkQueue
from yurt.kube.api import ApiClient, ApiError
from yurt.kube.informer import Informer
from yurt.kube.objects import is_newer
from yurt.kube.pause import pause

SERVED_PAUSE = 30.0
"""Seconds between two looks whether a collection is served by now."""
CATCH_UP_PAUSE = 0.1
"""Seconds between two looks whether a write shows by now."""
TURN = 100
"""Keys that are taken before the reactor has its turn."""
MAX_REMEMBERED = 10_000
"""Objects to be created once that are remembered as created; of others the API server is asked again."""
MAX_PROBLEMS = 100
"""Failing keys whose reason is kept for people."""


class Runner(MultiService):
    """
    Runs ``controller`` from its start to its stop, after which it is of no more use.

    ``resync`` is how many seconds lie between two looks at everything, ``wall`` the time of day.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        client: ApiClient,
        controller: Controller,
        metrics: ControllerMetrics,
        *,
        resync: float,
        wall: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        super().__init__()
        self.controller = controller
        self.queue = WorkQueue(draw)
        self.informers: dict[Source[Any], Informer[Any]] = {}
        self.problems: OrderedDict[str, str] = OrderedDict()
        """Failing keys, and why."""
        self.waits_for: dict[Source[Any], str] = {source: "not asked for yet" for source in controller.sources}
        """Collections that are not whole yet, and why."""
        self._reactor = reactor
        self._client = client
        self._metrics = metrics
        self._resync = resync
        self._wall = wall
        self._draw = draw
        self._observed = Observed()
        self._expected: dict[str, list[tuple[Source[Any], str]]] = {}
        self._created: OrderedDict[str, None] = OrderedDict()
        self._beginnings: list[Deferred[None]] = []
        self._working: dict[str, Deferred[None]] = {}
        self._next: IDelayedCall | None = None
        self._resyncing: IDelayedCall | None = None

    # Life

    def startService(self) -> None:
        """
        Begin to follow; work begins when everything is known.
        """
        super().startService()
        for source in self.controller.sources:
            beginning = Deferred.fromCoroutine(self._follow(source))
            self._beginnings.append(beginning.addErrback(_cancelled))

    def stopService(self) -> Deferred[Any]:
        """
        Follow no more and write no more.  A write that is on its way may still arrive.
        """
        for call in (self._next, self._resyncing):
            if call is not None and call.active():
                call.cancel()
        stopped: Deferred[Any] = super().stopService()
        for running in (*self._beginnings, *self._working.values()):
            running.cancel()
        self._metrics.depth.set(0)
        self._metrics.running.set(0)
        self._metrics.failing.set(0)
        return stopped

    @property
    def ready(self) -> bool:
        """
        Whether all that it follows is known.
        """
        return not self.waits_for

    def problem(self) -> str | None:
        """
        Why it may be behind; None when it is not.
        """
        for source, why in self.waits_for.items():
            informer = self.informers.get(source)
            return (informer.problem if informer else None) or f"{source.what}: {why}"
        late = next((one.problem for one in self.informers.values() if one.problem), None)
        return late or next(iter(self.problems.values()), None)

    def status(self) -> Mapping[str, object]:
        """
        Its state for people.
        """
        return {
            "waiting": len(self.queue),
            "running": self.queue.running,
            "failing": dict(self.problems),
            "follows": [
                {"what": source.what, "objects": len(informer.items), "problem": informer.problem}
                for source, informer in self.informers.items()
            ],
        }

    # What is followed

    async def _follow(self, source: Source[Any]) -> None:
        path = await self._served(source)
        informer: Informer[Any] = Informer(
            self._reactor,
            self._client,
            path,
            source.decode,
            what=source.what,
            label_selector=source.label_selector,
            field_selector=source.field_selector,
            draw=self._draw,
        )
        self.informers[source] = informer
        informer.subscribe(partial(self._changed, source))
        informer.setServiceParent(IServiceCollection(self))
        informer.on_synced(partial(self._synced, source))

    async def _served(self, source: Source[Any]) -> str:
        """
        The path of the best version that the server has.
        """
        while len(source.paths) > 1:
            for path in source.paths:
                try:
                    await self._client.get(path, {"limit": "1"})
                    return path
                except ApiError as error:
                    self.waits_for[source] = str(error)
                    if error.code != 404:
                        break
            await pause(self._reactor, SERVED_PAUSE * (1 + self._draw()) / 2)
        return source.paths[0]

    def _synced(self, source: Source[Any]) -> None:
        del self.waits_for[source]
        if self.ready:
            self._resyncing = self._reactor.callLater(self._resync * (1 + self._draw()), self._look_at_all)
            self._pump()

    def _changed(self, source: Source[Any], key: str, old: Any, new: Any) -> None:
        for work in self._observed.change(source, key, old, new):
            self.queue.add(work)
            self._metrics.adds.inc()
        self._pump_soon(0.0)

    def _look_at_all(self) -> None:
        for key in list(self._expected):
            self._caught_up(key)
        for work in self._observed.work():
            self.queue.add(work)
        self._resyncing = self._reactor.callLater(self._resync * (1 + self._draw()), self._look_at_all)
        self._pump()

    # Work

    def _pump_soon(self, seconds: float) -> None:
        due = self._reactor.seconds() + seconds
        if self._next is not None and self._next.active():
            if self._next.getTime() <= due:
                return
            self._next.cancel()
        if self.running:
            self._next = self._reactor.callLater(seconds, self._pump)

    def _pump(self) -> None:
        """
        Take as many keys as there are workers free, and come back when the next one is due.
        """
        taken = 0
        while self.ready and self.running and len(self._working) < self.controller.workers and taken < TURN:
            key = self.queue.take(self._reactor.seconds())
            if key is None:
                break
            taken += 1
            working = self._working[key] = Deferred.fromCoroutine(self._work(key))
            working.addErrback(_cancelled).addBoth(self._worked, key)
        self._metrics.depth.set(len(self.queue))
        self._metrics.running.set(self.queue.running)
        self._metrics.failing.set(self.queue.failing)
        due = self.queue.next_due()
        if taken == TURN:
            self._pump_soon(0.0)
        elif due is not None:
            self._pump_soon(max(0.0, due - self._reactor.seconds()))

    def _worked(self, result: None, key: str) -> None:
        del self._working[key]
        self._pump_soon(0.0)

    async def _work(self, key: str) -> None:
        """
        One look at a key, and what follows from it.
        """
        if not self._caught_up(key):
            self.queue.finish(key)
            self.queue.add_later(key, self._reactor.seconds() + CATCH_UP_PAUSE)
            return
        began = self._reactor.seconds()
        try:
            outcome = self.controller.reconcile(key, self._observed, self._wall())
            for write in outcome.writes:
                await self._carry_out(key, write)
        except CancelledError:
            raise
        except Exception as error:
            self._failed(key, error)
            return
        finally:
            self._metrics.seconds.observe(self._reactor.seconds() - began)
        self.queue.finish(key)
        self.problems.pop(key, None)
        if outcome.again is not None:
            self.queue.add_later(key, self._reactor.seconds() + outcome.again)

    def _caught_up(self, key: str) -> bool:
        """
        Whether all that was written for this key shows in what is observed.
        """
        expected = self._expected.get(key, [])
        late = [(source, version) for source, version in expected if is_newer(version, self.informers[source].mirror.version)]
        if late:
            self._expected[key] = late
        else:
            self._expected.pop(key, None)
        return not late

    def _failed(self, key: str, error: Exception) -> None:
        if not isinstance(error, ApiError):
            self.log.failure("{name}: {key}: a mistake of ours", name=self.controller.name, key=key)
        after = (error.retry_after if isinstance(error, ApiError) else None) or 0.0
        self.queue.retry(key, self._reactor.seconds(), min(after, MAX_PAUSE))
        self._metrics.errors.inc()
        self._metrics.retries.inc()
        problem = f"{key}: {error}"
        if self.problems.get(key) != problem:
            self.log.warn("{name}: {problem}; trying again", name=self.controller.name, problem=problem)
        self.problems[key] = problem
        if len(self.problems) > MAX_PROBLEMS:
            self.problems.popitem(last=False)

    # Writes

    async def _carry_out(self, key: str, write: Write) -> None:
        """
        Make one call.  What is gone needs no change, and what is to be there once may be there already.
        """
        once = f"{write.path}/{write.document['metadata'].get('name')}" if write.once else ""
        if once in self._created:
            return
        try:
            answer = await self._call(write)
        except ApiError as error:
            if not (error.code == 404 and write.verb != CREATE or error.code == 409 and write.once):
                raise
            answer = {}
        self._metrics.wrote(write.what)
        self.log.info("{name}: {key}: {what}: {path}", name=self.controller.name, key=key, what=write.what, path=write.path)
        if once:
            self._created[once] = None
            if len(self._created) > MAX_REMEMBERED:
                self._created.popitem(last=False)
        version = (answer.get("metadata") or {}).get("resourceVersion")
        if version and write.shows_in is not None:
            self._expected.setdefault(key, []).append((write.shows_in, version))

    async def _call(self, write: Write) -> Mapping[str, Any]:
        if write.verb == CREATE:
            return await self._client.create(write.path, write.document)
        if write.verb == UPDATE:
            return await self._client.update(write.path, write.document)
        assert write.verb == DELETE, write.verb
        return await self._client.delete(write.path, uid=write.document["metadata"].get("uid", ""))


def _cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)
