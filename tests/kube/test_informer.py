"""
Tests for :mod:`yurt.kube.informer`.
"""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

import yurt.kube.mirror
from tests.certs import make_ca
from tests.miniapi import MiniAPI
from tests.miniapi.memory import MemoryAPI, MemoryExchange
from yurt.kube.api import ApiClient, client_from_kubeconfig
from yurt.kube.informer import Informer
from yurt.kube.kubeconfig import load_kubeconfig
from yurt.kube.mirror import MAX_PAUSE, MAX_WATCH, PAGE_ITEMS, WATCH_GRACE
from yurt.kube.stream import BEGIN_TIMEOUT

PATH = "/api/v1/namespaces/default/configmaps"
CA = make_ca("informers")


def value_of(body: bytes) -> str:
    """
    The value that a ConfigMap of these tests holds.
    """
    value: str = json.loads(body)["data"]["value"]
    return value


class InformerCase(SynchronousTestCase):
    """
    An informer on a clock, before an apiserver in memory.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = MemoryAPI(self.clock, CA)
        self.api = self.server.api
        self.draws = 0.5
        client = ApiClient(self.clock, self.server)
        self.informer = Informer(self.clock, client, PATH, value_of, what="config", draw=lambda: self.draws)
        self.changes: list[tuple[str, str | None, str | None]] = []
        self.informer.subscribe(lambda key, old, new: self.changes.append((key, old, new)))
        self.addCleanup(self.stop)

    def stop(self) -> None:
        if self.informer.running:
            self.informer.stopService()

    def put(self, name: str, value: str = "") -> None:
        self.api.put("configmaps", {"metadata": {"name": name}, "data": {"value": value or name}})

    def start(self) -> None:
        """
        Start it, and let it come to its first watch.
        """
        self.informer.startService()
        self.advance(0.1)

    def advance(self, seconds: float) -> None:
        """
        Let time pass, in small steps.
        """
        steps = max(1, min(2000, round(seconds / 0.02)))
        for _ in range(steps):
            self.clock.advance(seconds / steps)

    @property
    def items(self) -> dict[str, str]:
        return {key.removeprefix("default/"): value for key, value in self.informer.items.items()}


class FollowTests(InformerCase):
    """
    Tests of an informer whose server is well.
    """

    def test_start_waits_for_nothing(self) -> None:
        """
        The start of the service sends a request and returns; until the list is there the problem says so.
        """
        self.server.silent = True
        self.informer.startService()
        self.assertEqual((self.informer.synced, self.informer.problem), (False, "config: not listed yet"))

    def test_follow(self) -> None:
        """
        It has what is there, then hears of each change as it happens.
        """
        self.put("a")
        self.start()
        self.assertEqual((self.items, self.informer.synced, self.informer.problem), ({"a": "a"}, True, None))
        self.put("b")
        self.put("a", "new")
        self.api.remove("configmaps", "b")
        self.assertEqual(
            self.changes,
            [
                ("default/a", None, "a"),
                ("default/b", None, "b"),
                ("default/a", "a", "new"),
                ("default/b", "b", None),
            ],
        )
        self.assertEqual(self.items, {"a": "new"})

    def test_pages(self) -> None:
        """
        A large collection comes in pages.
        """
        for number in range(2 * PAGE_ITEMS + 1):
            self.put(f"c{number:04}")
        self.start()
        self.assertEqual((len(self.items), self.server.counts["list", "configmaps"]), (2 * PAGE_ITEMS + 1, 3))

    def test_on_synced(self) -> None:
        """
        Who waits for the whole collection is called once it is there, and at once afterwards; who fails keeps nobody waiting.
        """
        calls: list[str] = []

        def fail() -> None:
            raise RuntimeError("mine")

        self.informer.on_synced(fail)
        self.informer.on_synced(lambda: calls.append("waited"))
        self.assertEqual(calls, [])
        self.start()
        self.informer.on_synced(lambda: calls.append("late"))
        self.assertEqual(calls, ["waited", "late"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_subscribers(self) -> None:
        """
        A subscriber that fails costs nobody an event, and one that has left hears no more.
        """

        def fail(key: str, old: str | None, new: str | None) -> None:
            raise RuntimeError("mine")

        others: list[str] = []
        self.informer.subscribe(fail)
        leave = self.informer.subscribe(lambda key, old, new: others.append(key))
        self.start()
        self.put("a")
        leave()
        self.put("b")
        self.assertEqual((len(self.changes), others), (2, ["default/a"]))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)
        self.assertEqual(self.server.counts["watch", "configmaps"], 1)

    def test_watch_ends(self) -> None:
        """
        When the server ends a watch in its time the next goes on where it was, without a list and without a problem.
        """
        self.start()
        self.advance(MAX_WATCH)
        self.put("a")
        self.advance(0.1)
        self.assertEqual(self.items, {"a": "a"})
        self.assertEqual((self.server.counts["list", "configmaps"], self.server.counts["watch", "configmaps"]), (1, 2))
        self.assertIs(self.informer.problem, None)

    def test_stop(self) -> None:
        """
        A stop ends the watch, or the pause, and leaves nothing on the clock.
        """
        self.start()
        self.informer.stopService()
        self.assertEqual((self.server.open, self.clock.getDelayedCalls()), ([], []))
        self.server.refusing = True
        self.start()
        self.informer.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_in_a_callback(self) -> None:
        """
        A subscriber may stop it.
        """
        self.informer.subscribe(lambda key, old, new: self.informer.stopService())
        self.start()
        self.put("a")
        self.put("b")
        self.assertEqual((self.items, self.server.open, self.clock.getDelayedCalls()), ({"a": "a"}, [], []))

    def test_start_again(self) -> None:
        """
        Stopped and started again it goes on with what it knows.
        """
        self.put("a")
        self.start()
        self.informer.stopService()
        self.put("b")
        self.start()
        self.assertEqual((self.items, self.server.counts["list", "configmaps"]), ({"a": "a", "b": "b"}, 1))


class TroubleTests(InformerCase):
    """
    Tests of an informer whose server is not well.
    """

    def test_refused(self) -> None:
        """
        Without the right to list, it says so for people, asks ever more rarely, and goes on when it may.
        """
        self.api.permits = lambda user, verb, call, path: False
        self.put("a")
        self.start()
        self.assertIn("403 Forbidden", str(self.informer.problem))
        self.assertTrue(str(self.informer.problem).startswith("config: GET " + PATH))
        self.advance(600)
        self.assertLess(self.server.counts["list", "configmaps"], 50)
        self.api.permits = lambda user, verb, call, path: True
        self.advance(MAX_PAUSE)
        self.assertEqual((self.items, self.informer.problem), ({"a": "a"}, None))

    def test_right_to_watch_lost(self) -> None:
        """
        A watch that is refused from some time on leaves what is known, and the problem says why it may be old.
        """
        self.put("a")
        self.start()
        self.api.permits = lambda user, verb, call, path: False
        self.server.close_connections("reset")
        self.advance(60)
        self.assertEqual(self.items, {"a": "a"})
        self.assertIn("403 Forbidden", str(self.informer.problem))

    def test_unauthorized(self) -> None:
        """
        So with a token that has expired.
        """
        self.server.answer_always(401, {"kind": "Status", "code": 401, "reason": "Unauthorized", "message": "Unauthorized"})
        self.start()
        self.assertIn("401 Unauthorized", str(self.informer.problem))
        self.server.intercept = lambda exchange: False
        self.advance(2)
        self.assertIs(self.informer.problem, None)

    def test_server_gone(self) -> None:
        """
        While the server is away what is known stays; back, it hears at once of what it missed, deletions too, without a list.
        """
        self.put("a")
        self.put("b")
        self.start()
        self.server.refusing = True
        self.server.close_connections("reset")
        self.api.remove("configmaps", "a")
        self.put("c")
        self.advance(30)
        self.assertEqual(self.items, {"a": "a", "b": "b"})
        self.assertIn("connection refused", str(self.informer.problem))
        self.server.refusing = False
        self.advance(MAX_PAUSE)
        self.assertEqual((self.items, self.server.counts["list", "configmaps"]), ({"b": "b", "c": "c"}, 1))

    def test_history_gone(self) -> None:
        """
        When the server has forgotten what happened meanwhile, a new list is compared with what is known.
        """
        self.put("a")
        self.put("b")
        self.start()
        self.server.refusing = True
        self.server.close_connections("reset")
        self.api.remove("configmaps", "a")
        self.put("b", "new")
        self.api.compact()
        self.server.refusing = False
        self.changes.clear()
        self.advance(MAX_PAUSE)
        self.assertEqual(self.changes, [("default/b", "b", "new"), ("default/a", "a", None)])
        self.assertEqual((self.informer.mirror.lists, self.informer.problem), (2, None))

    def test_gone_in_the_middle_of_a_list(self) -> None:
        """
        A server that goes away between two pages is asked for the rest when it is back.
        """
        for number in range(PAGE_ITEMS + 1):
            self.put(f"c{number:04}")

        def second_page(exchange: MemoryExchange) -> bool:
            if "continue" in exchange.query:
                exchange.fail()
                self.server.refusing = True
                return True
            return False

        self.server.intercept = second_page
        self.start()
        self.assertEqual((len(self.items), self.informer.synced), (PAGE_ITEMS, False))
        self.server.refusing, self.server.intercept = False, lambda exchange: False
        self.advance(2)
        self.assertEqual((len(self.items), self.informer.synced), (PAGE_ITEMS + 1, True))

    def test_history_gone_in_the_middle_of_a_list(self) -> None:
        """
        When the rest of a list cannot be had any more, the list begins anew.
        """
        for number in range(PAGE_ITEMS + 1):
            self.put(f"c{number:04}")

        def second_page(exchange: MemoryExchange) -> bool:
            if "continue" in exchange.query:
                self.server.intercept = lambda exchange: False
                self.api.remove("configmaps", "c0000")
                self.api.compact()
            return False

        self.server.intercept = second_page
        self.start()
        self.advance(2)
        self.assertEqual((len(self.items), self.informer.synced, "c0000" in self.items), (PAGE_ITEMS, True, False))

    def test_silent_list(self) -> None:
        """
        A server that takes the request and never answers is given up, and asked again.
        """
        self.server.silent = True
        self.start()
        self.advance(60.2)
        self.assertIn("no whole answer within 60 s", str(self.informer.problem))
        self.server.silent = False
        self.advance(2)
        self.assertTrue(self.informer.synced)

    def test_silent_watch(self) -> None:
        """
        A watch that is never answered is given up within BEGIN_TIMEOUT.
        """
        self.server.intercept = lambda exchange: bool(exchange.query.get("watch"))
        self.start()
        self.advance(BEGIN_TIMEOUT)
        self.assertIn(f"no answer within {BEGIN_TIMEOUT:g} s", str(self.informer.problem))
        self.server.intercept = lambda exchange: False
        self.advance(2)
        self.assertIs(self.informer.problem, None)

    def test_watch_cut_silently(self) -> None:
        """
        A watch that hears nothing and does not end in its time is cut, and the next one brings what was missed.
        """
        self.start()
        self.server.silent = True
        self.put("a")
        self.assertEqual(self.items, {})
        (dead,) = self.server.watches()
        seconds = int(dead.query["timeoutSeconds"])
        self.advance(seconds + WATCH_GRACE / 2)  # the server's own end of the watch is lost as well
        self.assertTrue(dead.open)
        self.server.silent = False
        self.advance(WATCH_GRACE + 2)
        self.assertEqual((self.items, self.informer.problem, dead.cancelled), ({"a": "a"}, None, True))

    def test_error_event(self) -> None:
        """
        An ERROR event resumes the watch after a pause.
        """
        self.start()
        (watch,) = self.server.watches()
        watch.send(b'{"type":"ERROR","object":{"kind":"Status","code":500,"reason":"InternalError","message":"etcd is away"}}\n')
        self.assertIn("etcd is away", str(self.informer.problem))
        self.put("a")
        self.advance(1)
        self.assertEqual((self.items, self.informer.problem, watch.cancelled), ({"a": "a"}, None, True))

    def test_garbage(self) -> None:
        """
        Bytes that are no watch end it, too.
        """
        self.start()
        (watch,) = self.server.watches()
        watch.send(b"<html>\n")
        self.assertIn("not a watch event", str(self.informer.problem))
        self.put("a")
        self.advance(1)
        self.assertEqual(self.items, {"a": "a"})

    def test_page_too_large(self) -> None:
        """
        A page with more bytes than are taken is asked for again with fewer objects.
        """
        import yurt.kube.informer

        self.patch(yurt.kube.informer, "MAX_PAGE_BYTES", 12_000)
        for number in range(100):
            self.put(f"c{number:04}")
        self.start()
        self.advance(60)
        self.assertEqual((len(self.items), self.informer.problem), (100, None))

    def test_spread(self) -> None:
        """
        Informers that lost their server together come back at times of their own.
        """
        self.start()
        self.server.refusing = True
        times = []
        for self.draws in (0.1, 0.9):
            self.server.close_connections("reset")
            before = self.clock.seconds()
            asked = len(self.server.sent)
            while len(self.server.sent) == asked:
                self.advance(0.05)
            times.append(self.clock.seconds() - before)
        self.assertLess(times[0], times[1])

    def test_own_mistake(self) -> None:
        """
        A mistake in our own code is logged, and does not end the following.
        """
        self.patch(self.informer.mirror, "page", lambda body: 1 // 0)
        self.start()
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
        self.assertIn("by zero", str(self.informer.problem))
        self.put("a")
        del self.informer.mirror.page
        self.advance(4)
        self.assertEqual(self.items, {"a": "a"})
        self.flushLoggedErrors(ZeroDivisionError)

    def test_memory(self) -> None:
        """
        Nothing is kept of answers and events that are past.
        """

        class Value:
            pass

        made: list[weakref.ref[Value]] = []

        def decode(body: bytes) -> Value:
            value = Value()
            made.append(weakref.ref(value))
            return value

        informer = Informer(self.clock, ApiClient(self.clock, self.server), PATH, decode, what="values")
        informer.startService()
        self.advance(0.1)
        for number in range(200):
            self.put("a", str(number))
        gc.collect()
        self.assertEqual((len(made), sum(1 for value in made if value() is not None)), (200, 1))
        informer.stopService()


OPERATIONS = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 5), st.integers(0, 3)),
    st.tuples(st.just("remove"), st.integers(0, 5)),
    st.tuples(st.sampled_from(["reset", "compact", "bookmark", "silent", "refuse", "forbid", "heal"])),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.3, 5.0])),
)


SETTLING = 5.0


class Chaos:
    """
    A server to which anything may happen, and an informer on it.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.server = MemoryAPI(self.clock, CA)
        self.api = self.server.api
        self.informer = Informer(self.clock, ApiClient(self.clock, self.server), PATH, value_of, what="config")
        self.known: dict[str, str] = {}
        self.wrong: list[tuple[str, str | None, str | None]] = []
        self.informer.subscribe(self.heard)
        self.informer.startService()

    def heard(self, key: str, old: str | None, new: str | None) -> None:
        """
        Do as the change says, and note one that does not follow from those before.
        """
        if self.known.pop(key, None) != old or old == new:
            self.wrong.append((key, old, new))
        if new is not None:
            self.known[key] = new

    @property
    def there(self) -> dict[str, str]:
        """
        What the server has.
        """
        collection = self.api.store.collection(self.api.catalogue.named("configmaps"))
        return {"/".join(key): one.document["data"]["value"] for key, one in collection.objects.items()}

    def do(self, what: str, *arguments: Any) -> None:
        getattr(self, what)(*arguments)

    def put(self, number: int, value: int) -> None:
        self.api.put("configmaps", {"metadata": {"name": f"c{number}"}, "data": {"value": str(value)}})

    def remove(self, number: int) -> None:
        if f"default/c{number}" in self.there:
            self.api.remove("configmaps", f"c{number}")

    def reset(self) -> None:
        self.server.close_connections("reset")

    def compact(self) -> None:
        self.api.compact()

    def bookmark(self) -> None:
        self.clock.advance(self.api.bookmark_interval)

    def silent(self) -> None:
        self.server.silent = True

    def refuse(self) -> None:
        self.server.refusing = True
        self.reset()

    def forbid(self) -> None:
        self.api.permits = lambda user, verb, call, path: False
        self.reset()

    def heal(self) -> None:
        self.server.silent = self.server.refusing = False
        self.api.permits = lambda user, verb, call, path: True

    def wait(self, seconds: float) -> None:
        for _ in range(20):
            self.clock.advance(seconds / 20)

    def settle(self) -> None:
        """
        Heal, and wait for as long as it may take until a watch that is dead is given up.
        """
        self.heal()
        for _ in range(round((MAX_WATCH + WATCH_GRACE + 2 * MAX_PAUSE) / SETTLING)):
            self.clock.advance(SETTLING)


