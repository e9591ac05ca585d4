"""
Tests of watches that outlive the connections behind them, on a clock.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import (
    MAPS,
    HandExchange,
    MemorySite,
    bookmark,
    config_map,
    error_event,
    event,
    open_watch,
)
from yurt.hub.attachment import REFUSAL_TIMEOUT
from yurt.hub.attempt import ANEW_AFTER
from yurt.hub.deadline import TIMEOUT_SLACK
from yurt.hub.deafness import LOOK_EVERY, QUIET_LOOKS
from yurt.hub.holding import BOOKMARK_INTERVAL
from yurt.hub.resumption import REFUSED_FOR
from yurt.kube.protobuf import MAGIC, encode_bytes
from yurt.kube.watch import ProtobufFramer, read_protobuf_event


class HoldTests(SynchronousTestCase):
    """
    Tests of the end of an upstream response, and what comes after.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()

    def test_passes_events_on(self) -> None:
        """
        Events reach the client as they came, under the head of the cloud's answer.
        """
        request, exchange = open_watch(self.site)
        line = event("ADDED", config_map("a", 11))
        exchange.send(line)
        self.assertEqual((request.status, request.header("x-yurt-source"), request.data), (200, "cloud", line))

    def test_resumes_after_each_kind_of_end(self) -> None:
        """
        A reset, an early end in good order and an error event that is not 410 leave the response open; the watch goes on at
        the last version.
        """
        request, exchange = open_watch(self.site)
        ends = [HandExchange.fail, HandExchange.end, lambda one: one.send(error_event(500, "InternalError"))]
        for version, end in enumerate(ends, 11):
            exchange.send(event("MODIFIED", config_map("a", version)))
            end(exchange)
            exchange = self.site.arriving(MAPS)
            self.assertEqual(exchange.query["resourceVersion"], str(version))
            exchange.begin()
        self.assertEqual(request.told, [("MODIFIED", "11"), ("MODIFIED", "12"), ("MODIFIED", "13")])
        self.assertFalse(request.finished or request.aborted)

    def test_part_of_an_event_is_not_passed_on(self) -> None:
        """
        What broke off in the middle of an event comes once, whole.
        """
        request, exchange = open_watch(self.site)
        line = event("ADDED", config_map("a", 11))
        exchange.send(line[:30])
        exchange.fail()
        again = self.site.arriving(MAPS)
        self.assertEqual(again.query["resourceVersion"], "10")
        again.begin()
        again.send(line)
        self.assertEqual(request.data, line)

    def test_stays_open_without_the_cloud(self) -> None:
        """
        An hour without the cloud does not end a watch, and its return resumes it.
        """
        request, _ = open_watch(self.site)
        self.site.offline()
        self.site.run(3600)
        self.assertFalse(request.finished or request.aborted)
        self.assertEqual(request.data, b"")
        self.site.online()
        exchange = self.site.arriving(MAPS)
        exchange.begin()
        exchange.send(event("ADDED", config_map("a", 11)))
        self.assertEqual(request.told, [("ADDED", "11")])

    def test_bookmarks_move_the_point_of_resuming(self) -> None:
        """
        The hub asks for bookmarks, resumes at the last one, and does not bother a client with them that did not ask.
        """
        request, exchange = open_watch(self.site)
        self.assertEqual(exchange.query["allowWatchBookmarks"], "true")
        exchange.send(bookmark(90))
        exchange.fail()
        self.assertEqual(self.site.arriving(MAPS).query["resourceVersion"], "90")
        self.assertEqual(request.data, b"")

    def test_bookmarks_are_passed_on(self) -> None:
        """
        A client that asked for bookmarks gets them.
        """
        request, exchange = open_watch(self.site, "resourceVersion=10&allowWatchBookmarks=true")
        exchange.send(bookmark(90))
        self.assertEqual(request.told, [("BOOKMARK", "90")])

    def test_bookmarks_without_the_cloud(self) -> None:
        """
        While a watch is held, a client that asked for bookmarks gets one each minute; no other does.
        """
        request, exchange = open_watch(self.site, "resourceVersion=10&allowWatchBookmarks=true")
        silent, other = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10"), self.site.at_cloud(MAPS)[1]
        other.begin()
        for one in (exchange, other):
            one.send(event("ADDED", config_map("a", 11)))
        self.site.offline()
        self.site.run(2 * BOOKMARK_INTERVAL + 1)
        self.assertEqual(request.told, [("ADDED", "11"), ("BOOKMARK", "11"), ("BOOKMARK", "11")])
        self.assertEqual(request.events[1]["object"]["kind"], "ConfigMap")
        self.assertEqual(silent.told, [("ADDED", "11")])

    def test_bookmarks_of_a_quiet_watch(self) -> None:
        """
        A watch without any event before the cut knows from the list before it what it is about.
        """
        self.site.store_list(MAPS, [config_map("a", 3)], "10")
        request, _ = open_watch(self.site, "resourceVersion=10&allowWatchBookmarks=true")
        self.site.offline()
        self.site.run(BOOKMARK_INTERVAL + 1)
        self.assertEqual(request.told, [("BOOKMARK", "10")])
        self.assertEqual(request.events[0]["object"]["kind"], "ConfigMap")

    def test_no_bookmark_to_who_does_not_read(self) -> None:
        """
        Bookmarks do not pile up for a client that stopped reading.
        """
        request, exchange = open_watch(self.site, "resourceVersion=10&allowWatchBookmarks=true")
        exchange.send(event("ADDED", config_map("a", 11)))
        before = request.data
        request.stop_reading()
        self.assertTrue(exchange.paused)
        self.site.offline()
        self.site.run(5 * BOOKMARK_INTERVAL)
        self.assertEqual(request.data, before)

    def test_a_break_is_a_sign(self) -> None:
        """
        A watch that breaks off has its server probed at once.
        """
        _, exchange = open_watch(self.site)
        self.site.upstream.alive = False
        exchange.fail()
        self.site.run_until(lambda: not self.site.cloud.reachable, 1.0)

    def test_client_hangs_up(self) -> None:
        """
        A client that hangs up frees the connection to the cloud, attached or held.
        """
        request, exchange = open_watch(self.site)
        request.hang_up()
        self.assertTrue(exchange.cancelled)
        held, _ = open_watch(self.site)
        self.site.offline()
        held.hang_up()
        self.site.online()
        self.site.run(30)
        self.assertEqual(self.site.at_cloud(MAPS), [])
        self.assertEqual(len(self.site.hub.watches), 0)


