"""
Tests for :mod:`yurt.tunnel.server.redirect`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.host.test_leftovers import FakeSole
from tests.tunnel.server.told import ToldCluster
from yurt.host.errors import HostError
from yurt.host.messages import Known, Request, Result
from yurt.host.tunnel_rules import Diversion, Flow, TunnelRules
from yurt.tunnel.server.ports import Security
from yurt.tunnel.server.redirect import (
    FIRST_RETRY,
    GATHER,
    HAND_OVER,
    LAST_RETRY,
    LOST_PAUSE,
    NEWS_PAUSE,
    OTHER_LOOK,
    STOP_TIMEOUT,
    SYNC_LOOK,
    Redirect,
)
from yurt.tunnel.server.rules import Bound

PERIOD = 60.0
DOORS: dict[Security, Bound] = {"secure": Bound(("0.0.0.0",), 10263), "insecure": Bound(("127.0.0.1",), 10264)}
KUBELET = Diversion("ipv4", 10250, "127.0.0.1:10263")
READ_ONLY = Diversion("ipv4", 10255, "127.0.0.1:10264")


class Machine:
    """
    A machine whose child does as it is told when :meth:`answer` is called, or at once.
    """

    def __init__(self) -> None:
        self.rules: TunnelRules | None = None
        self.requests: list[Request] = []
        self.waiting: list[tuple[Request, Deferred[Result]]] = []
        self.at_once = True
        self.error: str | None = None
        self.problems: tuple[str, ...] = ()
        self.flows: list[Flow] = []
        self.cancelled = 0
        self.prepared = self.closed = False

    def prepare(self) -> None:
        self.prepared = True

    def close(self) -> None:
        self.closed = True

    def ask(self, request: Request, timeout: float = 0.0) -> Deferred[Result]:
        self.requests.append(request)
        done: Deferred[Result] = Deferred(lambda _: self.count_cancel())
        self.waiting.append((request, done))
        if self.at_once:
            self.answer()
        return done

    def answer(self) -> None:
        """
        Let the oldest child that runs end.
        """
        request, done = self.waiting.pop(0)
        if self.error is not None:
            done.errback(HostError(self.error))
            return
        wanted = request.tunnel if request.action == "ensure" else TunnelRules()
        changes = () if wanted == self.rules else ("changed",)
        flows = (Flow("ipv4", "10.0.0.1", 10250),) if changes else ()
        self.rules = wanted
        looked = request.known is None
        reason = "so it is" if looked else ""
        done.callback(Result(changes, self.problems, "", "legacy", reason, "legacy", looked, flows))

    def count_cancel(self) -> None:
        self.cancelled += 1

    def forget(self, flows: Iterable[Flow]) -> None:
        self.flows += flows

    def stop(self) -> None:
        self.flows.clear()

    def asked(self) -> list[Request]:
        """
        The requests since the last look.
        """
        requests, self.requests = self.requests, []
        return requests


class FakeNews:
    """
    In the place of :class:`yurt.host.news.RuleNews`.
    """

    def __init__(self, heard: Callable[[bool], object]) -> None:
        self.heard = heard
        self.started = False

    def start(self) -> None:
        self.started = True

    def stop(self) -> None:
        self.started = False

    def follow(self, flavour: str | None) -> None:
        self.heard(False)  # of what was changed by whoever asks


class RedirectTests(SynchronousTestCase):
    """
    Tests for :class:`Redirect`.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.machine = Machine()
        self.sole = FakeSole()
        self.cluster = ToldCluster()
        self.cluster.node("cloud", "10.0.0.1")
        self.cluster.node("edge", "10.0.0.9", has_agent=True)
        self.news: FakeNews
        self.redirect = self.make()

    def listen(self, reactor: object, chain: str, heard: Callable[[bool], object]) -> FakeNews:
        """
        News that the test makes.
        """
        self.assertEqual(chain, "TUNNEL-PORT")
        self.news = FakeNews(heard)
        return self.news

    def make(self) -> Redirect:
        """
        A service on the machine; not started.
        """
        return Redirect(
            cast(Any, self.clock),
            self.cluster.nodes,
            self.cluster.ports,
            DOORS,
            period=PERIOD,
            child=cast(Any, self.machine),
            sole=cast(Any, self.sole),
            flows=cast(Any, self.machine),
            news=cast(Any, self.listen),
            hostname="Here",
            is_own=lambda address: address == "10.0.0.7",
        )

    def start(self) -> None:
        """
        Start it, and let the first child do its work.
        """
        self.redirect.startService()
        self.clock.advance(0)

    def settle(self) -> None:
        """
        Let what was told be gathered and done.
        """
        self.clock.advance(GATHER)

    def test_first(self) -> None:
        """
        The first child makes all rules, having looked at what there is; then all is well, and nothing happens for the period.
        """
        self.start()
        wanted = TunnelRules(("10.0.0.1",), (KUBELET, READ_ONLY))
        self.assertEqual(self.machine.asked(), [Request("ensure", tunnel=wanted)])
        self.assertEqual((self.redirect.problem, self.redirect.backend, self.redirect.rules), (None, "legacy", wanted))
        self.clock.advance(PERIOD - 1)
        self.assertEqual(self.machine.asked(), [])

    def test_news(self) -> None:
        """
        When the kernel tells of a change that is not ours all rules are compared soon, and once more after a repair; changes that
        come one after the other are no reason to do so all the time.  None is heard after the stop.
        """
        self.start()
        self.assertTrue(self.news.started)
        self.clock.advance(NEWS_PAUSE)
        self.machine.asked()
        self.machine.rules = None
        self.news.heard(False)
        self.settle()
        (request,) = self.machine.asked()
        self.assertEqual((request.known, self.redirect.repairs), (None, 1))
        for _ in range(10):
            self.news.heard(False)
            self.clock.advance(NEWS_PAUSE / 20)
        self.assertEqual(self.machine.asked(), [])
        self.clock.advance(NEWS_PAUSE)
        self.assertEqual((len(self.machine.asked()), self.redirect.repairs), (1, 1))
        self.clock.advance(PERIOD - 1)
        self.assertEqual(self.machine.asked(), [])
        self.redirect.stopService()
        self.assertFalse(self.news.started)

    def test_lost_news(self) -> None:
        """
        Where the kernel could not tell what has changed all rules are compared, too, but not every other second: kube-proxy may
        write a large table as often, and to read it takes long.
        """
        self.start()
        self.machine.asked()
        self.news.heard(True)
        self.clock.advance(LOST_PAUSE - GATHER)
        self.assertEqual(self.machine.asked(), [])
        self.clock.advance(GATHER)
        self.assertEqual(len(self.machine.asked()), 1)

    def test_news_is_no_hurry(self) -> None:
        """
        While changes fail news makes no further attempt.
        """
        self.machine.error = "no iptables"
        self.start()
        self.machine.asked()
        self.news.heard(False)
        self.clock.advance(FIRST_RETRY / 2)
        self.assertEqual(self.machine.asked(), [])
        self.clock.advance(FIRST_RETRY)
        self.assertEqual(len(self.machine.asked()), 1)

    def test_nothing_before_start(self) -> None:
        """
        The start itself runs no child: the reactor does not run yet.
        """
        self.redirect.startService()
        self.assertEqual(self.machine.asked(), [])

    def test_waits_for_nodes(self) -> None:
        """
        Until the first list of nodes has come rules are left as they are; with the list they are put right.
        """
        self.cluster.sync(False)
        self.start()
        self.cluster.node("cloud", "10.0.0.1", "10.0.0.2")
        self.clock.pump([1.0] * 100)
        self.assertEqual(self.machine.asked(), [])
        self.assertIn("waiting for the first list", self.redirect.problem or "")
        self.cluster.sync()
        self.clock.advance(SYNC_LOOK)
        (request,) = self.machine.asked()
        assert request.tunnel is not None
        self.assertEqual(request.tunnel.direct, ("10.0.0.1", "10.0.0.2"))
        self.assertIsNone(self.redirect.problem)

    def test_node_comes(self) -> None:
        """
        A node without agent, ready or not, is reached directly at once: only the difference is asked for, of a child that was
        started as soon as it was known.
        """
        self.start()
        (before,) = self.machine.asked()
        self.cluster.node("cloud-2", "10.0.0.2", "fd00::2", ready=False)
        self.assertEqual((self.machine.asked(), self.machine.prepared), ([], True))
        self.settle()
        assert before.tunnel is not None
        wanted = TunnelRules(("10.0.0.1", "10.0.0.2", "fd00::2"), before.tunnel.diversions)
        self.assertEqual(self.machine.asked(), [Request("ensure", tunnel=wanted, known=Known("legacy", before.tunnel))])

    def test_node_goes(self) -> None:
        """
        A node that is gone, or has an agent now, loses its rules.
        """
        self.cluster.node("cloud-2", "10.0.0.2")
        self.start()
        self.cluster.no_node("cloud")
        self.settle()
        self.assertEqual(self.redirect.rules.direct, ("10.0.0.2",))
        self.cluster.node("cloud-2", "10.0.0.2", has_agent=True)
        self.settle()
        self.assertEqual(self.redirect.rules.direct, ())

    def test_irrelevant_changes(self) -> None:
        """
        A node with an agent, a heartbeat, a condition: nothing is done.
        """
        self.start()
        self.machine.asked()
        self.cluster.node("edge", "10.0.0.8", has_agent=True)
        self.cluster.node("cloud", "10.0.0.1", ready=False)
        self.clock.advance(1.0)
        self.assertEqual(self.machine.asked(), [])

    def test_shared_address(self) -> None:
        """
        Of two nodes with one address the one without an agent keeps it: it has no other way.
        """
        self.cluster.node("edge", "10.0.0.1", has_agent=True)
        self.start()
        self.assertEqual(self.redirect.rules.direct, ("10.0.0.1",))

    def test_this_host(self) -> None:
        """
        A node with an agent that is this very host is reached directly, or the agent's dials would come back to it without end;
        one of the same name elsewhere, or of the same address under another name, is not.
        """
        self.start()
        self.cluster.node("here", "10.0.0.7", "10.0.0.8", has_agent=True)
        self.settle()
        self.assertEqual(self.redirect.rules.direct, ("10.0.0.1", "10.0.0.7"))
        self.cluster.node("here", "10.0.0.8", has_agent=True)
        self.cluster.node("there", "10.0.0.7", has_agent=True)
        self.settle()
        self.assertEqual(self.redirect.rules.direct, ("10.0.0.1",))

    def test_this_host_by_its_boot(self) -> None:
        """
        So are they when the node has another name than the host; but not those of another network namespace of it.
        """
        self.cluster.node("aws-1", "10.0.0.7", "10.0.0.8", has_agent=True, here=True)
        self.start()
        self.assertEqual(self.redirect.rules.direct, ("10.0.0.1", "10.0.0.7"))
        self.cluster.node("aws-1", "10.0.0.8", has_agent=True, here=True)
        self.settle()
        self.assertEqual(self.redirect.rules.direct, ("10.0.0.1",))

    def test_ports(self) -> None:
        """
        A port of the ConfigMap is diverted as soon as it is named, and no longer than that.
        """
        self.start()
        self.cluster.set_http_ports(9100)
        self.settle()
        self.assertIn(Diversion("ipv4", 9100, "127.0.0.1:10264"), self.redirect.rules.diversions)
        self.cluster.set_http_ports()
        self.settle()
        self.assertEqual(self.redirect.rules.diversions, (KUBELET, READ_ONLY))

    def test_gathered(self) -> None:
        """
        Many changes at once are one child's work.
        """
        self.start()
        self.machine.asked()
        for number in range(100):
            self.cluster.node(f"n{number}", f"10.1.0.{number}")
        self.settle()
        (request,) = self.machine.asked()
        assert request.tunnel is not None
        self.assertEqual(len(request.tunnel.direct), 101)

    def test_one_child(self) -> None:
        """
        What changes while a child works is the next one's work; two never work at the same time.
        """
        self.start()
        self.machine.asked()
        self.machine.at_once = False
        self.cluster.node("a", "10.0.0.3")
        self.settle()
        self.cluster.node("b", "10.0.0.4")
        self.clock.advance(10.0)
        self.assertEqual(len(self.machine.asked()), 1)
        self.machine.answer()
        self.settle()
        (request,) = self.machine.asked()
        assert request.tunnel is not None
        self.assertEqual(request.tunnel.direct, ("10.0.0.1", "10.0.0.3", "10.0.0.4"))

    def test_check(self) -> None:
        """
        Every period all is looked at, whatever changed in between; what others did is put right, counted and told.
        """
        self.start()
        self.clock.advance(PERIOD / 2)
        self.cluster.node("a", "10.0.0.3")
        self.settle()
        self.machine.asked()
        self.machine.rules = None
        self.clock.advance(PERIOD / 2)
        (request,) = self.machine.asked()
        self.assertIsNone(request.known)
        self.assertEqual((self.redirect.changes, self.redirect.repairs), (3, 1))
        self.clock.advance(PERIOD)
        self.assertEqual((len(self.machine.asked()), self.redirect.changes, self.redirect.repairs), (1, 3, 1))

    def test_child_fails(self) -> None:
        """
        A failure is told in the problem and tried again, later and later, looking at all there is; then all is well.
        """
        self.machine.error = "no iptables on this host"
        self.start()
        self.assertEqual(self.redirect.problem, "firewall rules: no iptables on this host")
        pause = FIRST_RETRY
        while pause < LAST_RETRY:
            self.assertEqual(len(self.machine.asked()), 1)
            self.clock.advance(pause - 0.001)
            self.assertEqual(self.machine.asked(), [])
            self.clock.advance(0.001)
            pause *= 2
        self.machine.error = None
        self.machine.asked()
        self.clock.advance(LAST_RETRY)
        (request,) = self.machine.asked()
        self.assertIsNone(request.known)
        self.assertIsNone(self.redirect.problem)
        self.assertEqual(self.redirect.repairs, 0)

    def test_change_while_failing(self) -> None:
        """
        While it fails a change is tried soon, but not at once: many changes are not many children.
        """
        self.start()
        self.machine.error = "busy"
        self.cluster.node("a", "10.0.0.3")
        self.settle()
        self.clock.pump([FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY])
        self.machine.asked()
        self.machine.prepared = False
        self.cluster.node("b", "10.0.0.4")
        self.clock.advance(FIRST_RETRY / 2)
        self.assertEqual((self.machine.asked(), self.machine.prepared), ([], False))
        self.machine.error = None
        self.clock.advance(FIRST_RETRY / 2)
        self.assertEqual(len(self.machine.asked()), 1)
        self.assertEqual(self.redirect.rules.direct, ("10.0.0.1", "10.0.0.3", "10.0.0.4"))

    def test_partly(self) -> None:
        """
        What a child could not do is a problem, too.
        """
        self.machine.problems = ("ip6tables-restore: no",)
        self.start()
        self.assertEqual(self.redirect.problem, "firewall rules: ip6tables-restore: no")
        self.assertEqual(self.redirect.failures, 1)

    def test_flows(self) -> None:
        """
        Connections whose way has changed are handed on to be forgotten.
        """
        self.start()
        self.assertEqual(self.machine.flows, [Flow("ipv4", "10.0.0.1", 10250)])

    def test_state(self) -> None:
        """
        The status page tells the backend, how many addresses are direct, and where ports go.
        """
        self.start()
        self.assertEqual(
            self.redirect.state,
            {
                "backend": "legacy",
                "direct_addresses": 1,
                "diversions": [
                    {"port": 10250, "destination": "127.0.0.1:10263"},
                    {"port": 10255, "destination": "127.0.0.1:10264"},
                ],
                "reason": "so it is",
                "changes": 1,
                "repairs": 0,
                "failures": 0,
                "problem": None,
            },
        )

    def test_stop(self) -> None:
        """
        A stop removes all rules and leaves no timer; nothing is done about nodes any more.
        """
        self.start()
        self.machine.asked()
        stopped = self.redirect.stopService()
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual((self.machine.asked(), self.machine.closed), ([Request("remove", tunnel=TunnelRules())], True))
        self.cluster.node("a", "10.0.0.3")
        self.assertEqual((self.clock.getDelayedCalls(), self.machine.asked()), ([], []))

    def test_another_server(self) -> None:
        """
        While another server on this host keeps the rules they are left to it; when it is gone they are this one's.
        """
        self.sole.free, self.sole.holder = False, 42
        self.start()
        self.assertIn("(process 42): stop one of them", self.redirect.problem or "")
        self.clock.pump([OTHER_LOOK] * 3)
        self.assertEqual(self.machine.asked(), [])
        self.sole.free = True
        self.clock.advance(OTHER_LOOK)
        self.assertEqual([request.action for request in self.machine.asked()], ["ensure"])
        self.assertIsNone(self.redirect.problem)

    def test_another_server_at_stop(self) -> None:
        """
        A stop removes nothing that another server keeps.
        """
        self.sole.free = False
        self.start()
        stopped = self.redirect.stopService()
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual((self.machine.asked(), self.clock.getDelayedCalls()), ([], []))

    def test_handed_over(self) -> None:
        """
        Before a stop another server that waits gets the rules as they are, and time to lead them to itself; it keeps them.
        """
        self.sole.awaited = True
        self.start()
        self.machine.asked()
        given = Deferred.fromCoroutine(self.redirect.hand_over())
        self.clock.advance(0)
        self.assertEqual((self.sole.taken, given.called), (False, False))
        self.sole.free = False
        self.cluster.node("a", "10.0.0.3")
        self.clock.pump([HAND_OVER / 10] * 11)
        self.successResultOf(given)
        stopped = self.redirect.stopService()
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual((self.machine.asked(), self.clock.getDelayedCalls()), ([], []))

    def test_handed_over_to_nobody(self) -> None:
        """
        When the other one is gone before it has taken them, they are removed; where none waits nothing is handed over.
        """
        self.start()
        self.successResultOf(Deferred.fromCoroutine(self.redirect.hand_over()))
        self.assertTrue(self.sole.taken)
        self.sole.awaited = True
        given = Deferred.fromCoroutine(self.redirect.hand_over())
        self.clock.pump([HAND_OVER / 10] * 11)
        self.successResultOf(given)
        self.machine.asked()
        self.redirect.stopService()
        self.clock.advance(0)
        self.assertEqual([request.action for request in self.machine.asked()], ["remove"])

    def test_handed_over_amid_change(self) -> None:
        """
        A change that is being made is made first.
        """
        self.sole.awaited = True
        self.machine.at_once = False
        self.start()
        given = Deferred.fromCoroutine(self.redirect.hand_over())
        self.clock.advance(0)
        self.assertTrue(self.sole.taken)
        self.machine.answer()
        self.settle()
        self.assertFalse(self.sole.taken)
        self.clock.advance(HAND_OVER)
        self.successResultOf(given)

    def test_stop_leaves_the_name(self) -> None:
        """
        After a stop another server can keep the rules.
        """
        self.start()
        self.assertTrue(self.sole.taken)
        self.redirect.stopService()
        self.clock.advance(0)
        self.assertFalse(self.sole.taken)

    def test_stop_before_nodes(self) -> None:
        """
        Rules of an earlier run are removed by a stop even when the list of nodes never came.
        """
        self.cluster.sync(False)
        self.start()
        stopped = self.redirect.stopService()
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual([request.action for request in self.machine.asked()], ["remove"])

    def test_stop_amid_change(self) -> None:
        """
        A change that is being made is let end before all is removed.
        """
        self.machine.at_once = False
        self.start()
        stopped = self.redirect.stopService()
        self.clock.advance(0)
        self.assertEqual([request.action for request in self.machine.requests], ["ensure"])
        self.machine.answer()
        self.assertEqual([request.action for request in self.machine.requests], ["ensure", "remove"])
        self.machine.answer()
        self.successResultOf(stopped)
        self.assertEqual((self.machine.cancelled, self.machine.rules), (0, TunnelRules()))

    def test_stop_amid_hang(self) -> None:
        """
        A child that does not end is killed after a while, and the removal is tried all the same.
        """
        self.machine.at_once = False
        self.start()
        stopped = self.redirect.stopService()
        self.machine.at_once = True
        self.machine.waiting.clear()
        self.clock.advance(STOP_TIMEOUT)
        self.successResultOf(stopped)
        self.assertEqual((self.machine.cancelled, self.machine.requests[-1].action), (1, "remove"))

    def test_stop_fails(self) -> None:
        """
        A stop ends even when nothing can be removed.
        """
        self.start()
        self.machine.error = "killed"
        stopped = self.redirect.stopService()
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertTrue(self.machine.closed)

    def test_not_started(self) -> None:
        """
        What was never started has nothing to remove.
        """
        self.successResultOf(self.redirect.stopService())
        self.assertEqual(self.machine.asked(), [])

    def test_again(self) -> None:
        """
        After a stop it can be started again.
        """
        self.start()
        self.redirect.stopService()
        self.clock.advance(0)
        self.machine.asked()
        self.start()
        (request,) = self.machine.asked()
        self.assertEqual((request.action, request.known), ("ensure", None))
