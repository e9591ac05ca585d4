"""
Tests for :mod:`yurt.hub.podlink`.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from yurt.host.child import HostReactor
from yurt.host.errors import HostError, LinkError
from yurt.host.messages import Request, Result
from yurt.hub.podlink import FIRST_RETRY, LAST_RETRY, LINK_INTERVAL, RULES_INTERVAL, STOP_TIMEOUT, PodLink, PodLinkSettings

BOTH = ("169.254.2.1", "fd00::2:1")


class FakeMachine:
    """
    A machine whose child succeeds unless ``error`` or ``problems`` says otherwise.
    """

    def __init__(self) -> None:
        self.present: tuple[str, ...] = ()
        self.gives: tuple[str, ...] = BOTH
        self.problems: tuple[str, ...] = ()
        self.changes: tuple[str, ...] = ()
        self.error: str | None = None
        self.hang = False
        self.cancelled = 0
        self.requests: list[Request] = []
        self.timeouts: list[float] = []

    def look(self, name: str, addresses: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(address for address in addresses if address in self.present)

    def run(self, reactor: HostReactor, request: Request, timeout: float = 0.0) -> Deferred[Result]:
        self.requests.append(request)
        self.timeouts.append(timeout)
        if self.hang:
            return Deferred(lambda _: self.count_cancel())
        if self.error is not None:
            return fail(HostError(self.error))
        if request.link is not None:
            self.present = self.gives if request.action == "ensure" else ()
        kind = "tap" if request.link is not None and self.present else ""
        backend, reason = ("legacy", "so told") if request.rules else ("", "")
        return succeed(Result(self.changes, self.problems, kind, backend, reason))

    def count_cancel(self) -> None:
        self.cancelled += 1

    def asked(self) -> list[tuple[str, bool, bool]]:
        """
        What was asked of the child since the last look: action, link, rules.
        """
        requests, self.requests = self.requests, []
        return [(request.action, request.link is not None, request.rules is not None) for request in requests]


ENSURE_LINK = ("ensure", True, False)
ENSURE_RULES = ("ensure", False, True)


class PodLinkTests(SynchronousTestCase):
    """
    Tests for :class:`PodLink`.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.machine = FakeMachine()
        self.told: list[tuple[str, ...]] = []
        self.lost: list[tuple[str, ...]] = []

    def make(self, **settings: object) -> PodLink:
        """
        A service on the fake machine that asks for both addresses.
        """
        wanted = PodLinkSettings(**{"dummy_if_ip": BOTH, **settings})  # type: ignore[arg-type]  # the tests give the right ones
        machine, told, lost = self.machine, self.told.append, self.lost.append
        return PodLink(self.clock, wanted, told, lost, run=machine.run, look=machine.look)  # type: ignore[arg-type]

    def started(self, **settings: object) -> PodLink:
        """
        A service that has had its first turn of the reactor.
        """
        service = self.make(**settings)
        service.startService()
        self.assertEqual(self.machine.requests, [])  # starting itself does nothing that could block or fail
        self.clock.advance(0)
        return service

    def test_start(self) -> None:
        """
        The link is made in the background, its addresses are told once, and then only looked at.
        """
        service = self.started()
        self.assertEqual(self.machine.asked(), [ENSURE_LINK])
        self.assertEqual((self.told, service.ready, service.problem), ([BOTH], True, None))
        self.clock.pump([LINK_INTERVAL] * 30)
        self.assertEqual((self.machine.asked(), self.told), ([], [BOTH]))

    def test_left_by_crash(self) -> None:
        """
        Addresses that are there already are told before any child ran; the child still puts the link in order.
        """
        self.machine.present = BOTH
        self.machine.hang = True
        service = self.started()
        self.assertEqual((self.told, service.addresses), ([BOTH], BOTH))
        self.assertEqual(self.machine.asked(), [ENSURE_LINK])

    def test_being_set_up(self) -> None:
        """
        Until the first look at link and rules has ended, readiness says so.
        """
        self.machine.hang = True
        service = self.started(enable_iptables=True)
        self.assertFalse(service.ready)
        link, rules = (service.problem or "").split("; ")
        self.assertEqual(link, "link yurthub-dummy0: just started, it is being set up")
        self.assertEqual(rules, "firewall rules: just started, they are being set up")

    def test_lost(self) -> None:
        """
        A link that someone deletes is made again within LINK_INTERVAL, and told again.
        """
        service = self.started()
        self.machine.present = ()
        self.clock.advance(LINK_INTERVAL)
        self.assertEqual(self.machine.asked(), [ENSURE_LINK, ENSURE_LINK])
        self.assertEqual((self.told, service.ready), ([BOTH, BOTH], True))

    def test_remade_unseen(self) -> None:
        """
        A link that was deleted and made again between two looks is told again, for whoever failed to listen meanwhile.
        """
        self.machine.present = BOTH
        self.machine.changes = ("created link yurthub-dummy0",)
        self.started()
        self.assertEqual(self.told, [BOTH, BOTH])

    def test_no_privilege(self) -> None:
        """
        What the child cannot do is the problem that readiness shows; it is tried again with growing pauses, and goes away.
        """
        self.machine.gives = ()
        self.machine.problems = ("link yurthub-dummy0: creating it as dummy: operation not permitted (needs CAP_NET_ADMIN)",)
        service = self.started()
        self.assertEqual((self.told, service.ready), ([], False))
        self.assertEqual(service.problem, self.machine.problems[0] + "; retrying")
        self.assertEqual(len(self.machine.asked()), 1)
        self.clock.advance(FIRST_RETRY)
        self.assertEqual(len(self.machine.asked()), 1)
        self.clock.advance(FIRST_RETRY)
        self.assertEqual(self.machine.asked(), [])
        self.clock.advance(FIRST_RETRY)
        self.assertEqual(len(self.machine.asked()), 1)
        self.clock.pump([1.0] * int(20 * LAST_RETRY))
        self.assertIn(len(self.machine.asked()), range(18, 26))
        self.machine.gives, self.machine.problems = BOTH, ()
        self.clock.advance(LAST_RETRY)
        self.assertEqual((self.told, service.ready, service.problem), ([BOTH], True, None))

    def test_part(self) -> None:
        """
        An address that is there is told although the other cannot be had; the other is told when it comes.
        """
        self.machine.gives = ("169.254.2.1",)
        self.machine.problems = ("link yurthub-dummy0: adding fd00::2:1/128: permission denied",)
        service = self.started()
        self.assertEqual((self.told, service.ready), ([("169.254.2.1",)], False))
        self.machine.gives, self.machine.problems = BOTH, ()
        self.clock.advance(FIRST_RETRY)
        self.assertEqual((self.told, service.ready), ([("169.254.2.1",), BOTH], True))

    def test_child_fails(self) -> None:
        """
        A child that cannot even run is a problem like any other.
        """
        self.machine.error = "the host's child gave no answer"
        service = self.started()
        self.assertEqual(service.problem, "the host's child gave no answer; retrying")
        self.machine.error = None
        self.clock.advance(FIRST_RETRY)
        self.assertTrue(service.ready)

    def test_unusable(self) -> None:
        """
        A child that claims success while the address is not there does not make the service ready.
        """
        self.machine.gives = ()
        service = self.started()
        self.assertIn("169.254.2.1, fd00::2:1 cannot be used yet", service.problem or "")

    def test_callback_fails(self) -> None:
        """
        A listener that fails is logged and does not end the service.
        """
        service = self.make()
        self.patch(service, "_on_ready", lambda addresses: 1 // 0)
        service.startService()
        self.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.machine.present = ()
        self.clock.advance(LINK_INTERVAL)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_tells_of_loss(self) -> None:
        """
        What has gone is told once, and what is back is told again.
        """
        self.started()
        self.machine.error = "no permission"
        self.machine.present = BOTH[:1]
        self.clock.advance(LINK_INTERVAL)
        self.clock.pump([LINK_INTERVAL] * 3)
        self.assertEqual((self.lost, self.told), ([BOTH[:1]], [BOTH]))
        self.machine.present = BOTH
        self.clock.pump([LINK_INTERVAL] * 12)
        self.assertEqual((self.lost, self.told), ([BOTH[:1]], [BOTH, BOTH]))

    def test_rules(self) -> None:
        """
        With ``enable_iptables`` the rules for all ports, of which 10268 is tracked, are put in order at the start and every
        RULES_INTERVAL.
        """
        service = self.started(enable_iptables=True, ports=(10261, 10268))
        rules = self.machine.requests[1].rules
        assert rules is not None
        self.assertEqual(len(rules.rules), 14)
        self.assertEqual(self.machine.asked(), [ENSURE_LINK, ENSURE_RULES])
        self.assertTrue(service.ready)
        self.clock.pump([RULES_INTERVAL] * 3)
        self.assertEqual(self.machine.asked(), [ENSURE_RULES] * 3)

    def test_rules_fail(self) -> None:
        """
        Without its rules the service is not ready, but the address is told and used.
        """
        self.machine.present = BOTH
        service = self.started(enable_iptables=True)
        self.machine.problems = ("no iptables on this host",)
        self.clock.advance(RULES_INTERVAL)
        self.assertEqual((self.told, service.ready), ([BOTH], False))
        self.assertEqual(service.problem, "firewall rules: no iptables on this host; retrying")

    def test_stop(self) -> None:
        """
        A clean stop removes link and rules, waits for it within a bound, and nothing goes on afterwards.
        """
        service = self.started(enable_iptables=True)
        self.machine.asked()
        self.successResultOf(service.stopService())
        self.assertEqual(self.machine.asked(), [("remove", True, True)])
        self.assertEqual(self.machine.timeouts[-1], STOP_TIMEOUT)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_leaves_rules(self) -> None:
        """
        Without ``enable_iptables`` the firewall is not touched at the stop, either.
        """
        service = self.started()
        self.machine.asked()
        self.successResultOf(service.stopService())
        self.assertEqual(self.machine.asked(), [("remove", True, False)])

    def test_stop_amid_child(self) -> None:
        """
        A child that is at work is ended before the removal; a removal that fails does not fail the stop.
        """
        self.machine.hang = True
        service = self.started()
        self.machine.hang, self.machine.error = False, "killed"
        self.successResultOf(service.stopService())
        self.assertEqual(self.machine.cancelled, 1)

    def test_disabled(self) -> None:
        """
        Without ``enable_dummy_if`` there is nothing to do, and nothing missing.
        """
        service = self.started(enable_dummy_if=False, enable_iptables=True)
        self.assertEqual((self.machine.asked(), service.ready, service.problem), ([], True, None))
        self.successResultOf(service.stopService())
        self.assertEqual(self.machine.asked(), [])

    def test_state(self) -> None:
        """
        The status page shows what was asked for and what is there.
        """
        service = self.started(enable_iptables=True)
        self.assertEqual(
            service.state,
            {
                "enabled": True,
                "name": "yurthub-dummy0",
                "kind": "tap",
                "wanted": list(BOTH),
                "addresses": list(BOTH),
                "iptables": True,
                "backend": "legacy",
                "reason": "so told",
                "ready": True,
                "problem": None,
            },
        )

    def test_bad_settings(self) -> None:
        """
        Settings that no kernel would take are refused before anything starts.
        """
        self.assertRaises(LinkError, self.make, dummy_if_name="a-name-of-17-bytes")
