"""
One leader among several, by a Lease.

The rules are those of ``k8s.io/client-go/tools/leaderelection``: whoever holds the Lease renews it; the others take it when
they have not seen it renewed for as long as it lasts; a leader that could not renew it stops by itself before that.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.kube.api import ApiClient, ApiError, Document
from yurt.kube.lease import lease_document, leases_path, micro_time
from yurt.kube.pause import pause

JITTER = 0.2
"""Turns come later by up to this fraction, so that those who wait do not come at once."""
RELEASE_TIMEOUT = 2.0
"""Seconds that a stop waits for the Lease to be given up."""


@dataclass(frozen=True, slots=True)
class ElectionTimes:
    """
    Seconds: how long a Lease lasts unseen, when a leader that cannot renew it stops, and between two turns.
    """

    lease: int = 15
    renew: float = 10.0
    retry: float = 2.0


def claim(held: Document | None, identity: str, now: float, times: ElectionTimes) -> dict[str, Any]:
    """
    The spec by which ``identity`` takes or keeps the Lease whose spec was ``held``, at ``now`` by the time of day.
    """
    before = held or {}
    mine = before.get("holderIdentity") == identity
    transitions = before.get("leaseTransitions") or 0
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": times.lease,
        "acquireTime": before.get("acquireTime") if mine else micro_time(now),
        "renewTime": micro_time(now),
        "leaseTransitions": transitions if mine or held is None else transitions + 1,
    }


class LeaderElection(Service):
    """
    Calls ``on_started()`` when ``identity`` comes to lead by the Lease ``namespace``/``name``, ``on_stopped()`` when it leads
    no more.  Losing ends nothing else: it goes on to be elected again.

    ``wall`` is the time of day in seconds, ``draw`` gives numbers from 0 up to 1.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        client: ApiClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        on_started: Callable[[], object],
        on_stopped: Callable[[], object],
        times: ElectionTimes = ElectionTimes(),
        wall: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.what = f"Lease {namespace}/{name}"
        self.identity = identity
        self.leading = False
        self.leader = ""
        """Who holds the Lease, as last seen."""
        self.problem: str | None = None
        """Why nothing is known of the Lease now."""
        self._reactor = reactor
        self._client = client
        self._place = namespace, name
        self._path = leases_path(namespace)
        self._on_started = on_started
        self._on_stopped = on_stopped
        self._times = times
        self._wall = wall
        self._draw = draw
        self._lease: Document | None = None
        self._seen: tuple[object, ...] = ()
        self._seen_at = 0.0
        self._deadline: IDelayedCall | None = None
        self._running: Deferred[None] | None = None

    def startService(self) -> None:
        """
        Stand for election.
        """
        super().startService()
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(_cancelled)

    def stopService(self) -> Deferred[None]:
        """
        Stand no more, and give up the Lease if it is held, so that others need not wait for its end.
        """
        super().stopService()
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
        if not self.leading:
            return succeed(None)
        self._lose("the daemon stops")
        return Deferred.fromCoroutine(self._release())

    async def _run(self) -> None:
        while True:
            try:
                await self._turn()
                self.problem = None
            except ApiError as error:
                problem = f"{self.what}: {error}"
                if problem != self.problem:
                    self.log.warn("{problem}; trying again", problem=problem)
                self.problem = problem
            except CancelledError:
                raise
            except Exception as error:
                self.problem = f"{self.what}: {error}"
                self.log.failure("{what}: a mistake of ours", what=self.what)
            await pause(self._reactor, self._times.retry * (1 + JITTER * self._draw()))

    async def _turn(self) -> None:
        """
        Look at the Lease unless it is known to be ours, then take or renew it if that is due.
        """
        if not self.leading or self._lease is None:
            self._lease = await self._read()
            self._see(self._lease)
            if self.leader not in ("", self.identity):
                self._lose(f"{self.leader} holds it")
                if self._reactor.seconds() - self._seen_at < self._lasts():
                    return
        asked_at = self._reactor.seconds()
        try:
            self._lease = await self._write(self._lease)
        except ApiError as error:
            self._lease = None
            if error.code == 409:
                return  # somebody else wrote it: the next turn sees who
            raise
        self._see(self._lease)
        self._renewed(asked_at)

    def _lasts(self) -> float:
        """
        Seconds for which the Lease counts after it was seen to change, as its holder says.
        """
        spec = (self._lease or {}).get("spec") or {}
        duration = spec.get("leaseDurationSeconds")
        return float(duration) if isinstance(duration, int) else self._times.lease

    async def _read(self) -> Document | None:
        try:
            return await self._client.get(f"{self._path}/{self._place[1]}", timeout=self._times.renew / 2)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def _write(self, lease: Document | None) -> Document:
        spec = claim((lease or {}).get("spec"), self.identity, self._wall(), self._times)
        timeout = self._times.renew / 2
        if lease is None:
            return await self._client.create(self._path, lease_document(*self._place, spec), timeout=timeout)
        changed = {**lease, "spec": {**(lease.get("spec") or {}), **spec}}
        return await self._client.update(f"{self._path}/{self._place[1]}", changed, timeout=timeout)

    def _see(self, lease: Document | None) -> None:
        spec = (lease or {}).get("spec") or {}
        self.leader = spec.get("holderIdentity") or ""
        seen = (self.leader, spec.get("renewTime"), spec.get("leaseTransitions"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._reactor.seconds()

    def _renewed(self, asked_at: float) -> None:
        """
        The Lease is ours, from when it was asked for on.
        """
        if self._deadline is not None:
            self._deadline.cancel()
        left = asked_at + self._times.renew - self._reactor.seconds()
        self._deadline = self._reactor.callLater(max(0.0, left), self._expired)
        if not self.leading:
            self.leading = True
            self.log.info("{what}: leading", what=self.what)
            with self.log.failuresHandled("{what}: a callback failed", what=self.what):
                self._on_started()

    def _expired(self) -> None:
        self._deadline = None
        self._lose(f"not renewed for {self._times.renew:g} s")

    def _lose(self, why: str) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self.leading:
            self.leading = False
            self.log.info("{what}: not leading any more: {why}", what=self.what, why=why)
            with self.log.failuresHandled("{what}: a callback failed", what=self.what):
                self._on_stopped()

    async def _release(self) -> None:
        if self._lease is None:
            return
        spec = {**(self._lease.get("spec") or {}), "leaseDurationSeconds": 1, "renewTime": micro_time(self._wall())}
        del spec["holderIdentity"]  # newer API servers take no empty one
        try:
            released = {**self._lease, "spec": spec}
            await self._client.update(f"{self._path}/{self._place[1]}", released, timeout=RELEASE_TIMEOUT)
        except ApiError as error:
            self.log.info("{what}: not released: {error}", what=self.what, error=error)


def _cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)
