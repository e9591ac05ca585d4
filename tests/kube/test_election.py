"""
Tests for :mod:`yurt.kube.election`.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.certs import make_ca
from tests.miniapi.memory import MemoryAPI, MemoryExchange
from yurt.kube.api import ApiClient
from yurt.kube.election import ElectionTimes, LeaderElection, claim

CA = make_ca("elections")
NAMESPACE, NAME = "kube-system", "some-lease"
NOW = 1_700_000_000.0
"""The time of day when the Clock stands at 0."""
TIMES = ElectionTimes()


class ClaimTests(SynchronousTestCase):
    """
    Tests of what is written into a Lease.
    """

    def test_new(self) -> None:
        """
        Who creates the Lease is its first holder.
        """
        self.assertEqual(
            claim(None, "me", NOW, TIMES),
            {
                "holderIdentity": "me",
                "leaseDurationSeconds": 15,
                "acquireTime": "2023-11-14T22:13:20.000000Z",
                "renewTime": "2023-11-14T22:13:20.000000Z",
                "leaseTransitions": 0,
            },
        )

    def test_taken(self) -> None:
        """
        Who takes it from another counts one more transition, also when that one had given it up.
        """
        for holder in ({"holderIdentity": "you"}, {}):
            spec = claim({**holder, "leaseTransitions": 3, "acquireTime": "then"}, "me", NOW, TIMES)
            self.assertEqual((spec["leaseTransitions"], spec["acquireTime"]), (4, spec["renewTime"]))

    def test_kept(self) -> None:
        """
        Who renews it keeps the time at which it was acquired.
        """
        spec = claim({"holderIdentity": "me", "leaseTransitions": 3, "acquireTime": "then"}, "me", NOW, TIMES)
        self.assertEqual((spec["leaseTransitions"], spec["acquireTime"]), (3, "then"))


class Candidate:
    """
    Somebody who stands for election.
    """

    def __init__(self, clock: Clock, server: MemoryAPI, identity: str, behind: float = 0.0) -> None:
        self.events: list[tuple[str, float]] = []
        self.clock = clock
        self.server = server
        self.election = LeaderElection(
            clock,
            ApiClient(clock, server),
            NAMESPACE,
            NAME,
            identity,
            on_started=lambda: self.note("started"),
            on_stopped=lambda: self.note("stopped"),
            wall=lambda: NOW + clock.seconds() - behind,
            draw=lambda: 0.5,
        )

    def note(self, what: str) -> None:
        self.events.append((what, self.clock.seconds()))

    @property
    def told(self) -> list[str]:
        return [what for what, _ in self.events]


class ElectionCase(SynchronousTestCase):
    """
    Candidates on a clock, before an apiserver in memory.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = MemoryAPI(self.clock, CA)
        self.api = self.server.api
        self.candidates: list[Candidate] = []
        self.addCleanup(self.stop_all)

    def stop_all(self) -> None:
        for one in self.candidates:
            if one.election.running:
                one.election.stopService()

    def candidate(self, identity: str, behind: float = 0.0) -> Candidate:
        """
        A candidate who reaches the same objects by a server of his own, which can be cut off.
        """
        server = MemoryAPI(self.clock, CA)
        server.api = self.api
        one = Candidate(self.clock, server, identity, behind)
        self.candidates.append(one)
        one.election.startService()
        return one

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.api.get("leases", NAME, NAMESPACE)["spec"]
        return spec


