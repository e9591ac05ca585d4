"""
Tests of a controller at work, on a clock, before an API server in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.certs import make_ca
from tests.miniapi.memory import MemoryAPI, MemoryExchange
from yurt.controllers.controller import CREATE, DELETE, UPDATE, Controller, Observed, Outcome, Source, Write
from yurt.controllers.metrics import ControllerMetrics, ManagerMetrics
from yurt.controllers.runner import MAX_PROBLEMS, SERVED_PAUSE, TURN, Runner
from yurt.controllers.workqueue import FIRST_PAUSE, MAX_PAUSE
from yurt.kube.api import ApiClient

CA = make_ca("runners")
NAMESPACE = "/api/v1/namespaces/default"
PATH = f"{NAMESPACE}/configmaps"
NOW = 1_700_000_000.0
"""The time of day when the Clock stands at 0."""
STEP = 0.02

Reconcile = Callable[[str, Observed, float], Outcome]


def read(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)
    return found


THINGS: Source[dict[str, Any]] = Source("ConfigMaps", [PATH], read, lambda key, one: [key.removeprefix("default/")])


def secret(name: str) -> Write:
    return Write(CREATE, f"{NAMESPACE}/secrets", {"metadata": {"name": name}}, "create")


class RunnerCase(SynchronousTestCase):
    """
    A runner whose reconciler is the test's.
    """

    workers = 3
    resync = 3600.0

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = MemoryAPI(self.clock, CA)
        self.api = self.server.api
        self.registry = CollectorRegistry()
        self.metrics = ControllerMetrics(ManagerMetrics(self.registry, "lease"), "test")
        self.looks: list[str] = []
        self.reconcile: Reconcile = lambda key, seen, now: Outcome()

    def make(self, *sources: Source[Any]) -> Runner:
        def reconcile(key: str, seen: Observed, now: float) -> Outcome:
            self.looks.append(key)
            return self.reconcile(key, seen, now)

        controller = Controller("test", sources or (THINGS,), reconcile, workers=self.workers)
        runner = Runner(
            self.clock,
            ApiClient(self.clock, self.server),
            controller,
            self.metrics,
            resync=self.resync,
            wall=lambda: NOW + self.clock.seconds(),
            draw=lambda: 0.0,
        )
        self.addCleanup(lambda: runner.running and runner.stopService())
        return runner

    def start(self, *sources: Source[Any]) -> Runner:
        runner = self.make(*sources)
        runner.startService()
        self.advance(0.2)
        return runner

    def advance(self, seconds: float) -> None:
        """
        Let time pass, in small steps.
        """
        for _ in range(max(1, min(3000, round(seconds / STEP)))):
            self.clock.advance(seconds / max(1, min(3000, round(seconds / STEP))))

    def put(self, name: str, **data: str) -> None:
        self.api.put("configmaps", {"metadata": {"name": name}, "data": data})

    def metric(self, sample: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(sample, labels)

    def sent(self, method: str) -> list[MemoryExchange]:
        return [exchange for exchange in self.server.sent if exchange.method == method]

    def answer_with(self, method: str, status: int, headers: Any = ()) -> None:
        """
        Let calls of that method fail from now on; status 0 lets them succeed again.
        """

        def answer(exchange: MemoryExchange) -> bool:
            if exchange.method != method:
                return False
            exchange.answer(status, {"kind": "Status", "code": status, "message": "by a test"}, list(headers))
            return True

        self.server.intercept = answer if status else lambda exchange: False


class WorkTests(RunnerCase):
    """
    Tests of what is looked at, and when.
    """

    def test_work(self) -> None:
        """
        Each object is looked at once all is known, and again when it changes or goes; in between nothing happens.
        """
        self.put("a")
        self.put("b")
        runner = self.start()
        self.assertEqual((sorted(self.looks), runner.ready, runner.problem()), (["a", "b"], True, None))
        self.put("a", new="value")
        self.advance(0.1)
        self.api.remove("configmaps", "b")
        self.advance(60)
        self.assertEqual(self.looks[2:], ["a", "b"])

    def test_whole_first(self) -> None:
        """
        Nothing is looked at before all collections are known, and the problem says what is missing.
        """
        self.put("a")
        secrets: Source[Any] = Source("Secrets", [f"{NAMESPACE}/secrets"], read, lambda key, one: [])
        self.server.intercept = lambda exchange: "/secrets" in exchange.path
        runner = self.start(THINGS, secrets)
        self.advance(10)
        self.assertEqual((self.looks, runner.ready, runner.problem()), ([], False, "Secrets: not listed yet"))
        self.server.intercept = lambda exchange: False
        self.advance(120)
        self.assertEqual((self.looks, runner.ready), (["a"], True))

    def test_related(self) -> None:
        """
        A reconciler sees what belongs to its key, and the time of day.
        """
        found: list[Any] = []

        def reconcile(key: str, seen: Observed, now: float) -> Outcome:
            found.append((key, [one["data"] for one in seen.related(THINGS, key).values()], now >= NOW))
            return Outcome()

        self.reconcile = reconcile
        self.put("a", x="1")
        self.start()
        self.assertEqual(found, [("a", [{"x": "1"}], True)])

    def test_resync(self) -> None:
        """
        Now and then everything is looked at again.
        """
        self.put("a")
        self.start()
        self.advance(self.resync + 10)
        self.assertEqual(self.looks, ["a", "a"])

    def test_again(self) -> None:
        """
        A reconciler is called again when it said so.
        """
        self.reconcile = lambda key, seen, now: Outcome(again=60.0)
        self.put("a")
        self.start()
        self.advance(55)
        self.assertEqual(self.looks, ["a"])
        self.advance(10)
        self.assertEqual(self.looks, ["a", "a"])

    def test_turns(self) -> None:
        """
        Much work is done in turns, between which the reactor does other things.
        """
        meanwhile: list[int] = []

        def reconcile(key: str, seen: Observed, now: float) -> Outcome:
            if len(self.looks) == 1:
                self.clock.callLater(0, lambda: meanwhile.append(len(self.looks)))
            return Outcome()

        self.reconcile = reconcile
        for number in range(4 * TURN):
            self.put(f"c{number:03}")
        self.start()
        self.assertEqual(len(self.looks), 4 * TURN)
        self.assertTrue(meanwhile[0] <= 2 * TURN, meanwhile)


class VersionTests(RunnerCase):
    """
    Tests of the version in which a collection is followed.
    """

    OLD = "/apis/discovery.k8s.io/v1beta1/endpointslices"
    NEW = "/apis/discovery.k8s.io/v2/endpointslices"

    def test_best(self) -> None:
        """
        The first version that the server has is taken.
        """
        runner = self.start(Source("Slices", [self.NEW, self.OLD], read, lambda key, one: []))
        self.assertTrue(runner.ready)
        self.assertTrue(all(exchange.path == self.OLD for exchange in self.server.watches()))

    def test_none(self) -> None:
        """
        Where the server has none yet it is asked again.
        """
        other = "/apis/discovery.k8s.io/v3/endpointslices"
        runner = self.start(Source("Slices", [self.NEW, other], read, lambda key, one: []))
        self.assertIn("Slices: GET /apis/discovery.k8s.io/v3/endpointslices", runner.problem() or "")
        asked = len(self.server.sent)
        self.advance(SERVED_PAUSE)
        self.assertTrue(len(self.server.sent) > asked)
        self.assertFalse(runner.ready)


class WriteTests(RunnerCase):
    """
    Tests of writes and their failures.
    """

    def create_once_each(self, key: str, seen: Observed, now: float) -> Outcome:
        return Outcome([secret(key)] if seen.related(THINGS, key) and key not in self.secrets() else [])

    def secrets(self) -> set[str]:
        resource = self.api.catalogue.named("secrets")
        return {name for _, name in self.api.store.collection(resource).objects}

    def test_written(self) -> None:
        """
        Writes are carried out in their order, and counted.
        """
        self.put("a", x="1")
        self.reconcile = lambda key, seen, now: Outcome(
            [
                secret("s"),
                Write(UPDATE, f"{PATH}/a", {"metadata": {"name": "a"}, "data": {"x": "2"}}, "update"),
                Write(DELETE, f"{NAMESPACE}/secrets/s", {"metadata": {"name": "s"}}, "delete"),
            ]
            if seen.related(THINGS, key)["default/a"]["data"]["x"] == "1"
            else []
        )
        self.start()
        self.advance(1)
        self.assertEqual((self.api.get("configmaps", "a")["data"], self.secrets()), ({"x": "2"}, set()))
        for what in ("create", "update", "delete"):
            self.assertEqual(self.metric("yurt_controller_manager_writes_total", controller="test", what=what), 1)

    def test_failure(self) -> None:
        """
        A write that fails is tried again after pauses that double; who waits for it is named, and nobody else waits.
        """
        self.put("a")
        self.reconcile = self.create_once_each
        self.answer_with("POST", 503)
        runner = self.start()
        self.assertIn("a: POST /api/v1/namespaces/default/secrets", runner.problem() or "")
        self.advance(100)
        times = [exchange.at for exchange in self.sent("POST")]
        pauses = [after - before for before, after in zip(times, times[1:], strict=False)]
        for number, seconds in enumerate(pauses):
            self.assertApproximates(seconds, min(MAX_PAUSE, FIRST_PAUSE * 2**number), 0.1)
        self.assertEqual(len(pauses), 9)
        self.put("b")
        self.advance(0.1)
        self.assertEqual(self.looks[-1], "b")
        self.assertEqual(self.metric("controller_runtime_reconcile_errors_total", controller="test"), len(self.sent("POST")))
        self.assertEqual(self.metric("yurt_controller_manager_failing_keys", controller="test"), 2)
        self.answer_with("POST", 0)
        self.advance(MAX_PAUSE)
        self.assertEqual((self.secrets(), runner.problem(), runner.status()["failing"]), ({"a", "b"}, None, {}))
        self.assertEqual(self.metric("yurt_controller_manager_failing_keys", controller="test"), 0)

    def test_told_to_wait(self) -> None:
        """
        A server that says when it wants to be asked again is.
        """
        self.put("a")
        self.reconcile = self.create_once_each
        self.answer_with("POST", 429, [(b"Content-Type", b"application/json"), (b"Retry-After", b"5")])
        self.start()
        self.advance(4.5)
        self.assertEqual(len(self.sent("POST")), 1)
        self.advance(1)
        self.assertEqual(len(self.sent("POST")), 2)

    def test_mistake(self) -> None:
        """
        A reconciler with a mistake is tried again like any failure, and logged; the other keys do not suffer.
        """

        def reconcile(key: str, seen: Observed, now: float) -> Outcome:
            if key == "bad":
                raise KeyError("mine")
            return Outcome()

        self.reconcile = reconcile
        self.put("bad")
        self.put("good")
        runner = self.start()
        self.assertIn("good", self.looks)
        self.assertEqual(runner.problem(), "bad: 'mine'")
        self.assertTrue(self.flushLoggedErrors(KeyError))

    def test_problems_are_bounded(self) -> None:
        """
        Of many failing keys some are shown, and all are counted.
        """
        for number in range(MAX_PROBLEMS + 10):
            self.put(f"c{number:03}")
        self.reconcile = self.create_once_each
        self.answer_with("POST", 500)
        runner = self.start()
        self.advance(3)
        self.assertEqual(len(runner.problems), MAX_PROBLEMS)
        self.assertEqual(runner.queue.failing, MAX_PROBLEMS + 10)

    def test_gone(self) -> None:
        """
        What is gone needs neither change nor removal.
        """
        self.put("a")
        missing = {"metadata": {"name": "x"}}
        self.reconcile = lambda key, seen, now: Outcome(
            [Write(UPDATE, f"{PATH}/x/status", missing, "update"), Write(DELETE, f"{PATH}/x", missing, "delete")]
        )
        runner = self.start()
        self.advance(5)
        self.assertEqual((self.looks, runner.problem()), (["a"], None))

    def test_once(self) -> None:
        """
        What is to be there once is created once, whoever creates it; this process does not ask again.
        """
        self.put("a")
        self.api.put("secrets", {"metadata": {"name": "s"}})
        self.reconcile = lambda key, seen, now: Outcome(
            [Write(CREATE, f"{NAMESPACE}/secrets", {"metadata": {"name": "s"}}, "event", once=True)]
        )
        runner = self.start()
        self.put("a", new="value")
        self.advance(1)
        self.assertEqual((len(self.looks), len(self.sent("POST")), runner.problem()), (2, 1, None))

    def test_one_at_a_time(self) -> None:
        """
        As many keys are worked on as there are workers, and none of them twice at a time.
        """
        for name in "abcdef":
            self.put(name)
        self.reconcile = self.create_once_each
        self.server.intercept = lambda exchange: exchange.method == "POST"
        runner = self.start()
        self.put("a", new="value")
        self.advance(1)
        self.assertEqual((len(self.sent("POST")), runner.queue.running, len(runner.queue)), (self.workers, self.workers, 3))
        self.assertEqual(self.metric("workqueue_depth", name="test"), 3)
        self.assertEqual(self.metric("controller_runtime_active_workers", controller="test"), 3)

    def test_own_writes_show_first(self) -> None:
        """
        The next look waits until what was written shows, however late the watch is.
        """
        seen_data: list[dict[str, str]] = []

        def reconcile(key: str, seen: Observed, now: float) -> Outcome:
            data = seen.related(THINGS, key)["default/a"]["data"]
            seen_data.append(data)
            changed = {"metadata": {"name": "a"}, "data": {**data, "count": str(int(data.get("count", "0")) + 1)}}
            return Outcome([Write(UPDATE, f"{PATH}/a", changed, "update", shows_in=THINGS)] if "count" not in data else [])

        self.reconcile = reconcile
        self.put("a")
        runner = self.start()
        [watch] = self.server.watches()
        self.assertEqual(seen_data, [{}, {"count": "1"}])
        seen_data.clear()
        self.put("a", x="2")
        self.clock.advance(0)
        watch.deaf = True
        self.assertEqual((seen_data, len(self.sent("PUT"))), ([{"x": "2"}], 2))
        runner.queue.add("a")
        self.advance(0.5)
        self.assertEqual((seen_data, len(self.sent("PUT"))), ([{"x": "2"}], 2))
        watch.fail()
        self.advance(5)
        self.assertEqual((seen_data, len(self.sent("PUT"))), ([{"x": "2"}, {"x": "2", "count": "1"}], 2))


class StopTests(RunnerCase):
    """
    Tests of the end.
    """

    def test_stop(self) -> None:
        """
        After the stop nothing is asked, written or waited for.
        """
        self.put("a")
        self.reconcile = lambda key, seen, now: Outcome([secret(key), secret("second")])
        self.server.intercept = lambda exchange: exchange.method == "POST"
        runner = self.start()
        [post] = self.sent("POST")
        self.successResultOf(runner.stopService())
        self.assertTrue(post.cancelled)
        sent = len(self.server.sent)
        self.put("b")
        self.advance(60)
        self.assertEqual((len(self.server.sent), len(self.server.open), self.clock.getDelayedCalls()), (sent, 0, []))
        self.assertEqual(self.metric("workqueue_depth", name="test"), 0)

    def test_stop_before_anything_is_known(self) -> None:
        """
        So it is while collections are still being looked for, and during a pause.
        """
        self.server.refusing = True
        for source in (THINGS, Source("Things", ["/api/v1/a", "/api/v1/b"], read, lambda key, one: [])):
            runner = self.start(source)
            self.successResultOf(runner.stopService())
            self.advance(1)
            self.assertEqual([str(call) for call in self.clock.getDelayedCalls()], [])
