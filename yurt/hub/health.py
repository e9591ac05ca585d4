"""
Whether one server is believed to be alive: a state machine on values, told what happened and when.

It owns no timer and no socket.  Its driver asks :meth:`ServerHealth.due` when the next probe should begin, begins it,
and reports how it ended; requests report their own luck through :meth:`ServerHealth.answered` and
:meth:`ServerHealth.suspected`.  All times are seconds of one monotonic clock.

    (UNKNOWN)  a probe succeeds -> UP           a probe fails -> DOWN
    (UP)       suspected, or a heartbeat fails -> SUSPECT, and at once a probe on a fresh connection
               it says that it is not ready, after a suspicion that no probe allayed -> DOWN
    (SUSPECT)  the probe succeeds, or it fails although the server answered something since it began -> UP
               the probe fails -> DOWN, also then if the server itself said that it is not ready
    (DOWN)     a probe succeeds -> UP           while the link flaps: only the second success, a second after the first

It takes two pieces of evidence to call a server down (a suspicion and a probe), so a single reset connection does not.
A probe answers the question of the state that asked it: a change of state drops those under way.

A load balancer may answer probes by itself, and have no server for anything else: such answers to requests, one after the other,
put it on probation like a return (:meth:`ServerHealth.unserved`).

A server that has lost its etcd answers much, and hangs at the rest: what it answers does not speak for it against its own word,
for which a probe has to wait.

A server on which watches depend sends nothing while nothing happens, so its silence tells nothing.  Its driver may ask for a
*pulse* (:attr:`ServerHealth.pulse_interval`): small probes of a server that is UP and silent, which have little time.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

SUSPECT_TIMEOUT = 0.8
"""Seconds that a server under suspicion has for a probe, where its answers are known to be quick."""
LATENCY_MARGIN = 3.0
"""A server gets this many times the latency that its fresh connections had lately, where that is longer."""
LATENCY_DECAY = 0.8
"""What a quicker probe leaves of the remembered latency."""
MEASURE_INTERVAL = 30.0
"""Seconds after which a slow link is measured again, which may have become quick: its loss would be noticed the later."""
PATIENT_TIMEOUT = 20.0
"""Seconds that one attempt at a time has while a server is down, so that a very slow link is not taken for none: TCP, TLS and the
question go there and back, one after the other."""
RETRY_INTERVAL = 1.0
"""Seconds between the beginnings of attempts while a server is not known to be alive."""
CONFIRM_AFTER = 1.0
"""Seconds between the two successes that a flapping link must show."""
MAX_PARALLEL_PROBES = 5
"""Attempts that may be under way at one server."""
JITTER = 0.2
"""Attempts vary by this fraction of their interval to both sides, so that many nodes do not probe in step."""
FLAP_WINDOW = 30.0
"""Seconds within which flips count."""
FLAP_LIMIT = 2
"""More flips than this within the window make a link a flapping one."""
PULSE_TIMEOUT = 0.3
"""Seconds that a server has for a pulse, where its answers are known to be quick; time for one lost packet to be sent again."""
PULSE_MARGIN = 1.5
"""A pulse has this many times the latency of fresh connections, where that is longer: several times its own round trip.  Busy
machines are slow to shake hands, so how long pulses took lately counts, too, and LATENCY_MARGIN: the shorter of both times."""
PROBATION = 5.0
"""Seconds for which a server that returned is used only for want of another; doubled with every return of late."""
MAX_PROBATION = 300.0
PROBATION_MEMORY = 3600.0
"""Seconds for which a return counts."""
MAX_UNSERVED = 3
"""Answers in a row of a load balancer with nothing behind it that put a server on probation, however well its probes go."""
MAX_RETURNS = 1 + math.ceil(math.log2(MAX_PROBATION / PROBATION))
"""Returns that are remembered: more make no difference."""
FRESH_VERDICT = 0.2
"""A suspicion this soon after the beginning of a probe that succeeded is answered by that probe."""


class State(enum.Enum):
    """
    What is believed of a server.
    """

    UNKNOWN = "unknown"
    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """
    One question to a server: when it began, how many seconds it has, whether it needs a connection of its own, and whether it
    is a pulse, to which any answer will do.
    """

    began: float
    timeout: float
    fresh: bool
    pulse: bool = False


class ServerHealth:
    """
    What is believed of one server, and why.

    ``draw`` gives numbers from 0 up to 1; they spread the intervals.
    """

    def __init__(self, heartbeat_interval: float, heartbeat_timeout: float, draw: Callable[[], float]) -> None:
        self.state = State.UNKNOWN
        self.reason = "not probed yet"
        self.pulse_interval = math.inf
        """Seconds of silence after which a pulse is due."""
        self.silent = False
        """Whether it is under suspicion because a pulse was not answered in time."""
        self.trusted_from = -math.inf
        """When its probation ends."""
        self.newcomer = False
        """Whether its first answer is to count as a return."""
        self.in_flight: list[Probe] = []
        self._heartbeat_interval = heartbeat_interval
        self._heartbeat_timeout = heartbeat_timeout
        self._draw = draw
        self._flips: deque[float] = deque(maxlen=FLAP_LIMIT + 1)
        self._next_attempt = -math.inf
        self._heartbeat_after = heartbeat_interval
        self._confirm_from: float | None = None
        self._returns: deque[float] = deque(maxlen=MAX_RETURNS)
        self._last_answer = -math.inf
        self._last_sign = -math.inf
        self._last_proof = -math.inf
        self._last_question = -math.inf
        self._unserved = 0
        self._confessed = False
        """Whether it is under suspicion because it said itself that it is not ready."""
        self._doubtful = False
        """Whether it gave no sign of readiness when it was last under suspicion, and none since."""
        self._latency = 0.0
        self._pulse_latency = math.inf
        self._measured = False
        self._measure_at = math.inf
        """When a connection is to be measured; of a link that is known to be quick, not before it returns from the next loss."""

    @property
    def alive(self) -> bool:
        """
        Whether requests may be sent there.
        """
        return self.state is State.UP or self.state is State.SUSPECT

    def due(self, now: float) -> float:
        """
        When the next probe should begin; infinity while those under way must end first.
        """
        if self.state is State.SUSPECT:
            return math.inf if self.in_flight else now
        if self.state is State.UP:
            return max(now, min(self._heartbeat_due, self._pulse_due))
        if len(self.in_flight) >= MAX_PARALLEL_PROBES:
            return math.inf
        return max(now, self._next_attempt)

    @property
    def _heartbeat_due(self) -> float:
        if not all(probe.pulse for probe in self.in_flight):
            return math.inf
        # Watches depend on it: whatever it answers, it may have lost its etcd, and tell them nothing more.
        last = self._last_answer if self.pulse_interval == math.inf else min(self._last_answer, self._last_question)
        return min(self._measure_at, last + self._heartbeat_after)

    @property
    def _pulse_due(self) -> float:
        return math.inf if any(probe.pulse for probe in self.in_flight) else self._last_sign + self.pulse_interval

    def begin(self, now: float) -> Probe:
        """
        The probe that is due; it counts as under way until it is reported.
        """
        if self.state is State.UP and self._pulse_due <= now < self._heartbeat_due:
            pulse = self.pulse(now)
            self.in_flight.append(pulse)
            return pulse
        fresh = self.state is not State.UP or now >= self._measure_at
        probe = Probe(now, self._timeout(), fresh)
        self.in_flight.append(probe)
        self._last_question = now
        self._next_attempt = now + self._spread(RETRY_INTERVAL)
        self._heartbeat_after = self._heartbeat_interval * (1 + JITTER * self._draw())
        return probe

    def pulse(self, now: float) -> Probe:
        """
        A pulse that begins now, and is not counted.
        """
        expected = min(self._latency * PULSE_MARGIN, self._pulse_latency * LATENCY_MARGIN)
        return Probe(now, _time_for(PULSE_TIMEOUT, expected), fresh=False, pulse=True)

    def succeeded(self, probe: Probe, now: float) -> None:
        """
        The server answered ``probe`` as a live one does.
        """
        if not self._end(probe):
            return
        self._last_sign = now
        if probe.pulse:
            self._pulse_latency = _remember(now - probe.began, self._pulse_latency)
            return
        self._last_answer = now
        if probe.fresh:
            self._last_proof = probe.began
            self._learn(now - probe.began, now)
        if self.state is State.DOWN and self._is_flapping(now):
            if self._confirm_from is None:
                self._confirm_from = self._next_attempt = now + CONFIRM_AFTER
            if probe.began < self._confirm_from:
                return
        self._become(State.UP, now, "")

    def failed(self, probe: Probe, now: float, reason: str, *, confessed: bool = False) -> None:
        """
        ``probe`` got no answer, or not that of a live server.  No news if the server answered anything meanwhile, unless it has
        ``confessed`` that it is not ready.
        """
        if not self._end(probe):
            return
        confessed = confessed or self._confessed
        outdated = not confessed and probe.began < (self._last_sign if probe.pulse else self._last_answer)
        if self.state is State.UNKNOWN or (self.state is State.SUSPECT and not outdated):
            self._become(State.DOWN, now, reason)
        elif self.state is State.SUSPECT:
            self._become(State.UP, now, "")
            self._measured, self._measure_at = False, now  # ask again, with more patience
            self._doubtful = True
        elif self.state is State.UP and confessed and self._doubtful:
            self._become(State.DOWN, now, reason)
        elif self.state is State.UP and not outdated:
            self._become(State.SUSPECT, now, reason)
            self._confessed = confessed
            self.silent = probe.pulse and now >= probe.began + probe.timeout
        elif self.state is State.DOWN and not outdated:
            self.reason = reason
            self._confirm_from = None

    def answered(self, now: float) -> None:
        """
        The server answered a request: no heartbeat is needed for a while, and no earlier probe proves it dead.
        """
        self._last_answer = self._last_sign = now

    def served(self, now: float) -> None:
        """
        An API server answered a request there.
        """
        self._unserved = 0
        self._last_answer = self._last_sign = now

    def unserved(self, now: float) -> bool:
        """
        A load balancer answered a request that it had no API server for it; returns whether a probation begins.
        """
        self._unserved += 1
        if self._unserved < MAX_UNSERVED:
            return False
        self._unserved = 0
        self._return(now)
        return True

    def suspected(self, now: float, reason: str, certain: bool = False) -> None:
        """
        A request had no luck: find out why.  Unless it is ``certain`` that it failed, a probe of just before will do, or the
        patient one that is under way.
        """
        is_being_asked = self._doubtful and not all(probe.pulse for probe in self.in_flight)
        if self.state is State.UP and (certain or not (is_being_asked or self._last_proof >= now - FRESH_VERDICT)):
            self._become(State.SUSPECT, now, reason)

    def _end(self, probe: Probe) -> bool:
        known = probe in self.in_flight
        if known:
            self.in_flight.remove(probe)
        return known

    def _become(self, state: State, now: float, reason: str) -> None:
        if state is State.DOWN and self.alive or state is State.UP and self.state is State.DOWN:
            self._flips.append(now)
        if state is State.UP and (self.state is State.DOWN or self.newcomer):
            self._return(now)
        if state is State.UP and self.state in (State.DOWN, State.UNKNOWN):
            self._pulse_latency = math.inf
            self._measured = False
            self._measure_at = now + self._spread(RETRY_INTERVAL)
        self.state = state
        self.reason = reason
        self.silent = self.newcomer = self._confessed = self._doubtful = False
        self._confirm_from = None
        self.in_flight.clear()

    def _return(self, now: float) -> None:
        """
        Begin a probation, the longer the more often that was necessary of late.
        """
        while self._returns and self._returns[0] < now - PROBATION_MEMORY:
            self._returns.popleft()
        self.trusted_from = now + min(MAX_PROBATION, PROBATION * 2 ** len(self._returns))
        self._returns.append(now)

    def _learn(self, took: float, now: float) -> None:
        """
        Remember how long a fresh connection takes.  What a returning server took is provisional: a lost packet of the
        time before may be in it, so a probe soon after measures again.
        """
        self._latency = _remember(took, self._latency) if self._measured else took
        self._measured = self.alive
        is_slow = self._latency * LATENCY_MARGIN > self._heartbeat_timeout
        self._measure_at = now + MEASURE_INTERVAL if is_slow else math.inf

    def _timeout(self) -> float:
        if self.state is State.UNKNOWN:
            return self._heartbeat_timeout
        if self.state is State.DOWN:
            is_one_patient = any(probe.timeout == PATIENT_TIMEOUT for probe in self.in_flight)
            return self._heartbeat_timeout if is_one_patient else PATIENT_TIMEOUT
        least = SUSPECT_TIMEOUT if self.state is State.SUSPECT else self._heartbeat_timeout
        return _time_for(least, self._latency * LATENCY_MARGIN)

    def _is_flapping(self, now: float) -> bool:
        return len(self._flips) > FLAP_LIMIT and now - self._flips[0] <= FLAP_WINDOW

    def _spread(self, interval: float) -> float:
        return interval * (1 - JITTER + 2 * JITTER * self._draw())


def _remember(took: float, before: float) -> float:
    """
    The latency that is remembered; infinity stands for none.
    """
    return took if before == math.inf else max(took, before * LATENCY_DECAY)


def _time_for(least: float, expected: float) -> float:
    return min(PATIENT_TIMEOUT, max(least, expected))
