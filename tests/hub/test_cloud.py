"""
Whether the cloud is there: probes, verdicts, choice of a server.
"""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.hub.fake_upstream import Answer, FakeUpstream, Sent
from yurt.http.interfaces import Headers, UpstreamError
from yurt.hub.cloud import FAILOVER_SPREAD, GOOD_SERVERS, MOVES_A_SECOND, Cloud, CloudSettings, Server
from yurt.hub.health import MAX_PROBATION, PATIENT_TIMEOUT, PROBATION, SUSPECT_TIMEOUT
from yurt.hub.patience import PATIENCE, PATIENCE_TICK

STEP = 0.01


def refuse(status: int, sent: Sent) -> Answer:
    """
    Answer with this status and nothing else.
    """
    return status, b""


class Shelf(dict[bytes, bytes]):
    """
    What outlives a restart.
    """

    def put(self, key: bytes, value: bytes) -> None:
        self[key] = value


class CloudTests(SynchronousTestCase):
    """
    A cloud of servers in memory, on a clock.
    """

    lb_mode = "rr"
    watch_failover = 1.0
    servers = 1
    draw = 0.5

    def setUp(self) -> None:
        self.clock = Clock()
        self.headers: Headers = [(b"Authorization", b"Bearer of-the-node")]
        self.upstreams = [FakeUpstream(self.clock, name=f"https://10.0.0.{number}:6443") for number in range(1, self.servers + 1)]
        self.bare = [FakeUpstream(self.clock, name=upstream.name) for upstream in self.upstreams]
        self.memory = Shelf()
        self.boot()
        self.addCleanup(self.assert_clean)

    def boot(self) -> None:
        """
        A new process of the hub.
        """
        pairs = zip(self.upstreams, self.bare, strict=True)
        self.cloud = Cloud(
            self.clock,
            [Server(upstream.name, upstream, bare) for upstream, bare in pairs],
            CloudSettings(self.lb_mode, self.watch_failover),
            lambda: self.headers,
            memory=self.memory,
            wall=lambda: 1_000_000 + self.clock.seconds(),
            draw=lambda: self.draw,
        )
        self.upstream = self.upstreams[0]
        self.server = self.cloud.servers[0]

    def assert_clean(self) -> None:
        """
        A stopped cloud leaves no timer and no probe.
        """
        self.successResultOf(self.cloud.stop())
        for upstream in self.upstreams:
            upstream.silent = True
        self.clock.advance(1.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def run_for(self, seconds: float) -> None:
        """
        Let time pass in small steps.
        """
        for _ in range(round(seconds / STEP)):
            self.clock.advance(STEP)

    def seconds_until(self, reachable: bool, limit: float = 60.0) -> float:
        """
        How long it takes until the cloud is called (un)reachable.
        """
        began = self.clock.seconds()
        while self.cloud.reachable is not reachable:
            self.assertLess(self.clock.seconds() - began, limit)
            self.clock.advance(STEP)
        return self.clock.seconds() - began

    def start(self) -> None:
        """
        Start, and be past the first verdict and the probe that measures.
        """
        self.cloud.start()
        self.run_for(3.0)


class FirstVerdictTests(CloudTests):
    """
    The start.
    """

    def test_nothing_is_known_at_first(self) -> None:
        """
        Until a probe ended the cloud is neither known nor reachable, and offers no server.
        """
        self.cloud.start()
        self.assertEqual((self.cloud.known, self.cloud.reachable, self.cloud.pick()), (False, False, None))
        self.assertNoResult(self.cloud.when_known())

    def test_alive(self) -> None:
        """
        The first answer makes the cloud known and reachable, and wakes who waited for that.
        """
        self.cloud.start()
        waiting = self.cloud.when_known()
        self.run_for(0.1)
        self.successResultOf(waiting)
        self.successResultOf(self.cloud.when_known())
        self.assertEqual((self.cloud.known, self.cloud.reachable, self.cloud.reason), (True, True, ""))
        self.assertIs(self.cloud.pick(), self.server)
        self.assertEqual(self.cloud.offline_seconds(), 0.0)

    def test_subscribers_see_the_verdict(self) -> None:
        """
        A subscriber told that the cloud is reachable finds it known.
        """
        seen = list[tuple[bool, bool]]()
        self.cloud.subscribe(lambda reachable: seen.append((reachable, self.cloud.known)))
        self.cloud.start()
        self.run_for(0.1)
        self.assertEqual(seen, [(True, True)])

    def test_refused(self) -> None:
        """
        A refused first probe is a verdict as well, with its reason; offline time counts from there.
        """
        self.upstream.refusing = True
        self.cloud.start()
        waiting = self.cloud.when_known()
        self.run_for(0.1)
        self.successResultOf(waiting)
        self.assertFalse(self.cloud.reachable)
        self.assertIn("connection refused", self.cloud.reason)
        self.run_for(2.0)
        self.assertApproximates(self.cloud.offline_seconds(), 2.1, 0.1)

    def test_silence(self) -> None:
        """
        Without any answer the verdict falls with the first probe's time.
        """
        self.upstream.silent = True
        self.cloud.start()
        self.run_for(2.4)
        self.assertFalse(self.cloud.known)
        self.run_for(0.2)
        self.assertTrue(self.cloud.known)

    def test_waiting_can_be_given_up(self) -> None:
        """
        Who does not want to wait any longer cancels.
        """
        self.cloud.start()
        waiting = self.cloud.when_known()
        waiting.cancel()
        self.failureResultOf(waiting)
        self.run_for(0.1)


class ProbeTests(CloudTests):
    """
    What is asked, and what counts as life.
    """

    def test_probe(self) -> None:
        """
        A probe is GET /readyz with the node's own credentials.
        """
        self.start()
        head = self.upstream.sent[0].head
        self.assertEqual((head.method, head.target), (b"GET", b"/readyz"))
        self.assertIn(self.headers[0], head.headers)

    def test_no_socket(self) -> None:
        """
        A probe for which this machine has no socket says nothing about the server, and is made as soon as there is one.
        """
        self.start()

        def no_socket(sent: Sent) -> Answer:
            raise UpstreamError("too many open files", sent=False, local=True)

        self.upstream.answer = no_socket
        self.run_for(30)
        self.assertTrue(self.cloud.reachable)
        self.assertLess(len(self.upstream.sent), 80)
        self.upstream.refusing = True
        self.assertLess(self.seconds_until(False), 2)

    def test_statuses(self) -> None:
        """
        Refusals of a live server are signs of life, server errors are not.
        """
        verdicts = {200: True, 401: True, 403: True, 404: True, 429: True, 500: False, 502: False, 503: False, 504: False}
        for status, alive in verdicts.items():
            self.setUp()
            self.upstream.answer = partial(refuse, status)
            self.cloud.start()
            self.run_for(0.1)
            self.assertEqual((status, self.cloud.reachable), (status, alive))
            if not alive:
                self.assertIn(f"answered {status}", self.cloud.reason)

    def test_heartbeat(self) -> None:
        """
        A silent, healthy server is probed once an interval on a connection that is kept.
        """
        self.start()
        before = len(self.upstream.probes)
        self.run_for(100.0)
        beats = self.upstream.probes[before:]
        self.assertEqual(len(beats), 9)
        self.assertFalse(any(beat.fresh for beat in beats))

    def test_answers_spare_heartbeats(self) -> None:
        """
        No heartbeat is sent while requests are answered.
        """
        self.start()
        before = len(self.upstream.probes)
        for _ in range(20):
            self.run_for(5.0)
            self.cloud.answered(self.server)
        self.assertEqual(len(self.upstream.probes), before)

    def test_heartbeat_notices_silence(self) -> None:
        """
        With no request at all a silent loss is noticed by the heartbeat that follows.
        """
        self.start()
        self.upstream.silent = True
        self.assertLess(self.seconds_until(reachable=False), 12.0 + 2.5 + SUSPECT_TIMEOUT + 0.1)

    def test_unexpected_errors(self) -> None:
        """
        A probe that fails for a reason of its own (bad credentials, say) counts as failed, and is logged.
        """
        self.headers = None  # type: ignore[assignment]  # what a bug would do
        self.cloud.start()
        self.run_for(0.1)
        self.assertTrue(self.cloud.known)
        self.assertIn("could not be probed", self.cloud.reason)
        self.assertTrue(self.flushLoggedErrors(TypeError))


class LossTests(CloudTests):
    """
    The cloud goes away.
    """

    def suspect(self, reason: str = "no head") -> Deferred[bool]:
        return self.cloud.suspect(self.server, reason)

    def test_silent_loss(self) -> None:
        """
        From the first doubt it takes less than a second to a verdict, so that a patient read is answered within 2 s.
        """
        self.start()
        self.upstream.silent = True
        verdict = self.suspect()
        self.assertLess(PATIENCE + PATIENCE_TICK + self.seconds_until(reachable=False), 1.85)
        self.assertIs(self.successResultOf(verdict), False)
        self.assertEqual(self.cloud.pick(), None)

    def test_one_probe_for_all(self) -> None:
        """
        A hundred doubts at once share one probe on a fresh connection.
        """
        self.start()
        before = len(self.upstream.probes)
        verdicts = [self.suspect() for _ in range(100)]
        self.run_for(0.1)
        self.assertEqual([self.successResultOf(verdict) for verdict in verdicts], [True] * 100)
        self.assertEqual([probe.fresh for probe in self.upstream.probes[before:]], [True])

    def test_requests_go_on_meanwhile(self) -> None:
        """
        While its only server is in doubt the cloud stays reachable and offers it.
        """
        self.start()
        self.suspect()
        self.assertTrue(self.cloud.reachable)
        self.assertIs(self.cloud.pick(), self.server)

    def test_one_reset_does_not_flip(self) -> None:
        """
        A failed request whose probe succeeds changes nothing.
        """
        self.start()
        turns = list[bool]()
        self.cloud.subscribe(turns.append)
        verdict = self.cloud.failed(self.server, "connection reset")
        self.run_for(0.1)
        self.assertIs(self.successResultOf(verdict), True)
        self.assertEqual((turns, self.upstream.closed), ([], []))

    def test_refusal_is_a_quick_verdict(self) -> None:
        """
        A refused probe decides at once; connections are closed after everybody knows.
        """
        self.start()
        seen = list[tuple[bool, int]]()
        self.cloud.subscribe(lambda reachable: seen.append((reachable, len(self.upstream.closed))))
        self.upstream.refusing = True
        verdict = self.cloud.failed(self.server, "connection refused")
        self.run_for(0.05)
        self.assertIs(self.successResultOf(verdict), False)
        self.assertEqual(seen, [(False, 0)])
        self.assertEqual((len(self.upstream.closed), len(self.bare[0].closed)), (1, 1))
        self.assertNotIn(self.upstream.name, self.upstream.closed[0], "every error of a request names it already")
        self.assertIn("connection refused", self.server.reason)
        self.assertApproximates(self.server.last_change, 1_000_000 + self.clock.seconds(), 0.1)

    def test_known_loss_needs_no_probe(self) -> None:
        """
        Once the cloud is known to be gone a doubt is answered at once.
        """
        self.start()
        self.upstream.refusing = True
        self.suspect()
        self.run_for(0.1)
        before = len(self.upstream.sent)
        self.assertIs(self.successResultOf(self.suspect()), False)
        self.assertEqual(len(self.upstream.sent), before)

    def test_slow_link(self) -> None:
        """
        Where fresh connections are slow, who doubts is told False in time, but the link is not called dead.
        """
        self.upstream.delay = 0.9
        self.start()
        verdict = self.suspect()
        self.run_for(SUSPECT_TIMEOUT + STEP)
        self.assertIs(self.successResultOf(verdict), False)
        self.run_for(5.0)
        self.assertTrue(self.cloud.reachable)
        self.assertEqual(self.upstream.closed, [])

    def test_doubt_can_be_given_up(self) -> None:
        """
        A caller that lost interest cancels; the probe goes on for the others.
        """
        self.start()
        gone, stays = self.suspect(), self.suspect()
        gone.cancel()
        self.failureResultOf(gone)
        self.run_for(0.1)
        self.assertIs(self.successResultOf(stays), True)

    def test_verdict_may_be_used_at_once(self) -> None:
        """
        Who is woken by a verdict may ask for another one.
        """
        self.start()
        self.upstream.refusing = True
        again = self.suspect().addCallback(lambda _: self.suspect())
        self.run_for(0.1)
        self.assertIs(self.successResultOf(again), False)

    def test_failing_subscriber(self) -> None:
        """
        A subscriber that raises does not keep the others from being told.
        """
        self.start()
        turns = list[bool]()
        self.cloud.subscribe(lambda reachable: [][1])
        unsubscribe = self.cloud.subscribe(turns.append)
        self.upstream.refusing = True
        self.suspect()
        self.run_for(0.1)
        self.assertEqual(turns, [False])
        self.assertEqual(len(self.flushLoggedErrors(IndexError)), 1)
        unsubscribe()


class ReturnTests(CloudTests):
    """
    The cloud comes back.
    """

    def cut(self, seconds: float) -> None:
        """
        A silent loss of so many seconds, noticed by a request.
        """
        self.upstream.silent = True
        self.cloud.suspect(self.server, "no head")
        self.run_for(seconds)
        self.assertFalse(self.cloud.reachable)

    def test_return_is_noticed(self) -> None:
        """
        Whenever the cloud returns, that is noticed within 3 s, also over a link that needs 1.5 s for an answer.
        """
        for delay in (0.01, 1.5):
            for outage in (1.0, 1.7, 4.3, 10.9, 60.0):
                self.setUp()
                self.start()
                self.cut(outage)
                self.upstream.silent, self.upstream.delay = False, delay
                self.assertLess(self.seconds_until(reachable=True), 3.0)

    def test_every_attempt_has_its_own_connection(self) -> None:
        """
        While the cloud is gone each attempt dials anew.
        """
        self.start()
        before = len(self.upstream.probes)
        self.cut(20.0)
        attempts = self.upstream.probes[before:]
        self.assertTrue(all(attempt.fresh for attempt in attempts))
        self.assertTrue(18 <= len(attempts) <= 22, len(attempts))

    def test_lost_attempts_are_given_up(self) -> None:
        """
        Attempts that stay without an answer end, however long the outage.
        """
        self.start()
        self.cut(60.0)
        self.assertLessEqual(sum(not probe.cancelled for probe in self.upstream.probes[2:]), 5)

    def test_very_slow_link(self) -> None:
        """
        A link that needs longer than a usual probe's time is found alive in the end, and stays so.
        """
        self.upstream.delay = 6.0
        self.cloud.start()
        self.assertLess(self.seconds_until(reachable=True), PATIENT_TIMEOUT)
        self.run_for(60.0)
        self.assertTrue(self.cloud.reachable)

    def test_offline_seconds(self) -> None:
        """
        Outages add up, and ``since`` tells when the present state began.
        """
        self.start()
        for _ in range(2):
            self.cut(100.0)
            self.upstream.silent = False
            self.seconds_until(reachable=True)
            self.assertApproximates(self.cloud.since, self.clock.seconds(), 0.1)
            self.run_for(60.0)
        self.assertApproximates(self.cloud.offline_seconds(), 200.0, 5.0)

    def test_no_flapping(self) -> None:
        """
        A link that comes for a third of a second every two seconds is soon left alone, and its lasting return noticed.
        """
        self.start()
        turns = list[bool]()
        self.cloud.subscribe(turns.append)
        for _ in range(30):
            self.upstream.refusing = True
            self.cloud.failed(self.server, "connection reset")
            self.run_for(1.7)
            self.upstream.refusing = False
            self.run_for(0.33)
        self.assertLessEqual(len(turns), 8)
        self.upstream.refusing = True
        self.cloud.failed(self.server, "connection reset")
        self.run_for(2.0)
        self.upstream.refusing = False
        self.assertLess(self.seconds_until(reachable=True), 3.0)


class ManyServersTests(CloudTests):
    """
    Several addresses of one cluster.
    """

    servers = 3

    def picks(self, count: int) -> list[Server | None]:
        return [self.cloud.pick() for _ in range(count)]

    def test_in_turn(self) -> None:
        """
        By default requests go to the servers in turn.
        """
        self.start()
        picks = self.picks(6)
        self.assertEqual(picks[:3], picks[3:])
        self.assertEqual(set(picks), set(self.cloud.servers))

    def test_suspected_server_is_spared(self) -> None:
        """
        From the first failure on requests go elsewhere, so that a dead server costs no more than one failed dial.
        """
        self.start()
        self.upstream.silent = True
        self.cloud.failed(self.server, "connection refused")
        self.assertNotIn(self.server, self.picks(6))
        self.run_for(1.0)
        self.assertFalse(self.server.healthy)
        self.assertTrue(self.cloud.reachable)
        self.assertNotIn(self.server, self.picks(6))

    def test_other(self) -> None:
        """
        A request that failed finds another server; the last one healthy has no other.
        """
        self.start()
        first, second, third = self.cloud.servers
        self.assertIn(self.cloud.other([first]), (second, third))
        self.assertIs(self.cloud.other([first, second]), third)
        self.assertIsNone(self.cloud.other([first, second, third]))
        for upstream, server in zip(self.upstreams[1:], (second, third), strict=True):
            upstream.refusing = True
            self.cloud.failed(server, "connection refused")
        self.run_for(0.1)
        self.assertIs(self.cloud.other([second]), first)
        self.assertIsNone(self.cloud.other([first]))

    def test_one_dead_at_the_start(self) -> None:
        """
        The first that answers makes the cloud known; a dead one is not waited for.
        """
        self.upstreams[0].silent = self.upstreams[1].refusing = True
        self.cloud.start()
        self.run_for(0.1)
        self.assertEqual((self.cloud.known, self.cloud.reachable), (True, True))
        self.assertEqual(set(self.picks(3)), {self.cloud.servers[2]})

    def test_all_must_be_dead(self) -> None:
        """
        The cloud is unreachable, with all reasons told, only when every server is.
        """
        self.start()
        for upstream, server in zip(self.upstreams, self.cloud.servers, strict=True):
            self.assertTrue(self.cloud.reachable)
            upstream.refusing = True
            self.cloud.failed(server, "connection refused")
            self.run_for(0.1)
        self.assertFalse(self.cloud.reachable)
        self.assertTrue(all(upstream.name in self.cloud.reason for upstream in self.upstreams))

    def test_probed_in_parallel(self) -> None:
        """
        While all are gone each is tried every second, whatever the others do; one that returns is enough.
        """
        for upstream in self.upstreams:
            upstream.silent = True
        self.cloud.start()
        self.run_for(20.0)
        self.assertTrue(all(len(upstream.probes) > 16 for upstream in self.upstreams))
        self.upstreams[2].silent = False
        self.assertLess(self.seconds_until(reachable=True), 1.5)


class PriorityTests(ManyServersTests):
    """
    ``--lb-mode priority``.
    """

    lb_mode = "priority"

    def test_in_turn(self) -> None:
        """
        The first healthy server in the operator's order gets all requests.
        """
        self.start()
        self.assertEqual(set(self.picks(6)), {self.cloud.servers[0]})
        self.upstream.refusing = True
        self.cloud.failed(self.server, "connection refused")
        self.run_for(0.1)
        self.assertEqual(set(self.picks(6)), {self.cloud.servers[1]})
        self.upstream.refusing = False
        self.run_for(PROBATION + 2.0)
        self.assertEqual(set(self.picks(6)), {self.cloud.servers[0]})


class ReturnOfOneTests(CloudTests):
    """
    One of two servers comes and goes.
    """

    servers = 2

    def setUp(self) -> None:
        super().setUp()
        self.start()
        self.second = self.cloud.servers[1]

    def blink(self) -> float:
        """
        The first server goes away and returns; how long it is not used from its return on.
        """
        self.upstream.refusing = True
        self.cloud.failed(self.server, "connection refused")
        self.run_for(1.5)
        self.assertFalse(self.server.healthy)
        self.upstream.refusing = False
        began = self.clock.seconds()
        while {self.cloud.pick(), self.cloud.pick()} == {self.second}:
            self.clock.advance(STEP)
        return self.clock.seconds() - began

    def test_probation(self) -> None:
        """
        A server that returns is healthy at once, and gets requests when it has stayed for a while.
        """
        waited = self.blink()
        self.assertTrue(PROBATION <= waited <= PROBATION + 1.5, waited)

    def test_probation_grows(self) -> None:
        """
        It waits the longer the more often it returned of late, but not for ever; and is trusted again after a calm time.
        """
        waits = [round(self.blink(), 1) for _ in range(9)]
        self.assertEqual(waits, sorted(waits))
        self.assertGreater(waits[3], 7 * PROBATION)
        self.assertTrue(MAX_PROBATION - 1 <= waits[-1] <= MAX_PROBATION + 3, waits)
        self.clock.pump([1.0] * 3600)
        self.assertLess(self.blink(), PROBATION + 3)

    def test_want_of_another(self) -> None:
        """
        On probation it is used when there is no other.
        """
        self.blink()
        self.upstream.refusing = True
        self.cloud.failed(self.server, "connection refused")
        self.run_for(1.5)
        self.upstream.refusing = False
        self.run_for(3.0)
        self.upstreams[1].refusing = True
        self.cloud.failed(self.second, "connection refused")
        self.run_for(1.5)
        self.assertTrue(self.cloud.reachable)
        self.assertIs(self.cloud.pick(), self.server)


class RememberedTests(CloudTests):
    """
    Which servers were good is known after a restart.
    """

    servers = 2

    def reboot(self) -> None:
        """
        Stop and start again.
        """
        self.successResultOf(self.cloud.stop())
        self.boot()
        self.cloud.start()

    def test_good_ones_first(self) -> None:
        """
        A server that was away when the hub stopped has to stay for a while before it gets requests; the other one begins at
        once.
        """
        self.start()
        self.upstream.refusing = True
        self.cloud.failed(self.server, "connection refused")
        self.run_for(1.0)
        self.upstream.refusing = False
        self.reboot()
        self.run_for(3.0)
        self.assertTrue(self.server.healthy)
        self.assertEqual({self.cloud.pick() for _ in range(4)}, {self.cloud.servers[1]})
        self.run_for(PROBATION)
        self.assertEqual({self.cloud.pick() for _ in range(4)}, set(self.cloud.servers))

    def test_last_good_ones(self) -> None:
        """
        When all are away, the last that were there are remembered; one that nobody remembers is used at once where none of the
        remembered ones answers.
        """
        self.start()
        for upstream, server in zip(self.upstreams, self.cloud.servers, strict=True):
            upstream.refusing = True
            self.cloud.failed(server, "connection refused")
            self.run_for(1.0)
        self.assertEqual(list(self.memory.values()), [b'["https://10.0.0.2:6443"]'])
        self.upstream.refusing = False
        self.reboot()
        self.run_for(0.1)
        self.assertIs(self.cloud.pick(), self.server)

    def test_other_servers(self) -> None:
        """
        Servers of an earlier configuration, and a memory that cannot be read, are as nothing.
        """
        for kept in (b'["https://gone:6443"]', b"[[]]", b"{}", b"7", b"[", b"\xff"):
            self.memory[GOOD_SERVERS] = kept
            self.reboot()
            self.run_for(0.1)
            self.assertEqual({self.cloud.pick() for _ in range(4)}, set(self.cloud.servers), kept)


class PulseTests(CloudTests):
    """
    Watches depend on a server that says nothing.
    """

    servers = 2

    def setUp(self) -> None:
        super().setUp()
        self.left: list[Server] = []
        self.cloud.on_silence(self.left.append)
        self.start()

    def pulses(self, upstream: FakeUpstream) -> list[Sent]:
        return upstream.of(b"*")

    def test_pulse(self) -> None:
        """
        A pulse is OPTIONS * without credentials, on a connection that is kept; three or four a second, to that server only.
        """
        self.cloud.depend(self.server)
        self.run_for(10.0)
        pulses = self.pulses(self.upstream)
        self.assertTrue(30 <= len(pulses) <= 40, len(pulses))
        self.assertEqual({(one.head.method, tuple(one.head.headers), one.fresh) for one in pulses}, {(b"OPTIONS", (), False)})
        self.assertEqual(self.pulses(self.upstreams[1]), [])

    def test_not_needed(self) -> None:
        """
        There are none when no watch depends on the server, while the server talks, nor where there is no other to go to.
        """
        self.cloud.depend(self.server)
        self.cloud.release(self.server)
        self.run_for(5.0)
        self.cloud.depend(self.server)
        for _ in range(50):
            self.cloud.answered(self.server)
            self.run_for(0.1)
        self.upstreams[1].refusing = True
        self.cloud.failed(self.cloud.servers[1], "connection refused")
        self.run_for(0.1)
        before = len(self.pulses(self.upstream))
        self.run_for(5.0)
        self.assertEqual(len(self.pulses(self.upstream)), before)
        self.assertLessEqual(before, 2)

    def test_spread(self) -> None:
        """
        A few watches go on at another server at once, many spread over a part of the time that they have.
        """
        spreads = []
        for _ in range(100):
            spreads.append(self.cloud.failover_spread)
            self.cloud.depend(self.server)
        self.assertEqual((spreads[0], spreads[10], spreads[-1]), (0.0, 10 / MOVES_A_SECOND, FAILOVER_SPREAD))
        for _ in range(100):
            self.cloud.release(self.server)

    def test_heartbeats_go_on(self) -> None:
        """
        A process that answers may have lost its etcd: pulses do not stand in for heartbeats.
        """
        self.cloud.depend(self.server)
        before = len(self.upstream.probes)
        self.run_for(100.0)
        self.assertEqual(len(self.upstream.probes) - before, 9)

    def test_silence(self) -> None:
        """
        A server that freezes is left within the time for it, before it is called dead; then it is, and no pulse is sent.
        """
        self.cloud.depend(self.server)
        self.run_for(2.0)
        self.upstream.silent = True
        self.run_for(1.0 - 0.2)
        self.assertEqual(self.left, [self.server])
        self.assertTrue(self.server.healthy)
        self.assertEqual({self.cloud.pick() for _ in range(4)}, {self.cloud.servers[1]})
        self.run_for(1.0)
        self.assertFalse(self.server.healthy)
        self.assertEqual(self.left, [self.server])

    def test_silent_link(self) -> None:
        """
        When the other one is silent, too, there is no reason to leave.
        """
        self.cloud.depend(self.server)
        for upstream in self.upstreams:
            upstream.silent = True
        self.seconds_until(False)
        self.assertEqual(self.left, [])

    def test_stall(self) -> None:
        """
        A server that was silent for a moment is not called dead, and its connections stay.
        """
        self.cloud.depend(self.server)
        self.run_for(2.0)
        self.upstream.delay = 0.7
        self.run_for(0.7)
        self.upstream.delay = 0.01
        self.run_for(5.0)
        self.assertTrue(self.server.healthy)
        self.assertEqual(self.upstream.closed, [])

    def test_load_balancer(self) -> None:
        """
        A load balancer that has lost its servers is no sign of life.
        """
        self.cloud.depend(self.server)
        self.upstream.answer = partial(refuse, 503)
        self.run_for(0.6)
        self.assertFalse(self.server.healthy)

    def test_slow_servers(self) -> None:
        """
        Where answers need long a pulse has longer, and nobody is left for that.
        """
        for upstream in self.upstreams:
            upstream.delay = 0.6
        self.run_for(30.0)
        self.cloud.depend(self.server)
        self.run_for(30.0)
        self.assertEqual(self.left, [])


class NoPulseTests(CloudTests):
    """
    ``--watch-failover=0``.
    """

    servers = 2
    watch_failover = 0.0

    def test_heartbeats_only(self) -> None:
        """
        No pulses are sent; a frozen server is found out by its next heartbeat.
        """
        self.start()
        self.cloud.depend(self.server)
        self.run_for(5.0)
        self.assertEqual(self.upstream.of(b"*"), [])
        self.upstream.silent = True
        self.run_for(12.0 + 2.5 + SUSPECT_TIMEOUT)
        self.assertFalse(self.server.healthy)
