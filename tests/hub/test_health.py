"""
What is believed of one server, from what happened and when.
"""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from yurt.hub.health import (
    CONFIRM_AFTER,
    FRESH_VERDICT,
    MAX_PARALLEL_PROBES,
    PATIENT_TIMEOUT,
    PULSE_TIMEOUT,
    RETRY_INTERVAL,
    SUSPECT_TIMEOUT,
    Probe,
    ServerHealth,
    State,
)

HEARTBEAT_INTERVAL = 10.0
HEARTBEAT_AFTER = 11.0
"""With the draw in the middle: heartbeats come late by up to a fifth."""
HEARTBEAT_TIMEOUT = 2.5


def make_health() -> ServerHealth:
    """
    A health whose intervals are exact: the draw is the middle of the spread.
    """
    return ServerHealth(HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT, lambda: 0.5)


def up(now: float = 0.0) -> ServerHealth:
    """
    A server whose first probe succeeded at once, and whose latency was measured a second later.
    """
    health = make_health()
    health.succeeded(health.begin(now), now)
    health.succeeded(health.begin(now + RETRY_INTERVAL), now + RETRY_INTERVAL)
    return health


def take_down(health: ServerHealth, now: float) -> None:
    """
    A certain failure and a refused probe, both at ``now``.
    """
    health.suspected(now, "reset", certain=True)
    health.failed(health.begin(now), now, "refused")


def flap(health: ServerHealth, now: float, *, times: int) -> float:
    """
    Take it down and up again, half a second each; ends down.  Returns the time then.
    """
    for number in range(times):
        if number:
            health.succeeded(health.begin(now), now)
            now += 0.5
        take_down(health, now)
        now += 0.5
    return now


class FirstVerdictTests(SynchronousTestCase):
    """
    Before anything is known.
    """

    def test_probes_at_once(self) -> None:
        """
        The first probe is due immediately, on a connection of its own.
        """
        health = make_health()
        self.assertEqual(health.due(5.0), 5.0)
        self.assertTrue(health.begin(5.0).fresh)
        self.assertFalse(health.alive)

    def test_either_verdict(self) -> None:
        """
        The first probe decides, alive or not; that is not a flip.
        """
        good, bad = make_health(), make_health()
        good.succeeded(good.begin(0.0), 0.1)
        bad.failed(bad.begin(0.0), 2.5, "no answer")
        self.assertEqual((good.state, good.reason), (State.UP, ""))
        self.assertEqual((bad.state, bad.reason), (State.DOWN, "no answer"))

    def test_attempts_overlap(self) -> None:
        """
        A first attempt that is lost does not hold up the next, which begins a second later.
        """
        health = make_health()
        health.begin(0.0)
        self.assertEqual(health.due(0.0), RETRY_INTERVAL)


class UpTests(SynchronousTestCase):
    """
    A server that is alive.
    """

    def test_measures_after_the_return(self) -> None:
        """
        What a returning server took for its first answer is not trusted: a fresh probe measures again within about a second.
        """
        health = make_health()
        health.succeeded(health.begin(0.0), 2.0)
        self.assertEqual(health.due(2.0), 2.0 + RETRY_INTERVAL)
        self.assertTrue(health.begin(3.0).fresh)

    def test_heartbeat_only_when_silent(self) -> None:
        """
        An ordinary answer is as good as a heartbeat; a heartbeat travels on a connection that is kept.
        """
        health = up()
        self.assertEqual(health.due(1.0), 1.0 + HEARTBEAT_AFTER)
        health.answered(8.0)
        self.assertEqual(health.due(11.0), 8.0 + HEARTBEAT_AFTER)
        self.assertFalse(health.begin(19.0).fresh)
        self.assertEqual(health.due(19.0), math.inf)

    def test_failed_heartbeat_only_raises_suspicion(self) -> None:
        """
        A heartbeat lost on an old connection does not take the server down: a fresh probe decides, at once.
        """
        health = up()
        health.failed(health.begin(11.0), 13.5, "no answer")
        self.assertEqual((health.state, health.due(13.5)), (State.SUSPECT, 13.5))
        self.assertTrue(health.alive)
        health.succeeded(health.begin(13.5), 13.6)
        self.assertIs(health.state, State.UP)

    def test_failed_heartbeat_is_no_news_after_an_answer(self) -> None:
        """
        A server that answered something since the heartbeat began is alive.
        """
        health = up()
        heartbeat = health.begin(11.0)
        health.answered(12.0)
        health.failed(heartbeat, 13.5, "no answer")
        self.assertIs(health.state, State.UP)