class DeafTests(SynchronousTestCase):
    """
    A connection that stands and brings nothing any more, as a load balancer keeps it whose API server has lost its power.
    """

    ENOUGH = LOOK_EVERY * (QUIET_LOOKS + 2)

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()

    def test_goes_on(self) -> None:
        """
        Without the bookmarks that had come the watch goes on by another connection, from where it was; its client sees nothing.
        """
        request, exchange = open_watch(self.site)
        exchange.send(event("MODIFIED", config_map("a", 11)) + bookmark(12))
        self.site.run(self.ENOUGH)
        self.assertTrue(exchange.cancelled)
        again = self.site.arriving(MAPS)
        self.assertEqual(again.query["resourceVersion"], "12")
        again.begin()
        again.send(event("MODIFIED", config_map("a", 13)))
        self.assertEqual(request.told, [("MODIFIED", "11"), ("MODIFIED", "13")])
        self.assertEqual((request.finished, request.aborted, self.site.cloud.reachable), (False, False, True))

    def test_bookmarks(self) -> None:
        """
        With them it stays where it is.
        """
        _, exchange = open_watch(self.site)
        for version in range(12, 20):
            exchange.send(bookmark(version))
            self.site.run(LOOK_EVERY * (QUIET_LOOKS - 1))
        self.assertFalse(exchange.cancelled)

    def test_no_bookmarks(self) -> None:
        """
        Where there are none, as of an API server that sends none, silence tells nothing.
        """
        _, exchange = open_watch(self.site)
        exchange.send(event("MODIFIED", config_map("a", 11)))
        _, streaming = open_watch(self.site, "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")
        streaming.send(bookmark(12, end=True))
        self.site.run(2 * self.ENOUGH)
        self.assertEqual((exchange.cancelled, streaming.cancelled), (False, False))

    def test_no_answer(self) -> None:
        """
        A watch that is not even begun is asked for over a new connection, once; then it waits, as it would without the hub, and
        few probes are made meanwhile.
        """
        request = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10")
        deaf = self.site.arriving(MAPS)
        probes: list[object] = []
        self.patch(self.site.hub, "suspect", lambda server, reason: probes.append(reason))
        self.site.run(ANEW_AFTER + 1)
        self.assertTrue(deaf.cancelled)
        again = self.site.arriving(MAPS)
        self.assertEqual((deaf.fresh, again.fresh, again.query["resourceVersion"]), (False, True, "10"))
        self.site.run(100)
        self.assertLess(len(probes), 25)
        self.assertFalse(self.site.upstream.retired)
        again.begin()
        self.assertTrue(self.site.upstream.retired)
        again.send(event("MODIFIED", config_map("a", 11)))
        self.assertEqual(request.told, [("MODIFIED", "11")])

    def test_looks_end(self) -> None:
        """
        Where nobody watches nobody looks.
        """
        request, exchange = open_watch(self.site)
        exchange.send(bookmark(12))
        request.hang_up()
        self.site.run(2 * LOOK_EVERY)
        looks: list[object] = []
        self.patch(self.site.hub.deafness, "_look", lambda: looks.append(1))
        self.site.run(2 * LOOK_EVERY)
        self.assertEqual(looks, [])