class ChaosTests(SynchronousTestCase):
    """
    Tests of an informer to whose server anything may happen, in any order.
    """

    @settings(max_examples=40, deadline=None)
    @given(st.lists(OPERATIONS, max_size=40))
    def test_in_the_end(self, operations: list[tuple[Any, ...]]) -> None:
        """
        In the end it has what the server has, so has who did as the changes said, and each change followed from those before.
        """
        self.patch(yurt.kube.mirror, "PAGE_ITEMS", 2)
        chaos = Chaos()
        for what, *arguments in operations:
            chaos.do(what, *arguments)
        chaos.settle()
        self.assertEqual(chaos.informer.items, chaos.there)
        self.assertEqual((chaos.known, chaos.wrong), (chaos.there, []))
        self.assertEqual((chaos.informer.problem, chaos.informer.synced), (None, True))
        chaos.informer.stopService()
        self.assertEqual((chaos.server.open, chaos.informer.running), ([], 0))


class LoopbackTests(TestCase):
    """
    Tests of an informer on real connections, with TLS.
    """

    timeout = 180

    def setUp(self) -> None:
        self.api = MiniAPI(reactor)
        self.addCleanup(self.api.stop)
        self.api.start()
        path = self.api.write_kubeconfig(self.mktemp(), "someone", "some-group")
        self.client = client_from_kubeconfig(reactor, load_kubeconfig(path), "tests")
        self.informer = Informer(reactor, self.client, PATH, value_of, what="config", draw=lambda: 0.01)
        self.waiting: list[Deferred[None]] = []
        self.informer.subscribe(lambda key, old, new: self.changed())
        self.informer.startService()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        self.informer.stopService()
        self.client.close()

    def changed(self) -> None:
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            one.callback(None)

    async def until(self, items: dict[str, Any]) -> None:
        while self.informer.items != {f"default/{key}": value for key, value in items.items()}:
            change: Deferred[None] = Deferred()
            self.waiting.append(change)
            await change

    def put(self, name: str, value: str) -> None:
        self.api.put("configmaps", {"metadata": {"name": name}, "data": {"value": value}})

    async def test_restart(self) -> None:
        """
        It follows over a server that dies and comes back.
        """
        self.put("a", "1")
        await self.until({"a": "1"})
        await self.api.refuse()
        self.put("a", "2")
        self.put("b", "1")
        self.api.heal()
        await self.until({"a": "2", "b": "1"})
        self.api.reset_connections()
        self.api.remove("configmaps", "a")
        await self.until({"b": "1"})
        self.assertEqual(self.api.seen[-1].user, "someone")
        self.assertTrue(self.api.seen[-1].user_agent.startswith("tests/"))