class PulseTests(SynchronousTestCase):
    """
    A server that watches depend on.
    """

    def test_due(self) -> None:
        """
        A pulse is due after some silence, on a connection that is kept; one at a time.
        """
        health = up()
        health.pulse_interval = 0.35
        self.assertAlmostEqual(health.due(1.0), 1.35)
        pulse = health.begin(1.35)
        self.assertEqual((pulse.pulse, pulse.fresh, pulse.timeout), (True, False, PULSE_TIMEOUT))
        self.assertEqual(health.due(1.35), 1.0 + HEARTBEAT_AFTER)
        health.succeeded(pulse, 1.4)
        self.assertAlmostEqual(health.due(1.4), 1.75)

    def test_slow_to_shake_hands(self) -> None:
        """
        Where fresh connections are slow a pulse has more time, until pulses are known to be quick; where those are slow, too.
        """
        health = make_health()
        health.succeeded(health.begin(0.0), 0.4)
        self.assertAlmostEqual(health.pulse(1.0).timeout, 0.6)
        health.pulse_interval = 0.35
        quick = health.begin(1.0)
        self.assertTrue(quick.pulse)
        health.succeeded(quick, 1.01)
        self.assertEqual(health.pulse(1.1).timeout, PULSE_TIMEOUT)
        slow = health.begin(1.37)
        health.succeeded(slow, 1.52)
        self.assertAlmostEqual(health.pulse(1.6).timeout, 0.45)

    def test_heartbeat_beside_it(self) -> None:
        """
        A heartbeat that takes its time does not hold pulses up, nor do pulses stand in for it.
        """
        health = up()
        health.pulse_interval = 0.35
        heartbeat = health.begin(1.0 + HEARTBEAT_AFTER)
        self.assertFalse(heartbeat.pulse)
        pulse = health.begin(12.1)
        self.assertTrue(pulse.pulse)
        health.succeeded(pulse, 12.2)
        health.failed(heartbeat, 14.5, "no answer")
        self.assertEqual((health.state, health.silent), (State.SUSPECT, False))

    def test_unanswered(self) -> None:
        """
        Silence is told from a connection that breaks, and is over with the next change of what is believed.
        """
        broken, silent = up(), up()
        for health in (broken, silent):
            health.pulse_interval = 0.35
        broken.failed(broken.begin(2.0), 2.1, "connection reset")
        silent.failed(silent.begin(2.0), 2.3, "no answer")
        self.assertEqual((broken.state, broken.silent), (State.SUSPECT, False))
        self.assertEqual((silent.state, silent.silent), (State.SUSPECT, True))
        silent.succeeded(silent.begin(2.3), 2.4)
        self.assertEqual((silent.state, silent.silent), (State.UP, False))

    def test_answered_otherwise(self) -> None:
        """
        A pulse that is late behind a large answer is no news.
        """
        health = up()
        health.pulse_interval = 0.35
        pulse = health.begin(2.0)
        health.answered(2.2)
        health.failed(pulse, 2.3, "no answer")
        self.assertIs(health.state, State.UP)