class EndTests(SynchronousTestCase):
    """
    Tests of what does end a watch.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()

    def test_expired(self) -> None:
        """
        410 in answer to resuming, as a status or as an event, is the client's to know, and the end, if much has happened since.
        """
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410}
        for as_event in (False, True):
            request, exchange = open_watch(self.site)
            exchange.fail()
            again = self.site.arriving(MAPS)
            if as_event:
                again.begin()
                again.send(error_event(410, "Expired"))
            else:
                again.answer(410, status)
            self.site.arriving(MAPS).answer(410, status)
            (last,) = request.events
            self.assertEqual((last["type"], last["object"]["code"]), ("ERROR", 410))
            self.assertTrue(request.finished)

    def test_other_errors_are_tried_again(self) -> None:
        """
        Other errors in answer to resuming are not the end, however long they last, but for refusals.
        """
        request, exchange = open_watch(self.site)
        exchange.fail()
        for status in (500, 503, 429, 504, 403, 500, 401) * 2:
            self.site.arriving(MAPS).answer(status, {"kind": "Status", "code": status})
        again = self.site.arriving(MAPS)
        again.begin()
        again.send(event("ADDED", config_map("a", 11)))
        self.assertEqual(request.told, [("ADDED", "11")])

    def test_lasting_refusal(self) -> None:
        """
        A refusal that lasts ends the watch.
        """
        for status in (403, 400):
            request, exchange = open_watch(self.site)
            exchange.fail()
            self.site.upstream.on_request = lambda one, status=status: one.answer(status, {"kind": "Status", "code": status})
            self.site.run(REFUSED_FOR - 1)
            self.assertFalse(request.finished)
            self.site.run(30)
            self.assertTrue(request.finished)
            self.site.upstream.on_request = None

    def test_first_answer_is_passed_on(self) -> None:
        """
        An error that answers the first attempt is the client's, as it came.
        """
        request = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10")
        self.site.arriving(MAPS).answer(403, b'{"kind":"Status","code":403}')
        self.assertEqual((request.status, request.data, request.finished), (403, b'{"kind":"Status","code":403}', True))
        self.assertEqual(len(self.site.hub.watches), 0)

    def test_timeout_while_the_state_is_told(self) -> None:
        """
        The cloud ends a watch at its timeoutSeconds in good order, and so does the hub, however short the state was told before.
        """
        request, exchange = open_watch(self.site, "resourceVersion=0&timeoutSeconds=1")
        self.site.run(0.5)
        exchange.send(event("ADDED", config_map("a", 5)))
        self.site.run(0.5)
        exchange.end()
        self.assertEqual((request.finished, request.aborted), (True, False))

    def test_timeout_while_held(self) -> None:
        """
        timeoutSeconds ends a held watch in good order, to the second.
        """
        request, _ = open_watch(self.site, "resourceVersion=10&timeoutSeconds=100")
        self.site.run(20)
        self.site.offline()
        self.site.run(75)
        self.assertFalse(request.finished)
        self.site.run(6)
        self.assertTrue(request.finished)

    def test_timeout_while_attached(self) -> None:
        """
        The cloud gets the time that is left, and its end is the client's; if it does not come the hub ends the watch.
        """
        request, exchange = open_watch(self.site, "resourceVersion=10&timeoutSeconds=100")
        self.assertEqual(exchange.query["timeoutSeconds"], "100")
        self.site.run(40)
        exchange.fail()
        again = self.site.arriving(MAPS)
        again.begin()
        self.assertIn(again.query["timeoutSeconds"], ("58", "59", "60"))
        self.site.run(58)
        self.assertFalse(request.finished)
        again.end()
        self.assertTrue(request.finished)
        late, _ = open_watch(self.site, "resourceVersion=10&timeoutSeconds=10")
        self.site.run(10 + TIMEOUT_SLACK + 1)
        self.assertTrue(late.finished)

    def test_timeout_before_any_answer(self) -> None:
        """
        A cloud that lives, but does not answer before the client's time is over: 504.
        """
        request = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10&timeoutSeconds=2")
        self.site.run(2 + TIMEOUT_SLACK + 1)
        self.assertEqual((request.status, request.finished, request.json["reason"]), (504, True, "Timeout"))
        self.assertEqual(self.site.at_cloud(MAPS), [])

    def test_event_that_nobody_understands(self) -> None:
        """
        A line that is no event is passed on once, and what surrounds it too.
        """
        request, exchange = open_watch(self.site)
        lines = event("ADDED", config_map("a", 11)), b'{"type":5}\n', event("ADDED", config_map("b", 12))
        exchange.send(b"".join(lines))
        self.assertEqual(request.data, b"".join(lines))


class StartTests(SynchronousTestCase):
    """
    Tests of watches that begin without the cloud.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()
        self.site.store_list(MAPS, [config_map("a", 3), config_map("b", 7, labels={"app": "x"})], "10")
        self.site.offline()

    def resumed(self, version: str) -> HandExchange:
        """
        The watch goes on with the cloud, from that version.
        """
        self.site.online()
        exchange = self.site.arriving(MAPS)
        self.assertEqual(exchange.query.get("resourceVersion"), version)
        self.assertNotIn("sendInitialEvents", exchange.query)
        exchange.begin()
        return exchange

    def test_from_a_version(self) -> None:
        """
        A watch from a version on gets nothing until the cloud is back, and then all after that version.
        """
        request = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=8")
        self.assertEqual((request.status, request.header("x-yurt-source"), request.data), (200, "cache", b""))
        self.assertTrue(request.header("age").isdigit())
        self.assertTrue(request.header("warning").startswith("110 "))
        self.resumed("8").send(event("ADDED", config_map("c", 9)))
        self.assertEqual(request.told, [("ADDED", "9")])

    def test_from_the_present_state(self) -> None:
        """
        Without a version, or from 0, the state of the cache comes first; then what changed after it.
        """
        for version in ("", "&resourceVersion=", "&resourceVersion=0"):
            request = self.site.ask("GET", f"{MAPS}?watch=true{version}")
            self.assertEqual(request.told, [("ADDED", "3"), ("ADDED", "7")])
            self.assertEqual(request.events[0]["object"]["kind"], "ConfigMap")
            request.hang_up()
        request = self.site.ask("GET", f"{MAPS}?watch=true&labelSelector=app%3Dx")
        self.assertEqual(request.told, [("ADDED", "7")])
        self.resumed("10").send(event("DELETED", config_map("b", 12)))
        self.assertEqual(request.told, [("ADDED", "7"), ("DELETED", "12")])

    def test_initial_events(self) -> None:
        """
        sendInitialEvents brings the state and the bookmark that ends it, but for a client that wants no bookmarks.
        """
        query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        request = self.site.ask("GET", f"{MAPS}?{query}&allowWatchBookmarks=true")
        self.assertEqual(request.told, [("ADDED", "3"), ("ADDED", "7"), ("BOOKMARK", "10")])
        self.assertEqual(request.events[2]["object"]["metadata"]["annotations"], {"k8s.io/initial-events-end": "true"})
        self.resumed("10")
        self.site.offline()
        other = self.site.ask("GET", f"{MAPS}?{query}")
        self.assertEqual(other.told, [("ADDED", "3"), ("ADDED", "7")])

    def test_malformed(self) -> None:
        """
        What every API server refuses is refused without the cloud, too, by lists and watches; with it, the cloud says so.
        """
        self.site.online()
        self.site.store_list(MAPS, [config_map("a", 7)], "10")
        request = self.site.ask("GET", f"{MAPS}?watch=true&timeoutSeconds=abc&resourceVersion=10")
        exchange = self.site.arriving(MAPS)
        self.assertEqual(exchange.query["timeoutSeconds"], "abc")
        exchange.answer(400, b'{"kind":"Status","code":400}')
        self.assertEqual(request.status, 400)
        self.site.offline()
        for query, code in (
            ("timeoutSeconds=abc", 400),
            (f"timeoutSeconds={'9' * 5000}", 400),
            ("resourceVersion=abc", 400),
            ("resourceVersionMatch=Exact", 422),
            ("resourceVersionMatch=Exact&resourceVersion=0", 422),
        ):
            for verb in ("", "&watch=true"):
                reply = self.site.fetch("GET", f"{MAPS}?{query}{verb}")
                self.assertEqual((reply.status, reply.json["code"]), (code, code), query + verb)
        self.assertEqual(self.site.fetch("GET", f"{MAPS}?sendInitialEvents=true").status, 422)

    def test_from_now(self) -> None:
        """
        sendInitialEvents=false means no state, only what changes after the cache's.
        """
        request = self.site.ask("GET", f"{MAPS}?watch=true&sendInitialEvents=false&resourceVersionMatch=NotOlderThan")
        self.assertEqual((request.status, request.data), (200, b""))
        self.resumed("10")

    def test_never_seen(self) -> None:
        """
        What the cache never saw has no state to begin with: 503, with a reason; from a version on the watch waits.
        """
        request = self.site.ask("GET", "/api/v1/services?watch=true")
        self.assertEqual((request.status, request.json["reason"], request.finished), (503, "ServiceUnavailable", True))
        self.assertEqual((request.header("x-yurt-source"), request.header("retry-after")), ("hub", "1"))
        waiting = self.site.ask("GET", "/api/v1/services?watch=true&resourceVersion=4")
        self.assertEqual(waiting.status, 200)

    def test_bad_selector(self) -> None:
        """
        A selector that Kubernetes would refuse is refused, from whatever version on.
        """
        for query in ("labelSelector=a%3D%3D%3Db", "fieldSelector=bad", "labelSelector=a%3D%3D%3Db&resourceVersion=8"):
            request = self.site.ask("GET", f"{MAPS}?watch=true&{query}")
            self.assertEqual((request.status, request.finished), (400, True), query)
            self.assertEqual((request.json["reason"], request.header("x-yurt-source")), ("BadRequest", "hub"))
        self.assertEqual(len(self.site.hub.watches), 0)

    def test_by_path(self) -> None:
        """
        The old way to watch one object, by its name in the path, tells of that object only.
        """
        request = self.site.ask("GET", "/api/v1/watch/namespaces/default/configmaps/b")
        self.assertEqual([one["object"]["metadata"]["name"] for one in request.events], ["b"])
        every = self.site.ask("GET", "/api/v1/watch/namespaces/default/configmaps")
        self.assertEqual(len(every.events), 2)

    def test_another_form(self) -> None:
        """
        A client that likes Tables better, but takes objects, gets the objects that the cache has.
        """
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        request = self.site.ask("GET", f"{MAPS}?watch=true", accept=accept)
        self.assertEqual(request.told, [("ADDED", "3"), ("ADDED", "7")])

    def test_protobuf_only(self) -> None:
        """
        The cache has JSON only, and says so.
        """
        request = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10", accept="application/vnd.kubernetes.protobuf")
        self.assertEqual(request.status, 503)

    def test_begun_in_json_goes_on_in_json(self) -> None:
        """
        A watch of an uncached client that was begun in JSON asks the cloud for JSON when it is back.
        """
        accept = "application/vnd.kubernetes.protobuf,application/json"
        request = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10", agent="stranger", accept=accept)
        self.assertEqual(request.status, 200)
        exchange = self.resumed("10")
        self.assertEqual([value for name, value in exchange.head.headers if name.lower() == b"accept"], [b"application/json"])


