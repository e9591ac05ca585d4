"""
One API server, and the probes that tell whether it is alive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from yurt.http.fetch import FetchedResponse, fetch
from yurt.http.heads import get_header
from yurt.http.interfaces import Headers, Upstream, UpstreamError
from yurt.hub.health import SUSPECT_TIMEOUT, Probe, ServerHealth, State

PROBE_TARGET = b"/readyz"
PULSE_TARGET = b"*"
"""With OPTIONS, the cheapest question there is: an API server's HTTP library answers it with an empty 200, before it looks at
credentials, and writes no audit record."""
LOAD_BALANCER_ERRORS = frozenset({502, 503, 504})
"""What a load balancer says when no API server stands behind it: no answer of the cloud."""
API_SERVERS_OWN = (b"audit-id", b"x-kubernetes-pf-flowschema-uid")
"""Headers of which kube-apiserver sends one at least with each answer, and nobody else: the first since 1.22, the second since
1.20."""
MAX_PROBE_BODY = 16 * 1024
"""Bytes of a probe's answer that are read; more of them count as a failure."""

LOCAL_RETRY = 0.5
"""Seconds after which a probe that got no socket is tried again."""


def is_of_api_server(headers: Headers) -> bool:
    """
    Whether an answer is kube-apiserver's own, or one that it passes on, and not that of a proxy on the way.
    """
    return any(get_header(headers, name) is not None for name in API_SERVERS_OWN)


def is_unserved(status: int, headers: Headers) -> bool:
    """
    Whether an answer is that of a load balancer with no API server behind it.  One in JSON is taken for an API server's.
    """
    if status not in LOAD_BALANCER_ERRORS or is_of_api_server(headers):
        return False
    return not (get_header(headers, b"content-type") or b"").lower().startswith(b"application/json")


class Server:
    """
    One API server.  ``upstream`` speaks with the node's certificate, ``bare`` never presents it.
    """

    __slots__ = ("bare", "healthy", "last_change", "name", "reason", "upstream")

    def __init__(self, name: str, upstream: Upstream, bare: Upstream) -> None:
        self.name = name
        self.upstream = upstream
        self.bare = bare
        self.healthy = False
        self.reason = "not probed yet"
        self.last_change = 0.0
        """Wall time of the last change of ``healthy``; 0 before the first verdict."""

    def distrust_connections(self) -> None:
        """
        A new connection has brought what an old one owed: the others of that time may be dead as well, and no write can be asked
        for twice.
        """
        self.upstream.retire_connections()
        self.bare.retire_connections()


class Verdict(NamedTuple):
    """
    Why a server is not alive, empty when it is, and whether it has said that itself.
    """

    reason: str
    confessed: bool = False