class SuspectTests(SynchronousTestCase):
    """
    A request had no luck.
    """

    def test_verdict_within_the_patience_that_is_left(self) -> None:
        """
        The probe is due at once, with a short time where the link is quick; its failure is the verdict.
        """
        health = up()
        health.suspected(5.0, "no head within 1 s")
        self.assertEqual(health.due(5.0), 5.0)
        probe = health.begin(5.0)
        self.assertEqual((probe.fresh, probe.timeout, health.due(5.1)), (True, SUSPECT_TIMEOUT, math.inf))
        health.failed(probe, 5.8, "no answer")
        self.assertEqual((health.state, health.reason, health.alive), (State.DOWN, "no answer", False))

    def test_one_reset_does_not_flip(self) -> None:
        """
        A certain failure that the probe does not confirm changes nothing.
        """
        health = up()
        health.suspected(5.0, "connection reset", certain=True)
        health.succeeded(health.begin(5.0), 5.1)
        self.assertEqual((health.state, health.reason), (State.UP, ""))

    def test_other_answers_refute_the_probe(self) -> None:
        """
        On a link filled by a large body a fresh connection is slow; pieces of that body show that the server is alive.
        """
        health = up()
        health.suspected(5.0, "no head within 1 s")
        probe = health.begin(5.0)
        health.answered(5.5)
        health.failed(probe, 5.8, "no answer")
        self.assertIs(health.state, State.UP)

    def test_confessed(self) -> None:
        """
        A server that says itself that it is not ready is down, whatever it answers otherwise: it may have lost its etcd.
        """
        health = up()
        health.suspected(5.0, "it answered 500")
        probe = health.begin(5.0)
        health.answered(5.5)
        health.failed(probe, 5.8, "answered 500 to GET /readyz", confessed=True)
        self.assertIs(health.state, State.DOWN)

    def test_confessed_late(self) -> None:
        """
        Its word may take longer than the verdict has time: it is asked again at once, with more time.
        """
        health = up()
        health.suspected(5.0, "no head within 1 s")
        probe = health.begin(5.0)
        health.answered(5.5)
        health.failed(probe, 5.8, "no answer")
        self.assertEqual((health.state, health.due(5.8)), (State.UP, 5.8))
        again = health.begin(5.8)
        self.assertEqual((again.fresh, again.timeout), (True, HEARTBEAT_TIMEOUT))
        health.answered(7.0)
        health.suspected(7.0, "no head within 1 s")
        self.assertIs(health.state, State.UP)
        health.failed(again, 7.8, "answered 500 to GET /readyz", confessed=True)
        self.assertIs(health.state, State.DOWN)

    def test_confessed_to_a_heartbeat(self) -> None:
        """
        What a heartbeat says is a suspicion, which a ready server allays; one that answers nothing to that is down.
        """
        for is_ready, state in ((True, State.UP), (False, State.DOWN)):
            health = up()
            health.failed(health.begin(12.0), 12.1, "answered 500 to GET /readyz", confessed=True)
            self.assertIs(health.state, State.SUSPECT)
            probe = health.begin(12.1)
            health.answered(12.2)
            if is_ready:
                health.succeeded(probe, 12.3)
            else:
                health.failed(probe, 12.9, "no answer")
            self.assertIs(health.state, state)

    def test_allayed(self) -> None:
        """
        A server that answers when it is asked again is not doubted any more.
        """
        health = up()
        health.suspected(5.0, "no head within 1 s")
        probe = health.begin(5.0)
        health.answered(5.5)
        health.failed(probe, 5.8, "no answer")
        health.succeeded(health.begin(5.8), 6.9)
        self.assertEqual((health.state, health.due(6.9)), (State.UP, 6.9 + HEARTBEAT_AFTER))

    def test_watches_depend(self) -> None:
        """
        While watches depend on a server its readiness is asked for in any case; otherwise answers will do.
        """
        health = up()
        health.pulse_interval = 0.35
        now = RETRY_INTERVAL
        while now < RETRY_INTERVAL + HEARTBEAT_AFTER:
            self.assertGreater(health.due(now), now)
            now += 0.25
            health.answered(now)
        self.assertFalse(health.begin(now).pulse)

    def test_slow_link_gets_time(self) -> None:
        """
        The time for a verdict follows the latency of fresh connections, within a limit.
        """
        for latency, timeout in [(0.1, SUSPECT_TIMEOUT), (0.5, 1.5), (2.0, 6.0), (9.0, PATIENT_TIMEOUT)]:
            health = make_health()
            health.succeeded(health.begin(0.0), latency)
            health.succeeded(health.begin(20.0), 20.0 + latency)
            health.suspected(40.0, "no head within 1 s")
            self.assertEqual(health.begin(40.0).timeout, timeout)

    def test_slow_link_is_measured_again(self) -> None:
        """
        A link that was slow for a while is not taken for slow for ever, though requests leave no need for heartbeats: some
        minutes after it has become quick its loss is noticed soon.  A quick one costs no connection.
        """
        for latency, is_measured in ((8.0, True), (0.1, False)):
            health = make_health()
            health.succeeded(health.begin(0.0), latency)
            health.succeeded(health.begin(20.0), 20.0 + latency)
            now, fresh = 30.0, 0
            while now < 630.0:
                health.answered(now)
                if health.due(now) <= now:
                    probe = health.begin(now)
                    fresh += probe.fresh
                    health.succeeded(probe, now + 0.05)
                now += 1.0
            health.suspected(now, "no head within 1 s")
            self.assertLessEqual(health.begin(now).timeout, HEARTBEAT_TIMEOUT)
            self.assertEqual(fresh > 0, is_measured)
            self.assertLess(fresh, 15)

    def test_latency_is_forgotten_slowly(self) -> None:
        """
        One quick answer does not make a slow link a quick one, many do.
        """
        health = make_health()
        health.succeeded(health.begin(0.0), 1.0)
        health.succeeded(health.begin(2.0), 3.0)
        timeouts = []
        for number in range(1, 12):
            now = number * 10.0
            health.suspected(now, "no head within 1 s")
            probe = health.begin(now)
            timeouts.append(probe.timeout)
            health.succeeded(probe, now + 0.01)
        self.assertEqual(timeouts[:2], [3.0, 3.0 * 0.8])
        self.assertEqual(timeouts[-1], SUSPECT_TIMEOUT)

    def test_a_probe_of_just_before_will_do(self) -> None:
        """
        A storm of 503s on a live server does not become a storm of probes; a certain failure still gets its probe.
        """
        health = up()
        health.suspected(5.0, "503")
        health.succeeded(health.begin(5.0), 5.05)
        health.suspected(5.1, "503")
        self.assertIs(health.state, State.UP)
        health.suspected(5.1, "reset", certain=True)
        self.assertIs(health.state, State.SUSPECT)
        health.succeeded(health.begin(5.1), 5.15)
        health.suspected(5.1 + FRESH_VERDICT + 0.01, "503")
        self.assertIs(health.state, State.SUSPECT)

    def test_suspicion_drops_the_heartbeat(self) -> None:
        """
        A heartbeat under way on an old connection has no say in the verdict.
        """
        health = up()
        heartbeat = health.begin(11.0)
        health.suspected(11.5, "no head within 1 s")
        health.failed(heartbeat, 11.6, "connection lost")
        self.assertIs(health.state, State.SUSPECT)
        self.assertEqual(health.due(11.6), 11.6)