class ElectionTests(ElectionCase):
    """
    Tests of elections.
    """

    def test_first(self) -> None:
        """
        The first to come leads at once, and renews for ever.
        """
        one = self.candidate("one")
        self.advance(0.2)
        self.assertEqual((one.told, self.spec["holderIdentity"], one.election.leader), (["started"], "one", "one"))
        before = self.spec["renewTime"]
        self.advance(100)
        self.assertEqual((one.told, one.election.leading, one.election.problem), (["started"], True, None))
        self.assertGreater(self.spec["renewTime"], before)
        self.assertEqual(self.spec["leaseTransitions"], 0)

    def test_second(self) -> None:
        """
        Of two only one leads, and the other knows whom.
        """
        one, two = self.candidate("one"), self.candidate("two")
        self.advance(60)
        leading = [candidate for candidate in (one, two) if candidate.election.leading]
        self.assertEqual(len(leading), 1)
        self.assertEqual({one.election.leader, two.election.leader}, {leading[0].election.identity})

    def test_stop_hands_over(self) -> None:
        """
        A leader that stops gives the Lease up, so that another leads with its next turn.
        """
        one = self.candidate("one")
        self.advance(1)
        two = self.candidate("two")
        self.advance(3)
        stopped = one.election.stopService()
        self.advance(0.1)
        self.successResultOf(stopped)
        self.assertEqual(one.told, ["started", "stopped"])
        self.advance(3)
        self.assertEqual((two.told, self.spec["holderIdentity"], self.spec["leaseTransitions"]), (["started"], "two", 1))

    def test_stop_without_server(self) -> None:
        """
        A stop does not wait for a server that does not answer for more than a moment.
        """
        one = self.candidate("one")
        self.advance(1)
        one.server.silent = True
        stopped = one.election.stopService()
        self.advance(2.1)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_crash(self) -> None:
        """
        When a leader vanishes another takes over once it has seen no renewal for the Lease's time.
        """
        one = self.candidate("one")
        self.advance(1)
        two = self.candidate("two")
        self.advance(5)
        one.server.silent = True  # nothing of it arrives any more
        cut_at = self.clock.seconds()
        self.advance(25)
        self.assertEqual(two.told, ["started"])
        waited = two.events[0][1] - cut_at
        self.assertGreater(waited, 12.0)
        self.assertLess(waited, 20.0)

    def test_never_two(self) -> None:
        """
        A leader that cannot renew stops before anybody else can start, and stands again when it can.
        """
        one = self.candidate("one")
        self.advance(1)
        two = self.candidate("two")
        self.advance(5)
        one.server.silent = True
        self.advance(30)
        self.assertEqual((one.told, two.told), (["started", "stopped"], ["started"]))
        self.assertLess(one.events[1][1], two.events[0][1])
        self.assertIn("Lease kube-system/some-lease", str(one.election.problem))
        one.server.silent = False
        two.server.refusing = True
        self.advance(40)
        self.assertEqual((one.told, two.told), (["started", "stopped", "started"], ["started", "stopped"]))
        self.assertIs(one.election.problem, None)

    def test_clocks_differ(self) -> None:
        """
        Nobody takes over because its clock is hours ahead or behind.
        """
        one = self.candidate("one", behind=7200.0)
        self.advance(1)
        two = self.candidate("two", behind=-7200.0)
        self.advance(60)
        self.assertEqual((one.told, two.told), (["started"], []))

    def test_lease_deleted(self) -> None:
        """
        A leader whose Lease somebody deletes makes it anew, and leads on.
        """
        one = self.candidate("one")
        self.advance(1)
        self.api.remove("leases", NAME, NAMESPACE)
        self.advance(6)
        self.assertEqual((one.told, self.spec["holderIdentity"]), (["started"], "one"))

    def test_lease_taken(self) -> None:
        """
        A leader that finds another's name in the Lease stops at once.
        """
        one = self.candidate("one")
        self.advance(1)
        lease = self.api.get("leases", NAME, NAMESPACE)
        self.api.put("leases", {**lease, "spec": {**lease["spec"], "holderIdentity": "somebody"}}, NAMESPACE)
        self.advance(5)
        self.assertEqual((one.told, one.election.leader), (["started", "stopped"], "somebody"))

    def test_written_by_others(self) -> None:
        """
        A conflict that leaves the Lease ours ends nothing.
        """
        one = self.candidate("one")
        self.advance(1)
        lease = self.api.get("leases", NAME, NAMESPACE)
        self.api.put("leases", {**lease, "metadata": {**lease["metadata"], "labels": {"a": "b"}}}, NAMESPACE)
        self.advance(20)
        self.assertEqual((one.told, one.election.leading), (["started"], True))
        self.assertEqual(self.api.get("leases", NAME, NAMESPACE)["metadata"]["labels"], {"a": "b"})

    def test_same_moment(self) -> None:
        """
        Two that create the Lease at the same moment do not both lead.
        """
        one, two = self.candidate("one"), self.candidate("two")
        self.advance(0.3)
        self.assertEqual(sorted(one.told + two.told), ["started"])

    def test_refused(self) -> None:
        """
        Without the right to the Lease there is a problem for people, and no leader.
        """
        self.api.permits = lambda user, verb, call, path: False
        one = self.candidate("one")
        self.advance(10)
        self.assertIn("403 Forbidden", str(one.election.problem))
        self.api.permits = lambda user, verb, call, path: True
        self.advance(3)
        self.assertEqual((one.told, one.election.problem), (["started"], None))

    def test_callbacks_fail(self) -> None:
        """
        A callback that fails is logged, and nothing else.
        """

        def fail() -> None:
            raise ValueError("mine")

        election = LeaderElection(
            self.clock, ApiClient(self.clock, self.server), NAMESPACE, NAME, "me", on_started=fail, on_stopped=fail
        )
        self.server.api = self.api
        election.startService()
        self.advance(1)
        self.assertTrue(election.leading)
        election.stopService()
        self.advance(1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_restart(self) -> None:
        """
        A leader that was killed and comes back under another name waits for the end of its own old Lease.
        """
        one = self.candidate("one")
        self.advance(5)
        one.server.silent = True
        again = self.candidate("one-again")
        self.advance(10)
        self.assertEqual(again.told, [])
        self.advance(10)
        self.assertEqual(again.told, ["started"])

    def test_slow_server(self) -> None:
        """
        The time for which a renewal counts begins when it was sent, not when it was answered.
        """
        one = self.candidate("one")
        self.advance(1)
        asked_at = []

        def slow(exchange: MemoryExchange) -> bool:
            asked_at.append(exchange.at)
            self.clock.callLater(4.0, one.server.carry_out, exchange)
            one.server.intercept = lambda exchange: True  # and nothing after it
            return True

        one.server.intercept = slow
        self.advance(20)
        self.assertEqual(one.told, ["started", "stopped"])
        self.assertAlmostEqual(one.events[1][1], asked_at[0] + TIMES.renew, delta=0.2)


TROUBLES = st.one_of(
    st.tuples(st.sampled_from(["silent", "refusing", "well", "stop", "start"]), st.integers(0, 2)),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 12, 20])),
)


