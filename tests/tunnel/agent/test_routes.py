"""
Tests of :mod:`yurt.tunnel.agent.routes`: when is dialled and when not, with a clock of the test's and links that it makes.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from prometheus_client import CollectorRegistry, generate_latest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from yurt.mux.connection import MuxConnection
from yurt.tunnel.agent.connector import Connector
from yurt.tunnel.agent.links import LOOK, Link
from yurt.tunnel.agent.metrics import AgentMetrics
from yurt.tunnel.agent.patience import MAX_WAIT, STABLE_AFTER
from yurt.tunnel.agent.routes import CONNECTED, CONNECTING, COVERED, LOOK_UP_INTERVAL, MAX_ADDRESSES, WAITING, Name, Route
from yurt.tunnel.link import LinkError, LinkInfo


class FakeMux:
    """
    Of a link that only is there or not.
    """

    streams = bytes_received = bytes_sent = 0
    rtt = 0.01
    transport = SimpleNamespace(getHost=lambda: IPv4Address("TCP", "10.0.0.8", 40_000))


class FakeNames:
    """
    Names with the addresses that the test gives them; an answer that is None does not come.
    """

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, ...] | None] = {}
        self.asked = 0

    def addresses(self, name: str) -> Deferred[tuple[str, ...]]:
        """
        See :class:`yurt.tunnel.agent.names.Names`.
        """
        self.asked += 1
        found = self.known.get(name, ())
        return Deferred() if found is None else succeed(found)


class FakeConnector:
    """
    In the place of :class:`Connector`: a dial succeeds, as ``servers`` says, with the id of a server at an address, or fails.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.names = FakeNames()
        self.registry = CollectorRegistry()
        self.metrics = AgentMetrics(self.registry, "1")
        self.servers: dict[str, str] = {}
        self.error: Callable[[], Exception] = lambda: LinkError("connection refused", word="refused")
        self.dials: list[str] = []
        self.ended: list[Link] = []
        self.outlasted: list[Link] = []
        self.names_known: list[Name] = []
        self.valid_until = 1e9
        self.own = frozenset({"10.0.0.8"})

    def own_addresses(self) -> frozenset[str]:
        """
        As the test says.
        """
        return self.own

    def chance(self) -> float:
        """
        The longest wait.
        """
        return 1.0

    def now(self) -> float:
        """
        The clock's time.
        """
        return self.clock.seconds()

    def sleep(self, seconds: float) -> Deferred[None]:
        """
        By the clock.
        """
        return deferLater(self.clock, seconds, lambda: None)

    time_of_day = now

    async def happens(self, event: Deferred[None], seconds: float) -> bool:
        """
        By the clock.
        """
        try:
            await event.addTimeout(seconds, self.clock)
        except TimeoutError:
            return False
        return True

    def outlast(self, link: Link) -> None:
        """
        Another one is there.
        """
        self.outlasted.append(link)

    def let_end(self, link: Link) -> None:
        """
        It is over.
        """
        self.ended.append(link)

    async def dial(self, route: Route) -> Link:
        """
        As the test says.
        """
        self.dials.append(route.address)
        server_id = self.servers.get(route.address)
        if server_id is None:
            raise self.error()
        link = Link(route.server)
        link.mux = cast(MuxConnection, FakeMux())
        link.info = LinkInfo(server_id, "server/1", frozenset(), cast(Any, None), link.mux, self.valid_until)
        link.wear(self.time_of_day(), self.chance())
        link.note_address(self.own)
        return link

    def replace_older(self, route: Route, link: Link) -> None:
        """
        As :class:`Connector` does.
        """
        for other in self.routes():
            older = other.link
            if other is not route and other.state == CONNECTED and older is not None and older.server_id == link.server_id:
                older.successor = route
                older.spend("replaced", "same server")
                self.ended.append(older)

    def routes(self) -> list[Route]:
        """
        All of them.
        """
        return [route for name in self.names_known for route in name.routes.values()]

    def start(self, host: str) -> Name:
        """
        A name that is connected to.
        """
        name = Name(cast(Connector, self), host, 10262)
        self.names_known.append(name)
        name.start()
        return name