class DownTests(SynchronousTestCase):
    """
    A server that is gone.
    """

    def test_return_is_noticed_in_time(self) -> None:
        """
        Attempts begin every second whether or not earlier ones are still lost, and stay bounded in number.
        """
        health = up()
        take_down(health, 5.0)
        now, begun, under_way = 5.0, [], list[Probe]()
        while now < 30.0:
            now = min([health.due(now), *(probe.began + probe.timeout for probe in under_way)])
            for probe in [probe for probe in under_way if probe.began + probe.timeout <= now]:
                under_way.remove(probe)
                health.failed(probe, now, "no answer")
            if health.due(now) <= now:
                probe = health.begin(now)
                begun.append(now)
                under_way.append(probe)
            self.assertLessEqual(len(under_way), MAX_PARALLEL_PROBES)
        self.assertTrue(all(later - earlier <= RETRY_INTERVAL + 0.01 for earlier, later in zip(begun, begun[1:], strict=False)))
        self.assertTrue(all(later - earlier >= RETRY_INTERVAL - 0.01 for earlier, later in zip(begun, begun[1:], strict=False)))

    def test_one_attempt_is_patient(self) -> None:
        """
        One attempt at a time has long enough for a very slow link.
        """
        health = up()
        take_down(health, 5.0)
        timeouts = [health.begin(5.0 + number).timeout for number in range(1, 4)]
        self.assertEqual(timeouts, [PATIENT_TIMEOUT, HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT])

    def test_up_at_the_first_success(self) -> None:
        """
        A server that was gone once is back with its first answer; attempts of before cannot take it down again.
        """
        health = up()
        take_down(health, 5.0)
        old, new = health.begin(6.0), health.begin(7.0)
        health.succeeded(new, 7.1)
        health.failed(old, 8.5, "no answer")
        self.assertIs(health.state, State.UP)

    def test_suspicion_is_no_news(self) -> None:
        """
        Requests that fail late do not disturb the attempts.
        """
        health = up()
        take_down(health, 5.0)
        health.suspected(5.2, "connection lost", certain=True)
        self.assertEqual((health.state, health.due(5.2)), (State.DOWN, 5.0 + RETRY_INTERVAL))

    def test_reason_follows(self) -> None:
        """
        The reason is that of the latest failure.
        """
        health = up()
        take_down(health, 5.0)
        health.failed(health.begin(6.0), 6.0, "no route to host")
        self.assertEqual(health.reason, "no route to host")


