"""
Tests of the controllers as a whole: who leads runs them, on a clock, before an API server in memory.
"""

from __future__ import annotations

import json
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.certs import make_ca
from tests.miniapi.memory import MemoryAPI
from yurt.controllers.config import LEASE
from yurt.controllers.controller import CREATE, Controller, Observed, Outcome, Source, Write
from yurt.controllers.leading import Controllers
from yurt.controllers.metrics import ManagerMetrics
from yurt.kube.api import ApiClient

CA = make_ca("leading")
NOW = 1_700_000_000.0
STEP = 0.05
NAMESPACE = "/api/v1/namespaces/default"


def read(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)
    return found


THINGS: Source[dict[str, Any]] = Source(
    "ConfigMaps", [f"{NAMESPACE}/configmaps"], read, lambda key, one: [one["metadata"]["name"]]
)


class Candidate:
    """
    One process: it writes a Secret of the name of each ConfigMap, over a connection of its own.
    """

    def __init__(self, clock: Clock, first: MemoryAPI | None, identity: str) -> None:
        self.server = MemoryAPI(clock, CA)
        if first is not None:
            self.server.api = first.api
        self.registry = CollectorRegistry()
        self.client = ApiClient(clock, self.server)
        self.controllers = Controllers(
            clock,
            self.client,
            [Controller("copier", (THINGS,), self.reconcile)],
            identity,
            ManagerMetrics(self.registry, LEASE),
            namespace="kube-system",
            resync=3600.0,
            wall=lambda: NOW + clock.seconds(),
            draw=lambda: 0.5,
        )

    def reconcile(self, key: str, seen: Observed, now: float) -> Outcome:
        return Outcome([Write(CREATE, f"{NAMESPACE}/secrets", {"metadata": {"name": key}}, "copy", once=True)])

    @property
    def leading(self) -> bool:
        return self.controllers.election.leading

    @property
    def written(self) -> int:
        return self.server.counts["create", "secrets"]


class LeadingCase(SynchronousTestCase):
    """
    Two processes.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.one = Candidate(self.clock, None, "one")
        self.api = self.one.server.api
        self.two = Candidate(self.clock, self.one.server, "two")
        self.addCleanup(self.stop)

    def stop(self) -> None:
        for candidate in (self.one, self.two):
            if candidate.controllers.running:
                candidate.controllers.stopService()
        self.advance(3)

    def start(self) -> None:
        """
        One leads, two waits.
        """
        self.one.controllers.startService()
        self.advance(1)
        self.two.controllers.startService()
        self.advance(5)

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.clock.advance(STEP)

    def put(self, name: str) -> None:
        self.api.put("configmaps", {"metadata": {"name": name}})

    def metric(self, sample: str, **labels: str) -> float | None:
        return self.one.registry.get_sample_value(sample, labels)

    def test_one_leads(self) -> None:
        """
        The leader works, the other one follows nothing and is ready.
        """
        self.put("a")
        self.start()
        self.put("b")
        self.advance(1)
        self.assertEqual((self.one.leading, self.two.leading, self.one.written, self.two.written), (True, False, 2, 0))
        self.assertEqual((self.one.controllers.unready(), self.two.controllers.unready()), ([], []))
        self.assertEqual(self.two.server.counts["list", "configmaps"], 0)
        status = self.two.controllers.status()
        self.assertEqual((status["leader"], status["controllers"]), ("one", {"copier": "waits for the lead"}))
        self.assertEqual(self.metric("leader_election_master_status", name=LEASE), 1)

    def test_lost(self) -> None:
        """
        Who cannot renew the Lease stops working before another one begins, goes on as a candidate, and works again when it wins
        anew; its counters go on.
        """
        self.put("a")
        self.start()
        self.one.server.silent = True
        begun = self.clock.seconds()
        while not self.two.leading:
            self.advance(STEP)
            self.assertFalse(self.one.leading and self.two.leading)
        self.assertTrue(self.clock.seconds() - begun < 25)
        self.assertEqual((self.one.controllers.runners, self.one.controllers.running), ([], True))
        self.assertTrue(self.one.controllers.unready())
        self.assertEqual(self.metric("leader_election_master_status", name=LEASE), 0)
        self.put("b")
        self.advance(1)
        self.assertEqual((self.one.written, self.two.written), (1, 2))
        self.one.server.silent = False
        self.successResultOf(self.stopped(self.two))
        self.advance(10)
        self.put("c")
        self.advance(1)
        self.assertEqual((self.one.leading, self.one.written, self.two.written), (True, 4, 2))
        self.assertEqual(self.metric("yurt_controller_manager_elections_won_total"), 2)
        self.assertEqual(self.metric("yurt_controller_manager_writes_total", controller="copier", what="copy"), 4)

    def stopped(self, candidate: Candidate) -> Any:
        """
        Stop one, and let the stop come to its end.
        """
        stopping = candidate.controllers.stopService()
        self.advance(1)
        return stopping

    def test_stop(self) -> None:
        """
        A clean stop gives the Lease up, so that the other one leads within its next turn; nothing is left of the first.
        """
        self.start()
        self.successResultOf(self.stopped(self.one))
        self.assertEqual(self.one.server.open, [])
        self.advance(2)
        self.assertEqual((self.two.leading, self.one.controllers.runners), (True, []))
        self.put("a")
        self.advance(1)
        self.assertEqual((self.one.written, self.two.written), (0, 1))

    def test_nobody(self) -> None:
        """
        A process that cannot reach the Lease says so, and nothing else.
        """
        self.one.server.refusing = True
        self.assertEqual(self.one.controllers.unready(), ["nobody leads, as far as is known"])
        self.one.controllers.startService()
        self.advance(3)
        [why] = self.one.controllers.unready()
        self.assertIn(f"Lease kube-system/{LEASE}: GET", why)
        self.assertEqual(self.one.controllers.status()["problems"], [why])

    def test_not_yet_known(self) -> None:
        """
        A leader is ready when it knows what it follows.
        """
        self.one.server.intercept = lambda exchange: "configmaps" in exchange.path
        self.one.controllers.startService()
        self.advance(1)
        self.assertEqual(self.one.controllers.unready(), ["copier: ConfigMaps: not listed yet"])