class FailoverTests(SynchronousTestCase):
    """
    Tests of the first attempt, when it has no luck.
    """

    def test_load_balancer(self) -> None:
        """
        502, 503 and 504 in answer to a new watch are no answer: it is held, and tried again.
        """
        site = MemorySite(self)
        site.online()
        for status in (502, 503, 504):
            request = site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10")
            site.arriving(MAPS).answer(status, b"<html>")
            self.assertEqual((request.status, request.header("x-yurt-source")), (200, "cache"))
            again = site.arriving(MAPS)
            again.begin()
            again.send(event("ADDED", config_map("a", 11)))
            self.assertEqual(request.told, [("ADDED", "11")])
            request.hang_up()

    def test_refusal_without_end(self) -> None:
        """
        The body of a refusal that the client need not see does not hold it up, neither at the beginning nor later.
        """
        site = MemorySite(self)
        site.online()
        request = site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10")
        for _ in range(2):
            refusal = site.arriving(MAPS)
            refusal.begin(503)
            refusal.send(b"<html>")
            site.run(REFUSAL_TIMEOUT + 0.1)
            self.assertEqual((request.status, refusal.cancelled), (200, True))
        again = site.arriving(MAPS)
        again.begin()
        site.run(REFUSAL_TIMEOUT + 0.1)
        self.assertTrue(again.is_open)
        request.hang_up()

    def test_other_server(self) -> None:
        """
        A server that fails is not the end: the other one is asked, each once, then the watch is held.
        """
        site = MemorySite(self, servers=2)
        site.run(1)
        request = site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10")
        first = site.arriving(MAPS)
        first.fail("refused", sent=False)
        second = site.arriving(MAPS)
        self.assertIsNot(first.upstream, second.upstream)
        second.fail("refused", sent=False)
        self.assertEqual((request.status, request.header("x-yurt-source")), (200, "cache"))
        site.arriving(MAPS).begin()

    def test_silence(self) -> None:
        """
        A cloud that swallows the request is found out, and the watch begins without it, within 2 s.
        """
        site = MemorySite(self)
        site.online()
        request = site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10")
        site.arriving(MAPS)
        site.upstream.alive = False
        site.run(2)
        self.assertEqual((request.status, request.header("x-yurt-source")), (200, "cache"))