class ChaosTests(ElectionCase):
    """
    Tests of elections among candidates who may be cut off, stopped and started at any time.
    """

    def apply(self, what: str, number: int) -> None:
        one = self.candidates[number]
        if what == "stop" and one.election.running:
            one.election.stopService()
        elif what == "start" and not one.election.running:
            one.election.startService()
        elif what in ("silent", "refusing", "well"):
            one.server.silent, one.server.refusing = what == "silent", what == "refusing"

    def watch_for(self, seconds: float) -> None:
        """
        Let time pass, and see that nobody leads beside another.
        """
        for _ in range(round(seconds / 0.5)):
            self.clock.advance(0.5)
            self.assertLessEqual(sum(one.election.leading for one in self.candidates), 1)

    @settings(max_examples=20, deadline=None)
    @given(st.lists(TROUBLES, max_size=25))
    def test_never_two(self, troubles: list[tuple[str, int]]) -> None:
        """
        Never do two lead at once while nobody removes the Lease; and one leads when all are well again.
        """
        self.setUp()
        for identity in ("one", "two", "three"):
            self.candidate(identity)
        for what, number in troubles:
            if what == "wait":
                self.watch_for(number)
            else:
                self.apply(what, number)
        for number in range(3):
            self.apply("well", number)
            self.apply("start", number)
        self.watch_for(40)
        self.assertEqual(sum(one.election.leading for one in self.candidates), 1)
        for one in self.candidates:
            started, stopped = one.told.count("started"), one.told.count("stopped")
            self.assertEqual(started - stopped, int(one.election.leading))
        self.stop_all()
