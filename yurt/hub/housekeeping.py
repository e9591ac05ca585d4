"""
The sweep: what is of no use any more leaves the cache, and nobody keeps more than its share.

    pods        of this node that kubelet's views hold and the cloud lists no longer, not even when asked again CONFIRM_PAUSE
                later.  Never all of them at once: a cloud that lists none may be another one, or a broken one
    events      that the cloud has not confirmed for EVENT_LIFE, and answers 404 for
    components  not seen for UNSEEN_FOR of the hub's running with the cloud; never the node's own kubelet
    quota       whole views of whoever holds more than its quota, those updated longest ago first

Without the cloud nothing is swept.  The quota of the whole cache is kept at each commit, by yurt/hub/cache/shelf.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.http.fetch import FetchedResponse, fetch
from yurt.http.interfaces import UpstreamError
from yurt.hub.cache.quota import KUBELET
from yurt.hub.cache.records import Caller, StoredObject, ViewKey
from yurt.hub.exclude import TOKENS
from yurt.hub.swept import Swept
from yurt.hub.timers import Timers
from yurt.kube.objects import ObjectError, is_newer, split_list
from yurt.kube.status import read_failure

if TYPE_CHECKING:
    from yurt.hub.hub import Hub

FIRST_SWEEP = 300.0
"""Seconds after the start: whoever is there has spoken by then."""

RETRY_SWEEP = 300.0
"""Seconds until the next attempt when the cloud was away, or failed on the way."""

LOOK_INTERVAL = 60.0
"""Seconds between looks at whether so much has come that quotas must be kept before the next sweep."""

GROWTH = 16
"""The cache has grown by this part of the whole quota: the quotas are looked at."""

CONFIRM_PAUSE = 30.0
EVENT_LIFE = 3600.0
"""Seconds that kube-apiserver keeps events after their last change, unless told otherwise (--event-ttl)."""

MAX_EVENT_LOOKS = 200
"""Events that one sweep asks the cloud for, those that were confirmed longest ago."""

UNSEEN_FOR = 30 * 86400.0

MAX_SEEN = 4096
"""Callers remembered between two sweeps; where there are more, all count as seen."""

FETCH_TIMEOUT = 15.0
MAX_PODS_BYTES = 4 * 1024 * 1024

EVENTS = frozenset({"/v1/events", "events.k8s.io/v1/events"})
PODS = "/v1/pods"
METADATA_ONLY = b"application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"

T = TypeVar("T")


class Undecided(Exception):
    """
    The cloud did not say what is to be known; the message says why.
    """


class _PodHead(msgspec.Struct):
    class Spec(msgspec.Struct):
        nodeName: str = ""

    spec: Spec = msgspec.field(default_factory=Spec)


class Housekeeping:
    """
    Sweeps every ``frequency`` seconds.  :attr:`seen` is told of all callers.
    """

    log = Logger()

    def __init__(self, hub: Hub, frequency: float) -> None:
        self.swept = Swept()
        self.seen: set[Caller] = set()
        self._hub = hub
        self._frequency = frequency
        self._unseen = hub.store.table("components")
        self._timers = Timers(hub.reactor)
        self._running: Deferred[None] | None = None
        self._counted_at = 0.0
        self._measured = 0
        self._stopped = False

    def start(self) -> None:
        """
        Drop what is not to be kept, and begin to sweep.
        """
        self._counted_at = self._hub.reactor.seconds()
        self._in_turn(self._drop_excluded)
        self._timers.set("sweep", FIRST_SWEEP * random.uniform(1.0, 1.5), self._begin)
        self._timers.set("look", LOOK_INTERVAL, self._look)

    def stop(self) -> None:
        """
        Sweep no more.
        """
        self._stopped = True
        self._timers.cancel_all()
        if self._running is not None:
            self._running.cancel()

    def saw(self, caller: Caller) -> None:
        """
        A caller has asked for something.
        """
        if len(self.seen) < MAX_SEEN:
            self.seen.add(caller)

    # When

    def _begin(self) -> None:
        if self._running is None:
            self._timers.set("sweep", self._frequency * random.uniform(0.8, 1.2), self._begin)
            self._run(self.sweep)

    def _look(self) -> None:
        self._timers.set("look", LOOK_INTERVAL, self._look)
        grown = self._hub.views.object_bytes - self._measured
        if grown > self._hub.config.cache_quota.total // GROWTH and self._hub.cloud.reachable and self._running is None:
            self._run(self._look_at_quotas)

    def _run(self, work: Callable[[], Coroutine[Deferred[Any], Any, None]]) -> None:
        self._running = Deferred.fromCoroutine(work())
        self._running.addErrback(self._failed).addBoth(self._ended)

    def _failed(self, failure: Failure) -> None:
        if failure.check(UpstreamError, Undecided):
            self.log.info("the sweep is put off: {reason}", reason=str(failure.value))
            self._timers.set("sweep", RETRY_SWEEP, self._begin)
        elif not failure.check(CancelledError):
            self.log.failure("the sweep failed", failure=failure)

    def _ended(self, _: object) -> None:
        self._running = None

    # What

    async def sweep(self) -> None:
        """
        All of it once.  Raises Undecided and UpstreamError where the cloud does not tell; then the rest is left alone.
        """
        if not self._hub.cloud.reachable:
            raise Undecided("the cloud is not reachable")
        pods = await self._sweep_pods()
        events = await self._sweep_events()
        components = await self._in_turn(self._drop_unseen)
        await self._in_turn(self._drop_excluded)
        views = await self._keep_quotas()
        self._count({"pods": pods, "events": events, "components": components, "views": views})
        self.swept.sweeps += 1
        self.log.info(
            "swept the cache: {pods} pods, {events} events, {components} components, {views} views beyond a quota removed; "
            "{objects} objects of {mebibytes:.1f} MiB are left",
            pods=pods, events=events, components=components, views=views,
            objects=self._hub.views.objects, mebibytes=self._hub.views.object_bytes / (1 << 20),
        )  # fmt: skip

    def _count(self, removed: dict[str, int]) -> None:
        for what, number in removed.items():
            self.swept.removed[what] += number

    def _in_turn(self, job: Callable[[], Generator[None, None, T]]) -> Deferred[T]:
        """
        Do what changes the views after what the cloud said before; fires, when that is over, with what the steps return.
        """
        done: Deferred[T] = Deferred()

        def steps() -> Generator[None, None, None]:
            try:
                outcome: T | Failure = yield from job()
            except Exception:
                outcome = Failure()
            if not self._stopped:
                self._timers.set("turn", 0.0, lambda: done.callback(outcome))

        self._hub.turns.run(steps)
        return done

    async def _ask(self, target: str, accept: bytes = b"application/json") -> FetchedResponse:
        server = self._hub.cloud.pick()
        if server is None:
            raise Undecided("the cloud is not reachable")
        headers = [*self._hub.cloud.node_headers(), (b"Accept", accept)]
        return await fetch(
            self._hub.reactor, server.upstream, b"GET", target.encode(), headers, timeout=FETCH_TIMEOUT, limit=MAX_PODS_BYTES
        )

    # Pods

    async def _sweep_pods(self) -> int:
        """
        Forget the pods that the cloud has no longer; returns how many.
        """
        here = self._pods_here()
        gone = await self._missing(here)
        if gone:
            await self._pause(CONFIRM_PAUSE)
            here = self._pods_here()
            gone &= await self._missing(here)
        if not gone:
            return 0
        if gone >= here.keys():
            self.swept.refused += 1
            message = "the cloud has none of the {pods} pods of this node that are cached: they stay, as it may be wrong"
            self.log.warn(message, pods=len(here))
            return 0
        return await self._in_turn(lambda: self._forget([(PODS, "", member) for member in gone], KUBELET))

    def _pods_here(self) -> dict[bytes, StoredObject]:
        """
        What kubelet's views hold of this node's pods, but for those whose last status the cloud has still to be told.
        """
        self._hub.turns.finish()
        return {
            member: stored
            for member, stored in self._hub.views.upkeep.held(KUBELET, PODS).items()
            if _node_of(stored.body) == self._hub.config.node_name and self._hub.journal.status(_status_path(member)) is None
        }

    async def _missing(self, here: dict[bytes, StoredObject]) -> set[bytes]:
        """
        Those of the pods here that the cloud's present list, read from etcd, lacks, and that are not newer than it.
        """
        if not here:
            return set()
        target = f"/api/v1/pods?fieldSelector=spec.nodeName%3D{self._hub.config.node_name}"
        response = await self._ask(target, METADATA_ONLY)
        if response.status != 200:
            raise Undecided(f"the list of this node's pods was answered {response.status}")
        try:
            listed = split_list(response.body)
        except ObjectError as error:
            raise Undecided(f"the list of this node's pods: {error}") from None
        version = listed.resource_version
        if not version or listed.continue_token:
            raise Undecided("the list of this node's pods is not whole")
        there = {f"{meta.namespace}/{meta.name}".encode() for meta, _ in listed.items}
        return {
            member for member, stored in here.items() if member not in there and not is_newer(stored.resource_version, version)
        }

    def _forget(self, gone: Collection[tuple[str, str, bytes]], caller: Caller | None = None) -> Generator[None, None, int]:
        """
        Forget objects, given by resource, form and member, that the cloud does not have.
        """
        for gvr, form, member in gone:
            self._hub.views.upkeep.forget(gvr, form, member, caller)
            yield
        return len(gone)

    def _pause(self, seconds: float) -> Deferred[None]:
        later: Deferred[None] = Deferred()
        self._timers.set("pause", seconds, lambda: later.callback(None))
        return later

    # Events

    async def _sweep_events(self) -> int:
        """
        Forget the events whose life is over; returns how many.
        """
        gone: list[tuple[str, str, bytes]] = []
        aged = self._hub.views.upkeep.aged(EVENTS, self._hub.now() - EVENT_LIFE)
        for _, gvr, form, member in aged[:MAX_EVENT_LOOKS]:
            namespace, _, name = member.decode().partition("/")
            group, version, resource = gvr.split("/")
            root = f"/apis/{group}/{version}" if group else f"/api/{version}"
            response = await self._ask(f"{root}/namespaces/{namespace}/{resource}/{name}")
            if response.status == 404 and read_failure(response.body).reason == "NotFound":
                gone.append((gvr, form, member))
            elif response.status == 200:
                self._hub.views.confirm(gvr, form, member)
            elif response.status == 403:
                self.log.debug("events are not swept: the node may not read them")
                break
        return await self._in_turn(lambda: self._forget(gone)) if gone else 0

    # Components

    def _drop_unseen(self) -> Generator[None, None, int]:
        """
        Drop what components have that were not seen for long.  Only time counts in which they could have been: neither that of a
        node switched off, nor that of a clock put right.
        """
        seen, self.seen = self.seen, set()
        now = self._hub.reactor.seconds()
        passed, self._counted_at = min(now - self._counted_at, 2 * self._frequency), now
        dropped = 0
        callers = {_name(caller): caller for caller in self._hub.views.upkeep.callers() - {KUBELET}}
        for key, _ in list(self._unseen.scan()):
            if key not in callers:
                self._unseen.delete(key)
        for key, caller in callers.items():
            yield
            unseen = 0.0 if caller in seen or len(seen) >= MAX_SEEN else float(self._unseen.get(key) or 0) + passed
            if unseen < UNSEEN_FOR:
                self._unseen.put(key, b"%.0f" % unseen)
                continue
            self._hub.views.upkeep.drop_caller(caller)
            self._unseen.delete(key)
            dropped += 1
        return dropped

    def _drop_excluded(self) -> Generator[None, None, int]:
        """
        Drop what an earlier run kept, and the operator does not want kept.
        """
        hub = self._hub
        if hub.excluded.covers("", TOKENS):
            hub.token_answers.clear()
        doomed = [key for key, _ in hub.views.views() if hub.excluded.covers_gvr(key.gvr)]
        yield
        return hub.views.upkeep.drop(doomed)

    # Quotas

    async def _look_at_quotas(self) -> None:
        views = await self._keep_quotas()
        self._count({"views": views})
        if views:
            self.log.info(
                "{views} views were dropped from the cache, as their components hold more than their quotas", views=views
            )

    async def _keep_quotas(self) -> int:
        """
        Drop views of those who hold too much; returns how many.
        """
        return await self._in_turn(self._drop_beyond)

    def _drop_beyond(self) -> Generator[None, None, int]:
        upkeep = self._hub.views.upkeep
        usage = yield from upkeep.measure()
        doomed = upkeep.beyond(usage)
        dropped = upkeep.drop(doomed)
        self.swept.usage = _by_component(usage, doomed)
        self._measured = self._hub.views.object_bytes
        return dropped


def _by_component(usage: dict[ViewKey, int], doomed: Collection[ViewKey]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for key in usage.keys() - set(doomed):
        sums[key.caller.component] = sums.get(key.caller.component, 0) + usage[key]
    return sums


def _name(caller: Caller) -> bytes:
    """
    What a caller is remembered by.
    """
    return f"{caller.component}\0{caller.identity}".encode()


def _node_of(body: bytes) -> str:
    """
    The node of a pod; empty when it cannot be read.
    """
    try:
        return msgspec.json.decode(body, type=_PodHead).spec.nodeName
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _status_path(member: bytes) -> str:
    """
    The path under which the journal keeps the status of a pod.
    """
    namespace, _, name = member.decode().partition("/")
    return f"/api/v1/namespaces/{namespace}/pods/{name}/status"