class Prober:
    """
    Carries out what the health of one server asks for.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        server: Server,
        health: ServerHealth,
        headers: Callable[[], Headers],
        changed: Callable[[Prober], None],
        heard: Callable[[Headers], object],
    ) -> None:
        self.server = server
        self.health = health
        self._reactor = reactor
        self._headers = headers
        self._changed = changed
        self._heard = heard
        self._running = False
        self._timer: IDelayedCall | None = None
        self._probes: dict[Probe, Deferred[Verdict]] = {}
        self._asked: set[Deferred[bool]] = set()
        self._waiting: dict[Deferred[bool], IDelayedCall] = {}

    def start(self) -> None:
        self._running = True
        self._proceed()

    def stop(self) -> Deferred[None]:
        self._running = False
        self._settle()
        self._proceed()
        running: list[Deferred[Any]] = [*self._probes.values(), *self._asked]
        done = DeferredList(running)
        for one in running:
            one.cancel()
        return done.addCallback(lambda _: None)

    def pulse(self, interval: float) -> None:
        """
        Have the server asked for a sign of life after so many seconds of silence; infinity for never.
        """
        if interval != self.health.pulse_interval:
            self.health.pulse_interval = interval
            self._proceed()

    def ask(self) -> Deferred[bool]:
        """
        Fires with whether the server answers a pulse; its health is not concerned.
        """
        asked = Deferred.fromCoroutine(self._answers())
        if not asked.called:
            self._asked.add(asked)
            asked.addCallback(self._answered, asked)
        return asked

    async def _answers(self) -> bool:
        return not (await self._ask(self.health.pulse(self._reactor.seconds()))).reason

    def _answered(self, answers: bool, asked: Deferred[bool]) -> bool:
        self._asked.remove(asked)
        return answers

    def suspect(self, reason: str, certain: bool) -> Deferred[bool]:
        before = self.health.state
        self.health.suspected(self._reactor.seconds(), reason, certain)
        self._proceed_from(before)
        if self.health.state is not State.SUSPECT or not self._running:
            return succeed(self.health.alive)
        waiting: Deferred[bool] = Deferred(self._forget)
        self._waiting[waiting] = self._reactor.callLater(SUSPECT_TIMEOUT, self._answer, waiting, False)
        return waiting

    def _forget(self, waiting: Deferred[bool]) -> None:
        self._waiting.pop(waiting).cancel()

    def _answer(self, waiting: Deferred[bool], alive: bool) -> None:
        timer = self._waiting.pop(waiting)
        if timer.active():
            timer.cancel()
        waiting.callback(alive)

    def _settle(self) -> None:
        for waiting in list(self._waiting):
            if waiting in self._waiting:
                self._answer(waiting, self.health.alive)

    def _proceed_from(self, before: State) -> None:
        """
        Act on what an event made of the state ``before`` it: tell first, so that who is woken by what follows sees it.
        """
        state = self.health.state
        if state is not before:
            self._changed(self)
            if state is not State.SUSPECT:
                self._settle()
            if state is State.DOWN:
                reason = self.health.reason.removeprefix(f"{self.server.name}: ")  # which every error of a request begins with
                self.server.upstream.close_connections(reason)
                self.server.bare.close_connections(reason)
        self._proceed()

    def _proceed(self) -> None:
        """
        Drop the probes that no longer matter, begin the one that is due, and come back when the next is.
        """
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if not self._running:
            return
        for probe, running in list(self._probes.items()):
            if probe not in self.health.in_flight:
                running.cancel()
        now = self._reactor.seconds()
        if self.health.due(now) <= now:
            self._begin(self.health.begin(now))
        due = self.health.due(now)
        if self._timer is None and due < math.inf:
            self._timer = self._reactor.callLater(due - now, self._proceed)

    def _begin(self, probe: Probe) -> None:
        running = self._probes[probe] = Deferred.fromCoroutine(self._ask(probe))
        running.addCallback(self._ended, probe)

    async def _ask(self, probe: Probe) -> Verdict:
        try:
            response = await self._get(probe)
        except (UpstreamError, CancelledError) as error:
            return Verdict(str(error) or "cancelled")
        except Exception as error:
            self._log.failure("The probe of {server} could not be made.", server=self.server.name)
            return Verdict(f"{self.server.name} could not be probed: {error}")
        self._heard(response.headers)
        is_bad = response.status in LOAD_BALANCER_ERRORS if probe.pulse else response.status >= 500
        if not is_bad:
            return Verdict("")
        what = "OPTIONS *" if probe.pulse else "GET /readyz"
        return Verdict(f"{self.server.name} answered {response.status} to {what}", not probe.pulse)

    async def _get(self, probe: Probe) -> FetchedResponse:
        """
        The answer to a probe; while this machine has no socket for it nothing is known, and it is tried again.
        """
        while True:
            try:
                return await fetch(
                    self._reactor,
                    self.server.upstream,
                    b"OPTIONS" if probe.pulse else b"GET",
                    PULSE_TARGET if probe.pulse else PROBE_TARGET,
                    [] if probe.pulse else self._headers(),
                    timeout=probe.timeout,
                    limit=MAX_PROBE_BODY,
                    fresh=probe.fresh,
                )
            except UpstreamError as error:
                if not error.local:
                    raise
            await deferLater(self._reactor, LOCAL_RETRY)

    def _ended(self, verdict: Verdict, probe: Probe) -> None:
        del self._probes[probe]
        if probe not in self.health.in_flight or not self._running:
            return
        before, now = self.health.state, self._reactor.seconds()
        if verdict.reason:
            self.health.failed(probe, now, verdict.reason, confessed=verdict.confessed)
        else:
            self.health.succeeded(probe, now)
        self._proceed_from(before)
