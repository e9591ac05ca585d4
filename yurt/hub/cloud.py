"""
The one place that knows whether the cloud is there.

A :class:`yurt.hub.server.Prober` finds out about each API server; :class:`Cloud` sums them up.  Requests ask
:meth:`Cloud.pick` for a server, and tell :meth:`Cloud.answered`, :meth:`Cloud.suspect` or :meth:`Cloud.failed` how it went.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from yurt.http.interfaces import Headers
from yurt.hub.health import ServerHealth, State
from yurt.hub.server import Prober, Server

__all__ = ["LOAD_BALANCER_ERRORS", "Cloud", "CloudSettings", "Server"]

LOAD_BALANCER_ERRORS = frozenset({502, 503, 504})
"""What a load balancer says when no API server stands behind it: no answer of the cloud."""


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """
    What the operator chose: ``lb_mode`` is "rr" (in turn) or "priority" (the first that is healthy); times in seconds.
    """

    lb_mode: str = "rr"
    heartbeat_interval: float = 10.0
    heartbeat_timeout: float = 2.5


class Cloud:
    """
    All API servers of the cluster.

    ``node_headers`` gives the node's own header fields for probes and renewals (its token, if it has no certificate).
    ``wall`` is the time of day in seconds; ``draw`` gives random numbers from 0 up to 1.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        servers: Sequence[Server],
        settings: CloudSettings,
        node_headers: Callable[[], Headers],
        *,
        wall: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.servers = tuple(servers)
        self.node_headers = node_headers
        self.reachable = False
        self.known = False
        self.since = wall()
        """Wall time since which ``reachable`` is what it is."""
        self._reactor = reactor
        self._in_turn = settings.lb_mode == "rr"
        self._wall = wall
        self._choices: tuple[Server, ...] = ()
        self._picked = 0
        self._offline_total = 0.0
        self._offline_from: float | None = None
        self._subscribers: list[Callable[[bool], None]] = []
        self._awaiting_verdict: list[Deferred[None]] = []
        self._probers = {
            server: Prober(
                reactor,
                server,
                ServerHealth(settings.heartbeat_interval, settings.heartbeat_timeout, draw),
                node_headers,
                self._changed,
            )
            for server in self.servers
        }

    def start(self) -> None:
        for prober in self._probers.values():
            prober.start()

    def stop(self) -> Deferred[None]:
        """
        End all probes; fires when they are gone.
        """
        stopped = DeferredList([prober.stop() for prober in self._probers.values()])
        return stopped.addCallback(lambda _: None)

    @property
    def reason(self) -> str:
        """
        Why the cloud is not reachable; empty when it is.
        """
        return "" if self.reachable else "; ".join(server.reason for server in self.servers)

    def offline_seconds(self) -> float:
        """
        Seconds without the cloud, summed since the start.
        """
        running = 0.0 if self._offline_from is None else self._reactor.seconds() - self._offline_from
        return self._offline_total + running

    def pick(self) -> Server | None:
        """
        The server for the next request; None when the cloud is not reachable.  One under suspicion only for want of another.
        """
        choices = self._choices
        if not choices:
            return None
        if not self._in_turn or len(choices) == 1:
            return choices[0]
        self._picked = (self._picked + 1) % len(choices)
        return choices[self._picked]

    def other(self, server: Server) -> Server | None:
        """
        Another healthy server, to try a request again on.
        """
        others = [choice for choice in self._choices if choice is not server]
        others += [choice for choice in self.servers if choice.healthy and choice is not server]
        return others[0] if others else None

    def answered(self, server: Server) -> None:
        """
        ``server`` answered: a response head, or more of a long body.  Cheap; a 502, 503 or 504 is no answer.
        """
        self._probers[server].health.answered(self._reactor.seconds())

    def suspect(self, server: Server, reason: str) -> Deferred[bool]:
        """
        A request to ``server`` got no head in time, or a 502, 503 or 504.  Fires, within ``SUSPECT_TIMEOUT``, with
        whether it is reachable after all, as a probe on a fresh connection finds out; callers share one probe.
        On a link known to be slow the verdict itself may come later; callers are told False meanwhile.
        """
        return self._probers[server].suspect(reason, certain=False)

    def failed(self, server: Server, reason: str) -> Deferred[bool]:
        """
        A request certainly failed (refused, reset, TLS failure): like :meth:`suspect`, but no probe of just before counts.
        """
        return self._probers[server].suspect(reason, certain=True)

    def when_known(self) -> Deferred[None]:
        """
        Fires once there is a first verdict; the caller bounds its wait and may cancel.
        """
        if self.known:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._awaiting_verdict.remove)
        self._awaiting_verdict.append(waiting)
        return waiting

    def subscribe(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        """
        Call ``callback(reachable)`` at each change; returns what ends that.
        """
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def _changed(self, prober: Prober) -> None:
        server, health = prober.server, prober.health
        was_known, was_healthy = self.known, server.healthy
        server.healthy, server.reason = health.alive, health.reason
        if was_healthy != server.healthy or not server.last_change:
            server.last_change = self._wall()
        states = {one: its.health.state for one, its in self._probers.items()}
        trusted = tuple(one for one in self.servers if states[one] is State.UP)
        self._choices = trusted or tuple(one for one in self.servers if one.healthy)
        self.known = was_known or bool(self._choices) or State.UNKNOWN not in states.values()
        if bool(self._choices) != self.reachable:
            self._turn()
        elif self.known and not was_known:
            self._lose()
        elif was_healthy != server.healthy:
            state = "healthy again" if server.healthy else f"unhealthy: {server.reason}"
            self._log.info("API server {server} is {state}", server=server.name, state=state)
        if self.known:
            waiting, self._awaiting_verdict = self._awaiting_verdict, []
            for one in waiting:
                one.callback(None)

    def _turn(self) -> None:
        """
        The cloud came or went.
        """
        self.reachable, self.since = bool(self._choices), self._wall()
        if self.reachable:
            self._regain()
        else:
            self._lose()
        for callback in list(self._subscribers):
            with self._log.failuresHandled("A subscriber to the cloud's state failed."):
                callback(self.reachable)

    def _regain(self) -> None:
        name = self._choices[0].name
        if self._offline_from is None:
            self._log.info("The cloud is reachable through {server}", server=name)
            return
        lasted = self._reactor.seconds() - self._offline_from
        self._offline_total, self._offline_from = self._offline_total + lasted, None
        self._log.info("The cloud is reachable again through {server}, after {lasted:.1f} s", server=name, lasted=lasted)

    def _lose(self) -> None:
        self._offline_from = self._reactor.seconds()
        self._log.warn("The cloud is not reachable: {reason}", reason=self.reason)
