"""
Watches and reads while one of two servers is killed, frozen, stopped or slow: they go on at the other one.
"""

from __future__ import annotations

from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import (
    JSON,
    MAPS,
    NODE,
    HandExchange,
    HandUpstream,
    MemoryRequest,
    MemorySite,
    config_map,
    error_event,
    event,
)
from yurt.http.interfaces import Headers
from yurt.hub.health import MAX_UNSERVED

IN_TIME = 1.0
"""Seconds within which watches go on."""
WATCHES = 20
POD_LOG = "/api/v1/namespaces/default/pods/a/log"


class FailoverCase(SynchronousTestCase):
    """
    Two servers, and what waits at each.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self, servers=2)
        self.site.online()
        self.site.run(3.0)
        self.first, self.second = self.site.upstreams
        self.accepted: set[HandExchange] = set()

    def at(self, upstream: HandUpstream, path: str = MAPS) -> list[HandExchange]:
        """
        The requests for a path that wait at one server.
        """
        return [one for one in upstream.open if one.path == path]

    def watch(self, version: int = 10, query: str = "") -> MemoryRequest:
        """
        One more watch, which its server accepts.
        """
        before = self.at(self.first) + self.at(self.second)
        request = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion={version}{query}")
        (exchange,) = set(self.at(self.first) + self.at(self.second)) - set(before)
        self.accept(exchange.upstream)
        return request

    def accept(self, upstream: HandUpstream) -> None:
        """
        A server accepts the watches that wait for that.
        """
        for exchange in self.at(upstream):
            if exchange not in self.accepted:
                self.accepted.add(exchange)
                exchange.begin()

    def watches(self, count: int = WATCHES) -> list[MemoryRequest]:
        """
        Watches, spread over both servers.
        """
        requests = [self.watch() for _ in range(count)]
        self.assertEqual({len(self.at(self.first)), len(self.at(self.second))}, {count // 2})
        return requests

    def kill(self, upstream: HandUpstream) -> None:
        upstream.alive = False
        upstream.close_connections("connection reset")

    def assert_told(self, requests: list[MemoryRequest], *versions: int) -> None:
        """
        Each client was told these versions, each once and in order, and its response goes on.
        """
        for request in requests:
            self.assertEqual([version for _, version in request.told], [str(version) for version in versions])
            self.assertFalse(request.finished or request.aborted)

    def tell(self, upstream: HandUpstream, version: int) -> None:
        """
        All watches at a server get an event.
        """
        for exchange in self.at(upstream):
            exchange.send(event("MODIFIED", config_map("a", version)))

    def assert_all_go_on(self, requests: list[MemoryRequest], upstream: HandUpstream, version: int) -> None:
        """
        Within time all watches are at ``upstream``, from ``version`` on, and hear of what comes next.
        """
        began = self.site.clock.seconds()
        self.site.run_until(lambda: len(self.at(upstream)) == len(requests), IN_TIME)
        self.assertLess(self.site.clock.seconds() - began, IN_TIME)
        for exchange in self.at(upstream):
            self.assertIn(exchange.query["resourceVersion"], ("10", str(version)))


class KilledTests(FailoverCase):
    """
    Connections break, or are refused.
    """

    def test_killed(self) -> None:
        """
        The watches of a killed server go on at the other one within a second, each at the version it had reached.
        """
        requests = self.watches()
        self.tell(self.first, 11)
        self.tell(self.second, 11)
        self.kill(self.first)
        self.assert_all_go_on(requests, self.second, 11)
        self.accept(self.second)
        self.tell(self.second, 12)
        self.assert_told(requests, 11, 12)

    def test_killed_and_back(self) -> None:
        """
        The other one dies, too, a while after the first is back: nothing is lost or told twice.
        """
        requests = self.watches()
        self.kill(self.first)
        self.site.run(1.0)
        self.first.alive = True
        self.site.run(10.0)
        self.accept(self.second)
        self.tell(self.second, 11)
        self.kill(self.second)
        self.assert_all_go_on(requests, self.first, 11)
        self.accept(self.first)
        self.tell(self.first, 12)
        self.assert_told(requests, 11, 12)

    def test_stopped_in_good_order(self) -> None:
        """
        A server that stops ends its watches in good order, and then refuses: they go on in time.
        """
        requests = self.watches()
        self.tell(self.first, 11)
        ending = self.at(self.first)
        self.first.alive = False
        for exchange in ending:
            exchange.end()
        self.assert_all_go_on(requests, self.second, 11)

    def test_one_server(self) -> None:
        """
        With a single server there is none to go to: a watch that broke off is not tried at a high rate.
        """
        site = MemorySite(self)
        site.online()
        site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10")
        site.arriving(MAPS).begin()
        for _ in range(100):
            for exchange in site.at_cloud(MAPS):
                exchange.fail()
            site.run(0.1)
        self.assertLess(len(site.upstream.seen), 8)

    def test_both_break(self) -> None:
        """
        Servers that accept a watch and break it off at once are not asked in turn at a high rate.
        """
        self.watch()

        def break_off(exchange: HandExchange) -> None:
            exchange.begin()
            exchange.fail()

        for one in self.site.upstreams:
            one.on_request = break_off
            for exchange in self.at(one):
                exchange.fail()
        self.site.run(30.0)
        self.assertLess(len(self.first.seen) + len(self.second.seen), 40)

    def test_both_refuse(self) -> None:
        """
        Nor are servers that answer a resumed watch with an error, or with an ERROR event.
        """

        def refuse(exchange: HandExchange) -> None:
            exchange.answer(500, b"{}")

        def tell_error(exchange: HandExchange) -> None:
            exchange.begin()
            exchange.send(error_event(500, "InternalError"))

        for answer in (refuse, tell_error):
            site = MemorySite(self, servers=2)
            site.online()
            request = site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10")
            site.arriving(MAPS).begin()
            for one in site.upstreams:
                one.on_request = answer
                one.seen.clear()
            for exchange in site.at_cloud(MAPS):
                exchange.fail()
            site.run(30.0)
            self.assertLess(sum(len(one.seen) for one in site.upstreams), 40)
            self.assertFalse(request.finished or request.aborted)

    def test_new_watch(self) -> None:
        """
        A new watch that one server answers with an error of its own begins at the other one; what both answer its client gets.
        """
        for status in (500, 503):
            request = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10", agent="stranger", token="t")
            refusing = self.site.arriving(MAPS)
            refusing.answer(status, b'{"kind":"Status"}')
            other = self.site.arriving(MAPS)
            self.assertIsNot(other.upstream, refusing.upstream)
            other.answer(status, b'{"kind":"Status","code":%d}' % status)
            self.assertEqual((request.status, request.json["code"]), (status, status))


class FrozenTests(FailoverCase):
    """
    Connections stay, and nothing comes.
    """

    def test_frozen(self) -> None:
        """
        The watches of a frozen server go on at the other one within a second; what the frozen one says later is not heard.
        """
        requests = self.watches()
        left = self.at(self.first)
        self.first.frozen = True
        self.assert_all_go_on(requests, self.second, 10)
        for exchange in left:
            self.assertTrue(exchange.cancelled)
            exchange.send(event("MODIFIED", config_map("a", 11)))
        self.first.frozen = False
        self.accept(self.second)
        self.tell(self.second, 11)
        self.assert_told(requests, 11)

    def test_frozen_while_resuming(self) -> None:
        """
        The server to which watches go on may be frozen, too, and the first be back: they return in time.
        """
        requests = self.watches()
        self.kill(self.first)
        self.site.run(0.5)
        self.accept(self.second)
        self.first.alive = True
        self.site.run(8.0)
        self.second.frozen = True
        self.assert_all_go_on(requests, self.first, 10)

    def test_silent_link(self) -> None:
        """
        When both are silent at once the watches stay where they are until the cloud is known to be gone, and go on when it is
        back.
        """
        requests = self.watches()
        for one in self.site.upstreams:
            one.frozen = True
        seen = [len(one.seen) for one in self.site.upstreams]
        self.site.run_until(lambda: not self.site.cloud.reachable, 5.0)
        self.assertEqual([len(one.seen) for one in self.site.upstreams], seen)
        for one in self.site.upstreams:
            one.frozen = False
        self.site.run_until(lambda: len(self.at(self.first)) + len(self.at(self.second)) == len(requests), 5.0)
        self.assert_told(requests)

    def test_half_a_state(self) -> None:
        """
        A watch that has got half of the state it begins with is not taken away from a server that only may be dead.
        """
        request = self.watch(0)
        (exchange,) = self.at(self.first) + self.at(self.second)
        exchange.upstream.frozen = True
        self.site.run(0.1)
        exchange.send(event("ADDED", config_map("a", 5)))
        self.site.run(0.7)
        self.assertFalse(request.aborted)
        self.assertTrue(exchange.is_open)

    def test_new_watch(self) -> None:
        """
        A watch that waits for a frozen server's first word begins at the other one.
        """
        self.first.frozen = self.second.frozen = True
        request = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10")
        (waiting,) = self.at(self.first) + self.at(self.second)
        (other,) = (one for one in self.site.upstreams if one is not waiting.upstream)
        other.frozen = False
        self.site.run_until(lambda: self.at(other), IN_TIME)
        self.at(other)[0].begin()
        self.assertEqual((request.status, waiting.cancelled), (200, True))

    def test_reads(self) -> None:
        """
        A read that waits for a frozen server is asked of the other one as soon as watches go there; a write is not.
        """
        self.watches()
        self.first.frozen = True
        reads = [self.site.ask("GET", path, agent=agent) for path, agent in ((f"{MAPS}/a", "kubelet"), ("/version", "curl"))]
        reads += [self.site.ask("GET", path, agent=agent) for path, agent in ((f"{MAPS}/a", "kubelet"), ("/version", "curl"))]
        writes = [self.site.ask("POST", MAPS, config_map("new", 0), agent="kubectl") for _ in range(2)]
        waiting = [one for one in self.first.open if one.path in (f"{MAPS}/a", "/version")]
        self.assertTrue(waiting)
        self.site.run_until(lambda: all(one.cancelled for one in waiting), IN_TIME)
        for exchange in [one for one in self.second.open if one.path in (f"{MAPS}/a", "/version")]:
            exchange.answer(200, config_map("a", 11))
        self.assertEqual([(one.status, one.header("x-yurt-source")) for one in reads], [(200, "cloud")] * 4)
        self.assertEqual([one.status for one in writes], [0, 0])
        self.assertEqual(len([one for one in self.second.open if one.head.method == b"POST"]), 1)

    def test_reads_without_watches(self) -> None:
        """
        Without any watch a frozen server is found out by the reads themselves: each is answered, within 2 s.
        """
        self.first.frozen = True
        reads = [self.site.ask("GET", "/version", agent="curl") for _ in range(6)]
        self.second.on_request = lambda exchange: exchange.answer(200, b"{}")
        for exchange in self.second.open[:]:
            if exchange.path == "/version":
                exchange.answer(200, b"{}")
        self.site.run_until(lambda: all(one.finished for one in reads), 2.0)
        self.assertEqual({one.status for one in reads}, {200})

    def test_slow_for_a_moment(self) -> None:
        """
        Writes under way at a server that is silent for half a second only are not disturbed.
        """
        self.watches()
        self.first.frozen = True
        writes = [self.site.ask("POST", MAPS, config_map("new", 0), agent="kubectl") for _ in range(2)]
        self.site.run(0.5)
        self.first.frozen = False
        for upstream in self.site.upstreams:
            for exchange in upstream.open[:]:
                if exchange.path == "/readyz":
                    exchange.answer(200, b"ok")
                elif exchange.head.method == b"POST":
                    exchange.answer(201, config_map("new", 12))
        self.site.run(3.0)
        self.assertEqual([one.status for one in writes], [201, 201])
        self.assertTrue(all(server.healthy for server in self.site.cloud.servers))

    def test_not_wanted(self) -> None:
        """
        With ``--watch-failover=0`` no pulse is sent.
        """
        site = MemorySite(self, servers=2, watch_failover=0.0)
        site.online()
        site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10")
        site.run(30.0)
        self.assertEqual([one.pulses for one in site.upstreams], [0, 0])

    def test_pulses_end(self) -> None:
        """
        Pulses go to a server as long as a watch is there, and no longer.
        """
        request = self.watch()
        self.site.run(5.0)
        sent = self.first.pulses + self.second.pulses
        self.assertTrue(5 <= sent <= 17, sent)
        request.hang_up()
        self.site.run(5.0)
        self.assertEqual(self.first.pulses + self.second.pulses, sent)


class ErrorTests(FailoverCase):
    """
    A server that answers with errors.
    """

    def test_read(self) -> None:
        """
        A read that one server answers with 500 is asked of the other one; what both say its client gets.
        """
        for target in (f"{MAPS}/a", "/version", POD_LOG):
            request = self.site.ask("GET", target, agent="curl")
            self.site.arriving(target).answer(500, b'{"kind":"Status","code":500}')
            self.site.arriving(target).answer(200, config_map("a", 7))
            self.assertEqual((request.status, request.header("x-yurt-source")), (200, "cloud"), target)
            request = self.site.ask("GET", target, agent="curl")
            for _ in range(2):
                self.site.arriving(target).answer(500, b'{"kind":"Status","code":500}')
            self.assertEqual((request.status, request.json["code"]), (500, 500))

    def test_write(self) -> None:
        """
        A write is not repeated after a 500.
        """
        request = self.site.ask("POST", MAPS, config_map("new", 0), agent="kubectl")
        self.site.arriving(MAPS).answer(500, b'{"kind":"Status"}')
        self.assertEqual(request.status, 500)

    def test_ejected(self) -> None:
        """
        A server that answers a read with 500, and whose readiness fails, gets no more requests.
        """
        for path in ("/version", "/version"):
            self.site.ask("GET", path, agent="curl")
            exchange = self.site.arriving(path)
            if exchange.upstream is self.first:
                self.first.alive = False
                exchange.answer(500, b"{}")
                break
            exchange.answer(200, b"{}")
        self.site.run(0.1)
        self.assertFalse(self.site.cloud.servers[0].healthy)
        self.assertEqual({self.site.cloud.pick() for _ in range(4)}, {self.site.cloud.servers[1]})


class UnservedTests(FailoverCase):
    """
    A load balancer that answers for an API server, and has none behind it.
    """

    HTML: ClassVar = [(b"Content-Type", b"text/html")]

    def post(self, upstream: HandUpstream, status: int, headers: Headers, path: str = MAPS) -> None:
        """
        One more write, until one arrives at that server; others are answered well, and one under suspicion is spared at first.
        """
        for _ in range(4):
            self.site.ask("POST", path, config_map("new", 0), agent="kubectl")
            exchange = self.site.arriving(path)
            is_there = exchange.upstream is upstream
            exchange.answer(status if is_there else 201, b"<html>", headers)
            self.site.run(0.1)
            if is_there:
                return
        self.fail("the server gets no more writes")

    def gets_turns(self, upstream: HandUpstream) -> bool:
        """
        Whether the server gets any of the next requests.
        """
        return upstream.name in {server.name for server in (self.site.cloud.pick() for _ in range(4)) if server}

    def test_loses_its_turn(self) -> None:
        """
        After three such answers in a row to writes others have its turns; it is tried again after a while, and waits the longer
        the less that helps.
        """
        for _ in range(MAX_UNSERVED):
            self.assertTrue(self.gets_turns(self.first))
            self.post(self.first, 503, self.HTML)
        self.assertFalse(self.gets_turns(self.first))
        self.assertTrue(self.site.cloud.servers[0].healthy)
        waits = []
        for _ in range(3):
            began = self.site.clock.seconds()
            self.site.run_until(lambda: self.gets_turns(self.first))
            waits.append(self.site.clock.seconds() - began)
            for _ in range(MAX_UNSERVED):
                self.post(self.first, 502, self.HTML)
        self.assertTrue(waits[0] < waits[1] < waits[2], waits)

    def test_watches_leave(self) -> None:
        """
        The watches at such a server would hear no more: they go on at the other one, and the status page says why.
        """
        requests = self.watches(2)
        for _ in range(MAX_UNSERVED):
            self.assertEqual(len(self.at(self.first)), 1)
            self.post(self.first, 503, self.HTML, "/api/v1/namespaces/default/secrets")
        self.site.run_until(lambda: len(self.at(self.second)) == 2, IN_TIME)
        self.assertEqual(self.at(self.first), [])
        self.accept(self.second)
        self.tell(self.second, 11)
        self.assert_told(requests, 11)
        doubts = [self.site.cloud.doubt(server) for server in self.site.cloud.servers]
        self.assertIn("on probation", doubts[0])
        self.assertEqual(doubts[1], "")

    def test_in_a_row(self) -> None:
        """
        An answer of an API server between them, be it an error, shows that there is one; so does a 503 of its own.
        """
        own = [*self.HTML, (b"Audit-Id", b"1")]
        for status, headers in ((500, self.HTML), (404, JSON)):
            for _ in range(MAX_UNSERVED):
                self.post(self.first, 503, self.HTML)
                self.post(self.first, status, headers)
        for _ in range(MAX_UNSERVED + 1):
            self.post(self.first, 503, JSON)
            self.post(self.first, 503, own)
        self.assertTrue(self.gets_turns(self.first))

    def test_renewals(self) -> None:
        """
        A node that writes nothing but its Lease does not lose it to such a server, though that be the first of a priority.
        """
        site = MemorySite(self, servers=2, lb_mode="priority")
        first, second = site.upstreams
        renewed: list[HandExchange] = []
        first.on_request = lambda exchange: exchange.answer(503, b"<html>", self.HTML)
        second.on_request = renewed.append
        site.online()
        site.run(10)
        metadata = {"name": NODE, "namespace": "kube-node-lease"}
        lease = {"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": metadata, "spec": {}}
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        site.fetch("POST", path, lease)
        site.run_until(lambda: renewed, seconds=10)

    def test_both(self) -> None:
        """
        Where there is no other, it is asked as before.
        """
        for _ in range(2 * MAX_UNSERVED):
            for upstream in (self.first, self.second):
                if self.gets_turns(upstream):
                    self.post(upstream, 503, self.HTML)
        self.assertTrue(self.gets_turns(self.first) and self.gets_turns(self.second))


class RestartTests(FailoverCase):
    """
    What is on disk.
    """

    def test_good_servers(self) -> None:
        """
        A server that was away when the hub ended is on probation after the next start, the other one is used at once.
        """
        self.kill(self.first)
        for server in self.site.cloud.servers[:1]:
            self.site.cloud.failed(server, "connection refused")
        self.site.run(3.0)
        self.first.alive = True
        self.site.reboot()
        self.site.online()
        self.site.run(2.0)
        self.assertTrue(self.site.cloud.servers[0].healthy)
        self.assertEqual({self.site.cloud.pick() for _ in range(4)}, {self.site.cloud.servers[1]})
