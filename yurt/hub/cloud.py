"""
The one place that knows whether the cloud is there.

A :class:`yurt.hub.server.Prober` finds out about each API server; :class:`Cloud` sums them up.  Requests ask
:meth:`Cloud.pick` for a server, and tell :meth:`Cloud.answered`, :meth:`Cloud.suspect` or :meth:`Cloud.failed` how it went.

A server that goes away is left at once.  One that returns is on probation (:data:`yurt.hub.health.PROBATION`), used only for
want of another, so that one that comes and goes has no say while there is one that stays.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from yurt.http.interfaces import Headers
from yurt.http.names import Memory
from yurt.hub.health import PULSE_TIMEOUT, ServerHealth, State
from yurt.hub.server import LOAD_BALANCER_ERRORS, Prober, Server, is_unserved

__all__ = ["FAILOVER_SPREAD", "LOAD_BALANCER_ERRORS", "SERVER_ERRORS", "Cloud", "CloudSettings", "Server", "is_unserved"]

SERVER_ERRORS = LOAD_BALANCER_ERRORS | {500}
"""What a dead server says, or a live one that has lost its etcd; and at times one that is well, to a request that is not."""

FAILOVER_SPREAD = 0.2
"""Watches go on at another server spread over so many seconds at most."""

MOVES_A_SECOND = 250
"""Watches that may go on at another server in a second: as many as need less than FAILOVER_SPREAD for that take less."""

MOVE_TIME = 0.2
"""Seconds kept for asking the other server, and for its answer to the watch."""

MIN_PULSE_INTERVAL = 0.2

GOOD_SERVERS = b"good-servers"
"""Under this key the servers that answered last are remembered, as a JSON list of addresses."""


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """
    What the operator chose: ``lb_mode`` is "rr" (in turn) or "priority" (the first that is healthy); times in seconds.

    ``watch_failover`` is the time in which watches leave a server that has fallen silent; 0 to leave that to heartbeats.
    """

    lb_mode: str = "rr"
    watch_failover: float = 1.0
    heartbeat_interval: float = 10.0
    heartbeat_timeout: float = 2.5

    @property
    def pulse_interval(self) -> float:
        """
        Seconds of silence after which a server that watches depend on is asked for a sign of life.
        """
        if not self.watch_failover:
            return math.inf
        return max(MIN_PULSE_INTERVAL, self.watch_failover - PULSE_TIMEOUT - FAILOVER_SPREAD - MOVE_TIME)


class Cloud:
    """
    All API servers of the cluster.

    ``node_headers`` gives the node's own header fields for probes and renewals (its token, if it has no certificate).
    ``memory`` keeps over a restart which servers were good; ``wall`` is the time of day in seconds; ``draw`` gives random
    numbers from 0 up to 1.  ``heard`` is called with the header fields of each probe's answer.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        servers: Sequence[Server],
        settings: CloudSettings,
        node_headers: Callable[[], Headers],
        *,
        memory: Memory | None = None,
        wall: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
        heard: Callable[[Headers], object] = lambda headers: None,
    ) -> None:
        self.servers = tuple(servers)
        self.node_headers = node_headers
        self.reachable = False
        self.known = False
        self.since = reactor.seconds()
        """When ``reachable`` was last decided, by the reactor's clock."""
        """Wall time since which ``reachable`` is what it is."""
        self._reactor = reactor
        self._memory = memory
        self._in_turn = settings.lb_mode == "rr"
        self._pulse_interval = settings.pulse_interval
        self._depending = dict.fromkeys(self.servers, 0)
        self._probation: IDelayedCall | None = None
        self._wall = wall
        self._choices: tuple[Server, ...] = ()
        self._picked = 0
        self._offline_total = 0.0
        self._offline_from: float | None = None
        self._subscribers: list[Callable[[bool], None]] = []
        self._leavers: list[Callable[[Server], None]] = []
        self._awaiting_verdict: list[Deferred[None]] = []
        self._probers = {
            server: Prober(
                reactor,
                server,
                ServerHealth(settings.heartbeat_interval, settings.heartbeat_timeout, draw),
                node_headers,
                self._changed,
                heard,
            )
            for server in self.servers
        }

    def start(self) -> None:
        """
        Begin to probe, all servers at once.  One that was not good when the hub last ran is on probation from its first answer.
        """
        good = self._recall()
        for server, prober in self._probers.items():
            prober.health.newcomer = bool(good) and server.name not in good
        for prober in self._probers.values():
            prober.start()

    def stop(self) -> Deferred[None]:
        """
        End all probes; fires when they are gone.
        """
        if self._probation is not None:
            self._probation.cancel()
            self._probation = None
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

    def other(self, tried: Collection[Server]) -> Server | None:
        """
        A healthy server that is none of those ``tried``.
        """
        choices = [server for server in self._choices if server not in tried]
        if self._in_turn and len(choices) > 1:
            self._picked += 1
            return choices[self._picked % len(choices)]
        choices += [server for server in self.servers if server.healthy and server not in tried]
        return choices[0] if choices else None

    def depend(self, server: Server) -> None:
        """
        One more watch depends on hearing of the end of ``server``.
        """
        self._depending[server] += 1
        if self._depending[server] == 1:
            self._take_pulses()

    def release(self, server: Server) -> None:
        """
        One less does.
        """
        self._depending[server] -= 1
        if not self._depending[server]:
            self._take_pulses()

    @property
    def failover_spread(self) -> float:
        """
        Seconds over which the watches that go on at another server now are to be spread.
        """
        return min(FAILOVER_SPREAD, sum(self._depending.values()) / MOVES_A_SECOND)

    def _take_pulses(self) -> None:
        """
        Where there is nothing to go to, to know sooner would only cost.
        """
        for server, prober in self._probers.items():
            is_needed = self._depending[server] and self.other([server]) is not None
            prober.pulse(self._pulse_interval if is_needed else math.inf)

    def trusts(self, server: Server) -> bool:
        """
        Whether requests go to ``server`` now: it is healthy, and neither on probation nor under suspicion, or there is no other.
        """
        return server in self._choices

    def doubt(self, server: Server) -> str:
        """
        What speaks against ``server``; empty when nothing does.
        """
        if server.reason or self.trusts(server):
            return server.reason
        left = self._probers[server].health.trusted_from - self._reactor.seconds()
        return f"on probation for {left:.0f} s more: it was away, or a load balancer had nothing behind it"

    def answered(self, server: Server) -> None:
        """
        ``server`` answered: a response head, or more of a long body.  Cheap; a 502, 503 or 504 is no answer.
        """
        self._probers[server].health.answered(self._reactor.seconds())

    def served(self, server: Server) -> None:
        """
        The head of an answer came from an API server at ``server``.  Cheap.
        """
        self._probers[server].health.served(self._reactor.seconds())

    def unserved(self, server: Server, status: int) -> bool:
        """
        A load balancer at ``server`` answered for want of an API server.  MAX_UNSERVED times in a row, and others have its turns;
        returns whether that is so from now on.
        """
        if not self._probers[server].health.unserved(self._reactor.seconds()):
            return False
        message = "API server {server} answers {status} to one request after the other: it is used only for want of another"
        self._log.warn(message, server=server.name, status=status)
        self._choose()
        return not self.trusts(server)

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

    def on_silence(self, callback: Callable[[Server], None]) -> None:
        """
        Call ``callback(server)`` when a server has fallen silent while another one answers: what waits for it, and may go
        elsewhere, should.  It is not known to be dead yet.
        """
        self._leavers.append(callback)

    def _changed(self, prober: Prober) -> None:
        server, health = prober.server, prober.health
        was_known, was_healthy = self.known, server.healthy
        server.healthy, server.reason = health.alive, health.reason
        if was_healthy != server.healthy or not server.last_change:
            server.last_change = self._wall()
        self._choose()
        is_decided = all(its.health.state is not State.UNKNOWN for its in self._probers.values())
        self.known = was_known or bool(self._choices) or is_decided
        if bool(self._choices) != self.reachable:
            self._turn()
        elif self.known and not was_known:
            self._lose()
        elif was_healthy != server.healthy:
            state = "healthy again" if server.healthy else f"unhealthy: {server.reason}"
            self._log.info("API server {server} is {state}", server=server.name, state=state)
        if was_healthy != server.healthy:
            self._remember()
        if health.silent:
            self._leave(server)
        if self.known:
            waiting, self._awaiting_verdict = self._awaiting_verdict, []
            for one in waiting:
                one.callback(None)

    def _choose(self) -> None:
        """
        Who gets requests: those that are not on probation, else all that are up, else even those under suspicion.
        """
        now = self._reactor.seconds()
        up = {one: its.health.trusted_from for one, its in self._probers.items() if its.health.state is State.UP}
        trusted = tuple(one for one in up if up[one] <= now)
        self._choices = trusted or tuple(up) or tuple(one for one in self.servers if one.healthy)
        if self._probation is not None:
            self._probation.cancel()
            self._probation = None
        if len(trusted) < len(up):
            self._probation = self._reactor.callLater(min(end for end in up.values() if end > now) - now, self._prove)
        self._take_pulses()

    def _prove(self) -> None:
        self._probation = None
        self._choose()

    def _leave(self, server: Server) -> None:
        """
        Ask another server for a sign of life; if it answers sooner than ``server``, it is not the link that is at fault.
        """
        other = self.other([server])
        if other is None:
            return
        asked = self._probers[other].ask()
        asked.addCallback(self._compare, server)

    def _compare(self, answers: bool, server: Server) -> None:
        if answers and self._probers[server].health.silent:
            self._log.info("API server {server} has fallen silent: what can goes on at another", server=server.name)
            for callback in self._leavers:
                with self._log.failuresHandled("What waits for {server} could not leave it.", server=server.name):
                    callback(server)

    def _recall(self) -> list[str]:
        """
        The servers that were good last; none when nothing is known of them.
        """
        kept = self._memory.get(GOOD_SERVERS) if self._memory is not None else None
        try:
            names = json.loads(kept or b"[]")
        except ValueError:
            names = []
        return [server.name for server in self.servers if isinstance(names, list) and server.name in names]

    def _remember(self) -> None:
        """
        While none is good the last good ones are.
        """
        good = [server.name for server in self.servers if server.healthy]
        if good and self._memory is not None:
            self._memory.put(GOOD_SERVERS, json.dumps(good).encode())

    def _turn(self) -> None:
        """
        The cloud came or went.
        """
        self.reachable, self.since = bool(self._choices), self._reactor.seconds()
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