class ManyTests(SynchronousTestCase):
    """
    Tests of many watches at once.
    """

    def test_no_storm(self) -> None:
        """
        A hundred watches resume within seconds of the cloud's return, each at a moment of its own, each once, and none lists.
        """
        site = MemorySite(self)
        site.online()
        requests = [site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10", agent=f"agent-{index}") for index in range(100)]
        site.run(0.05)
        for exchange in site.at_cloud(MAPS):
            exchange.begin()
        site.offline()
        site.run(10)
        site.upstream.seen.clear()
        moments: list[float] = []

        def arrived(exchange: HandExchange) -> None:
            moments.append(site.clock.seconds())
            exchange.begin()

        site.upstream.on_request = arrived
        site.online()
        site.run(5)
        self.assertEqual(len(moments), 100)
        self.assertTrue(all("watch" in exchange.query for exchange in site.upstream.seen))
        self.assertLess(max(moments.count(moment) for moment in moments), 15)
        self.assertGreater(max(moments) - min(moments), 0.5)
        self.assertFalse(any(request.finished or request.aborted for request in requests))

    def test_one_that_does_not_read(self) -> None:
        """
        A client that stops reading holds back its own stream and nobody else's.
        """
        site = MemorySite(self)
        site.online()
        slow, slow_exchange = open_watch(site, agent="slow")
        quick, quick_exchange = site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10", agent="quick"), site.at_cloud(MAPS)[1]
        quick_exchange.begin()
        slow.stop_reading()
        self.assertEqual((slow_exchange.paused, quick_exchange.paused), (True, False))
        quick_exchange.send(event("ADDED", config_map("a", 11)))
        self.assertEqual(quick.told, [("ADDED", "11")])


class ProtobufTests(SynchronousTestCase):
    """
    Tests of watches in protobuf, of clients that are not cached.
    """

    def test_resumes(self) -> None:
        """
        Protobuf events pass byte for byte, and the watch resumes after the last whole one.
        """
        site = MemorySite(self)
        site.online()
        protobuf = "application/vnd.kubernetes.protobuf;stream=watch"
        request = site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10", agent="stranger", accept=protobuf)
        headers = [(b"Content-Type", protobuf.encode())]
        exchange = site.arriving(MAPS)
        exchange.begin(200, headers)
        frames = [protobuf_event("ADDED", "a", version) for version in (11, 12, 13)]
        exchange.send(frames[0] + frames[1][:9])
        exchange.fail()
        again = site.arriving(MAPS)
        self.assertEqual(again.query["resourceVersion"], "11")
        again.begin(200, headers)
        again.send(frames[1][:2])
        again.send(frames[1][2:] + frames[2])
        self.assertEqual(request.data, b"".join(frames))
        site.offline()
        site.run(BOOKMARK_INTERVAL + 1)
        self.assertEqual(request.data, b"".join(frames))

    def test_bookmarks_without_the_cloud(self) -> None:
        """
        They come in protobuf, too.
        """
        site = MemorySite(self)
        site.online()
        protobuf = "application/vnd.kubernetes.protobuf;stream=watch"
        target = f"{MAPS}?watch=true&resourceVersion=10&allowWatchBookmarks=true"
        request = site.ask("GET", target, agent="stranger", accept=protobuf)
        exchange = site.arriving(MAPS)
        exchange.begin(200, [(b"Content-Type", protobuf.encode())])
        exchange.send(protobuf_event("ADDED", "a", 11))
        site.offline()
        site.run(BOOKMARK_INTERVAL + 1)
        _, frame = ProtobufFramer().feed(request.data)
        event = read_protobuf_event(frame)
        self.assertEqual((event.type, event.kind, event.meta.resource_version), ("BOOKMARK", "ConfigMap", "11"))


def protobuf_event(event_type: str, name: str, version: int) -> bytes:
    """
    WatchEvent{type=1, object=2{raw=1: "k8s\\0" Unknown{typeMeta=1{apiVersion=1, kind=2}, raw=2: ConfigMap{metadata=1}}}} of
    apimachinery's generated.proto, after its length; ObjectMeta: name=1, namespace=3, resourceVersion=6.
    """
    metadata = encode_bytes(1, name.encode()) + encode_bytes(3, b"default") + encode_bytes(6, str(version).encode())
    type_meta = encode_bytes(1, b"v1") + encode_bytes(2, b"ConfigMap")
    unknown = encode_bytes(1, type_meta) + encode_bytes(2, encode_bytes(1, metadata))
    frame = encode_bytes(1, event_type.encode()) + encode_bytes(2, encode_bytes(1, MAGIC + unknown))
    return len(frame).to_bytes(4, "big") + frame