class RouteCase(SynchronousTestCase):
    """
    Names and routes on a clock.
    """

    def setUp(self) -> None:
        self.connector = FakeConnector()
        self.clock = self.connector.clock

    def pass_time(self, seconds: float, step: float = 0.25) -> None:
        """
        In small steps.
        """
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def lose(self, route: Route, why: str = "connection lost") -> None:
        """
        Its link ends.
        """
        assert route.link is not None
        route.link.was_lost(Exception(why))

    def only(self, name: Name) -> Route:
        """
        The route of a name with one address.
        """
        (route,) = name.routes.values()
        return route


class RetryTests(RouteCase):
    """
    Tests of the attempts at one address.
    """

    def test_connects_at_once(self) -> None:
        """
        The first attempt is made at the start, without looking up an address.
        """
        self.connector.servers["10.0.0.1"] = "one"
        route = self.only(self.connector.start("10.0.0.1"))
        self.assertEqual((self.connector.dials, route.state, route.problem), (["10.0.0.1"], CONNECTED, None))
        self.assertEqual(self.connector.names.asked, 0)

    def test_keeps_trying(self) -> None:
        """
        It is tried for as long as it takes, never later than the greatest wait, and the reason is known meanwhile.
        """
        route = self.only(self.connector.start("10.0.0.1"))
        self.assertEqual((route.state, route.problem), (WAITING, "connection refused"))
        self.pass_time(1.0)
        self.assertEqual(len(self.connector.dials), 2)
        self.pass_time(3600)
        self.assertGreaterEqual(len(self.connector.dials), 3600 / MAX_WAIT)
        self.connector.servers["10.0.0.1"] = "one"
        self.pass_time(MAX_WAIT)
        self.assertEqual(route.state, CONNECTED)

    def test_said_once(self) -> None:
        """
        A reason that stays the same is a warning once, not at each attempt.
        """
        observer = EventLoggingObserver()
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.connector.start("10.0.0.1")
        self.pass_time(60)
        warnings = [event for event in observer if event["log_level"].name == "warn"]
        self.assertEqual([event["error"] for event in warnings], ["connection refused"])

    def test_lost(self) -> None:
        """
        After a link is lost, it is tried within a second, and the first failure does not make it slow.
        """
        self.connector.servers["10.0.0.1"] = "one"
        route = self.only(self.connector.start("10.0.0.1"))
        self.pass_time(STABLE_AFTER)
        del self.connector.servers["10.0.0.1"]
        self.lose(route, "no sign of life for 15 s")
        self.assertEqual((route.state, route.problem), (CONNECTING, "no sign of life for 15 s"))
        self.pass_time(1.0)
        self.assertEqual(len(self.connector.dials), 2)
        self.pass_time(1.0)
        self.assertEqual(len(self.connector.dials), 3)

    def test_crash_loop(self) -> None:
        """
        A server that takes links and drops them at once is tried more and more seldom.
        """
        self.connector.servers["10.0.0.1"] = "one"
        route = self.only(self.connector.start("10.0.0.1"))
        for _ in range(100):
            if route.state == CONNECTED:
                self.lose(route)
            self.clock.advance(0.25)
        self.assertLess(len(self.connector.dials), 12)

    def test_server_leaves(self) -> None:
        """
        A server that says go away is tried anew at once, while the old link goes on.
        """
        self.connector.servers["10.0.0.1"] = "one"
        route = self.only(self.connector.start("10.0.0.1"))
        old = route.link
        assert old is not None
        old.spend("go-away", "the server is about to stop")
        self.connector.servers["10.0.0.1"] = "two"
        self.pass_time(1.0)
        self.assertEqual(route.state, CONNECTED)
        self.assertIsNot(route.link, old)
        self.assertFalse(old.lost.happened)

    def test_refusal(self) -> None:
        """
        A server that refuses is asked more seldom, and not before it wants to be.
        """
        self.connector.error = lambda: LinkError("no", word="rejected", answered=True)
        self.connector.start("10.0.0.1")
        self.pass_time(600)
        self.assertLess(len(self.connector.dials), 50)
        before = len(self.connector.dials)
        self.connector.error = lambda: LinkError("full", word="rejected", answered=True, retry_after=7.0)
        self.pass_time(15)
        self.assertEqual(len(self.connector.dials), before + 1)
        self.pass_time(6.5)
        self.assertEqual(len(self.connector.dials), before + 1)

    def test_mistake_of_ours(self) -> None:
        """
        An error that nobody thought of is logged, and trying goes on.
        """
        self.connector.error = lambda: ZeroDivisionError("ours")
        route = self.only(self.connector.start("10.0.0.1"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.connector.servers["10.0.0.1"] = "one"
        self.pass_time(MAX_WAIT)
        self.assertEqual(route.state, CONNECTED)

    def test_hurry(self) -> None:
        """
        What is waited for can be begun at once.
        """
        name = self.connector.start("10.0.0.1")
        self.pass_time(20)
        self.connector.servers["10.0.0.1"] = "one"
        name.hurry()
        self.assertEqual(self.only(name).state, CONNECTED)
        name.hurry()
        self.assertEqual(self.only(name).state, CONNECTED)

    def test_stop(self) -> None:
        """
        Nothing is tried after the stop, and no timer is left.
        """
        for host in ("10.0.0.1", "tunnel.test"):
            self.connector.names.known["tunnel.test"] = ("10.0.0.2",)
            self.connector.start(host)
        for name in self.connector.names_known:
            name.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_metrics(self) -> None:
        """
        Links made, ended and failed are counted by reason.
        """
        self.connector.servers["10.0.0.1"] = "one"
        route = self.only(self.connector.start("10.0.0.1"))
        del self.connector.servers["10.0.0.1"]
        self.lose(route, "no sign of life for 15 s")
        self.pass_time(1.0)
        text = generate_latest(self.connector.registry).decode()
        self.assertIn("yurttunnel_agent_connects_total 1.0\n", text)
        self.assertIn('yurttunnel_agent_disconnects_total{reason="silent"} 1.0\n', text)
        self.assertIn('yurttunnel_agent_connect_failures_total{reason="refused"} 1.0\n', text)


class NameTests(RouteCase):
    """
    Tests of names.
    """

    def test_all_addresses(self) -> None:
        """
        Every address of a name is connected to, as many as there may sensibly be.
        """
        many = tuple(f"10.0.0.{number}" for number in range(MAX_ADDRESSES + 3))
        self.connector.names.known["tunnel.test"] = many
        self.connector.servers = {address: address for address in many}
        self.connector.start("tunnel.test")
        self.assertEqual([route.state for route in self.connector.routes()], [CONNECTED] * MAX_ADDRESSES)

    def test_anew_at_each_attempt(self) -> None:
        """
        A server that moved is found by its name: the old address is dropped, the new one dialled.
        """
        self.connector.names.known["tunnel.test"] = ("10.0.0.1",)
        name = self.connector.start("tunnel.test")
        self.pass_time(8)
        self.connector.names.known["tunnel.test"] = ("10.0.0.2",)
        self.connector.servers["10.0.0.2"] = "one"
        self.pass_time(MAX_WAIT)
        self.assertEqual([route.address for route in self.connector.routes()], ["10.0.0.2"])
        self.assertEqual(self.only(name).state, CONNECTED)

    def test_new_address(self) -> None:
        """
        An address that a name gets while all is well is connected to soon; one that it loses is used until its link ends.
        """
        self.connector.names.known["tunnel.test"] = ("10.0.0.1",)
        self.connector.servers = {"10.0.0.1": "one", "10.0.0.2": "two"}
        name = self.connector.start("tunnel.test")
        self.connector.names.known["tunnel.test"] = ("10.0.0.2",)
        self.pass_time(LOOK_UP_INTERVAL)
        self.assertEqual([route.state for route in self.connector.routes()], [CONNECTED, CONNECTED])
        self.lose(name.routes["10.0.0.1"])
        self.pass_time(1.0)
        self.assertEqual(list(name.routes), ["10.0.0.2"])

    def test_unknown(self) -> None:
        """
        A name that is unknown is looked up again and again, and the reason is known meanwhile.
        """
        name = self.connector.start("tunnel.test")
        self.assertEqual(name.problem, "tunnel.test:10262: the name is unknown")
        self.pass_time(20)
        self.connector.names.known["tunnel.test"] = ("10.0.0.1",)
        self.connector.servers["10.0.0.1"] = "one"
        self.pass_time(MAX_WAIT)
        self.assertEqual((self.only(name).state, name.problem), (CONNECTED, None))


class RenewalTests(RouteCase):
    """
    Tests of links whose certificates come to their end.
    """

    def setUp(self) -> None:
        super().setUp()
        self.connector.servers["10.0.0.1"] = "one"
        self.connector.valid_until = 10_000
        self.route = self.only(self.connector.start("10.0.0.1"))

    def link(self) -> Link:
        """
        The route's.
        """
        assert self.route.link is not None
        return self.route.link

    def test_in_time(self) -> None:
        """
        Before a certificate expires another link, with the one that follows it, takes over without a gap.
        """
        first = self.link()
        self.pass_time(8900, step=LOOK)
        self.assertEqual((self.link(), self.connector.outlasted), (first, []))
        self.connector.valid_until = 30_000
        self.pass_time(200, step=LOOK)
        self.assertIsNot(self.link(), first)
        self.assertEqual((self.route.state, self.connector.outlasted, first.word), (CONNECTED, [first], "renewed"))
        self.pass_time(15_000, step=LOOK)
        self.assertEqual((len(self.connector.dials), self.connector.ended), (2, []))

    def test_not_renewed(self) -> None:
        """
        Without a newer certificate it is tried a few times; when it has expired the link is given up.
        """
        self.pass_time(9990, step=LOOK)
        self.assertEqual(self.route.state, CONNECTED)
        self.assertTrue(2 < len(self.connector.dials) < 8, self.connector.dials)
        last = self.link()
        del self.connector.servers["10.0.0.1"]
        self.pass_time(20, step=LOOK)
        self.assertEqual((last.word, self.connector.ended), ("expired", [last]))
        self.assertIn("certificate", last.why)
        self.pass_time(MAX_WAIT)
        self.assertEqual(self.route.state, WAITING)

    def test_other_address(self) -> None:
        """
        When this host has lost the address that a link goes out from another one is made, as soon as that can be, and the older
        one goes on as long as it can.
        """
        first = self.link()
        self.connector.own, servers = frozenset({"10.0.0.9"}), self.connector.servers
        self.connector.servers = {}
        self.pass_time(2 * LOOK, step=LOOK)
        self.assertEqual((self.link(), len(self.connector.dials)), (first, 2))
        self.connector.servers = servers
        self.pass_time(LOOK)
        self.assertIsNot(self.link(), first)
        self.assertEqual((self.route.state, self.connector.outlasted, first.word), (CONNECTED, [first], "renewed"))
        self.pass_time(10 * LOOK, step=LOOK)
        self.assertEqual(len(self.connector.dials), 3)

    def test_address_for_a_moment(self) -> None:
        """
        An address that is gone at one look only, and one that the kernel never lists, are no reason.
        """
        for address in ("10.0.0.9", "10.0.0.8") * 3:
            self.connector.own = frozenset({address})
            self.pass_time(LOOK)
        self.connector.own = frozenset()  # the kernel does not tell
        self.pass_time(10 * LOOK, step=LOOK)
        self.assertEqual(len(self.connector.dials), 1)
        self.connector.own = frozenset({"10.0.0.9"})
        self.lose(self.route)
        self.pass_time(10 * LOOK, step=LOOK)
        self.assertEqual((self.route.state, len(self.connector.dials)), (CONNECTED, 2))

    def test_server_away(self) -> None:
        """
        When no other link can be made the one that there is goes on.
        """
        first = self.link()
        del self.connector.servers["10.0.0.1"]
        self.pass_time(9500, step=LOOK)
        self.assertEqual((self.link(), self.route.state, self.connector.outlasted), (first, CONNECTED, []))
        self.assertTrue(len(self.connector.dials) > 1)

    def test_lost(self) -> None:
        """
        A link that is lost meanwhile is followed by another one, as always.
        """
        self.lose(self.route)
        self.pass_time(MAX_WAIT)
        self.assertEqual((self.route.state, len(self.connector.dials)), (CONNECTED, 2))


class SameServerTests(RouteCase):
    """
    Tests of a server that is reached by several addresses.
    """

    def setUp(self) -> None:
        super().setUp()
        self.connector.names.known["tunnel.test"] = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
        self.connector.servers = {address: "one" for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3")}
        self.name = self.connector.start("tunnel.test")

    def states(self) -> list[str]:
        """
        Of the three addresses.
        """
        return [route.state for route in self.name.routes.values()]

    def connected(self) -> Route:
        """
        The one that is connected.
        """
        (route,) = (route for route in self.name.routes.values() if route.state == CONNECTED)
        return route

    def test_one_link(self) -> None:
        """
        One link is kept, the newest; the older ones may let their streams end, and nothing is dialled any more.
        """
        self.assertEqual(sorted(self.states()), [CONNECTED, COVERED, COVERED])
        self.assertEqual(len(self.connector.ended), 2)
        self.assertNotIn(self.connected().link, self.connector.ended)
        self.pass_time(600)
        self.assertEqual(len(self.connector.dials), 3)

    def test_returns(self) -> None:
        """
        When it is lost its own address is tried first, and the others rest if that works.
        """
        self.connector.servers = {address: "two" for address in self.connector.servers}
        route = self.connected()
        self.lose(route)
        self.pass_time(60)
        self.assertEqual((self.connected(), len(self.connector.dials)), (route, 4))

    def test_other_addresses(self) -> None:
        """
        When that fails the others are tried, and again one link remains.
        """
        route = self.connected()
        del self.connector.servers[route.address]
        self.lose(route)
        self.pass_time(10)
        self.assertEqual(sorted(self.states()), [CONNECTED, COVERED, WAITING])
        self.connector.servers[route.address] = "one"
        self.pass_time(10)
        self.assertEqual(sorted(self.states()), [CONNECTED, COVERED, COVERED])

    def test_many_times(self) -> None:
        """
        However often addresses fail and return, one link remains and the addresses at rest follow it.
        """
        for turn in range(60):
            address = f"10.0.0.{turn % 3 + 1}"
            route = self.name.routes[address]
            self.connector.servers.pop(address, None)
            if route.state == CONNECTED:
                self.lose(route)
            self.pass_time(12)
            self.assertEqual(self.states().count(CONNECTED), 1, turn)
            self.connector.servers[address] = "one"
            self.pass_time(12)
            self.assertEqual(sorted(self.states()), [CONNECTED, COVERED, COVERED], turn)
        self.connector.servers.clear()
        self.lose(self.connected())
        self.pass_time(12)
        self.assertEqual(self.states(), [WAITING] * 3)

    def test_different_servers(self) -> None:
        """
        Different servers keep a link each.
        """
        self.connector.servers |= {"10.0.0.8": "eight", "10.0.0.9": "nine"}
        self.connector.start("10.0.0.8")
        self.connector.start("10.0.0.9")
        self.assertEqual([route.state for route in self.connector.routes()][3:], [CONNECTED, CONNECTED])
        self.assertEqual(sorted(self.states()), [CONNECTED, COVERED, COVERED])