class FlappingTests(SynchronousTestCase):
    """
    A link that comes and goes.
    """

    def test_needs_two_successes(self) -> None:
        """
        After more than two flips within half a minute only the second of two successes, a second apart, counts.
        """
        health = up()
        now = flap(health, 5.0, times=2)
        self.assertIs(health.state, State.DOWN)
        health.succeeded(health.begin(now), now)
        self.assertIs(health.state, State.DOWN)
        self.assertEqual(health.due(now), now + CONFIRM_AFTER)
        health.succeeded(health.begin(now + CONFIRM_AFTER), now + CONFIRM_AFTER)
        self.assertIs(health.state, State.UP)

    def test_overlapping_attempts_do_not_confirm(self) -> None:
        """
        Two attempts answered in the same moment are one success.
        """
        health = up()
        now = flap(health, 5.0, times=2)
        probes = [health.begin(now), health.begin(now + 0.1)]
        for probe in probes:
            health.succeeded(probe, now + 0.2)
        self.assertIs(health.state, State.DOWN)

    def test_failure_between_begins_anew(self) -> None:
        """
        A failure after the first success throws it away; one that began before it does not.
        """
        health = up()
        now = flap(health, 5.0, times=2)
        old = health.begin(now - 0.4)
        health.succeeded(health.begin(now), now)
        health.failed(old, now + 0.1, "no answer")
        health.failed(health.begin(now + 0.2), now + 0.2, "refused")
        health.succeeded(health.begin(now + CONFIRM_AFTER), now + CONFIRM_AFTER)
        self.assertIs(health.state, State.DOWN)

    def test_calm_is_restored(self) -> None:
        """
        Half a minute later one success is enough again.
        """
        health = up()
        now = flap(health, 5.0, times=2) + 30.0
        health.succeeded(health.begin(now), now)
        self.assertIs(health.state, State.UP)

    def test_one_outage_is_not_flapping(self) -> None:
        """
        Down, up and down again within the window still returns at the first success.
        """
        health = up()
        take_down(health, 5.0)
        health.succeeded(health.begin(6.0), 6.0)
        self.assertIs(health.state, State.UP)


EVENTS = st.lists(
    st.tuples(st.sampled_from(["begin", "succeed", "fail", "suspect", "certain", "answer", "pulses"]), st.floats(0.0, 5.0)),
    max_size=60,
)


class AnyOrderTests(SynchronousTestCase):
    """
    Whatever happens, in whatever order.
    """

    @given(EVENTS)
    def test_stays_sane(self, events: list[tuple[str, float]]) -> None:
        """
        There is always a next step: a probe under way or one due within the longest interval; probes stay bounded.
        """
        health, now, probes = make_health(), 0.0, list[Probe]()
        for event, delay in events:
            now += delay
            if event == "begin" and health.due(now) <= now:
                probes.append(health.begin(now))
            elif event == "succeed" and probes:
                health.succeeded(probes.pop(0), now)
            elif event == "fail" and probes:
                health.failed(probes.pop(), now, "no answer")
            elif event in ("suspect", "certain"):
                health.suspected(now, "no answer", event == "certain")
            elif event == "answer" and health.alive:
                health.answered(now)
            elif event == "pulses":
                health.pulse_interval = 0.35 if health.pulse_interval == math.inf else math.inf
            self.assertTrue(health.in_flight or health.due(now) <= now + HEARTBEAT_AFTER)
            self.assertLessEqual(len(health.in_flight), MAX_PARALLEL_PROBES)
            self.assertEqual(health.alive, health.state in (State.UP, State.SUSPECT))
