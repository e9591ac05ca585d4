"""
Tests of the approver at work, on a clock, before an API server in memory.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.certs import make_ca
from tests.controllers.asking import BOOTSTRAPPER, HUB, NODE_USER, NODES, node, pkcs10, request
from tests.miniapi.identity import User
from tests.miniapi.memory import MemoryAPI
from yurt.controllers.config import ControllersConfig
from yurt.controllers.csrapprover import NAME, controller
from yurt.controllers.metrics import ControllerMetrics, ManagerMetrics
from yurt.controllers.runner import Runner
from yurt.kube.api import ApiClient
from yurt.kube.csr.request import requests_path
from yurt.kube.kubeconfig import Kubeconfig

CA = make_ca("approving")
STEP = 0.05
RESYNC = 60.0


class ApprovingCase(SynchronousTestCase):
    """
    An approver, and those who ask.
    """

    version = "v1"

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = MemoryAPI(self.clock, CA)
        self.api = self.server.api
        self.runner = Runner(
            self.clock,
            ApiClient(self.clock, self.server),
            controller(ControllersConfig(Kubeconfig("https://api.example:6443"))),
            ControllerMetrics(ManagerMetrics(CollectorRegistry(), "lease"), NAME),
            resync=RESYNC,
            draw=lambda: 0.0,
        )
        self.addCleanup(lambda: self.runner.running and self.runner.stopService())

    def start(self) -> None:
        self.runner.startService()
        self.advance(0.5)

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.clock.advance(STEP)

    def ask(self, name: str, pem: bytes, asker: Any = BOOTSTRAPPER, *, serving: bool = False) -> None:
        """
        Ask for a certificate, and let a little time pass.
        """
        asked = self.send(name, pem, asker, serving=serving)
        self.advance(0.5)
        self.successResultOf(asked)

    def send(self, name: str, pem: bytes, asker: Any = BOOTSTRAPPER, *, serving: bool = False) -> Deferred[Any]:
        """
        Begin to ask.
        """
        server = MemoryAPI(self.clock, CA, User(asker[0], tuple(asker[1])))
        server.api = self.api
        document = request(pem, asker, name=name, serving=serving, version=self.version)
        return Deferred.fromCoroutine(ApiClient(self.clock, server).create(requests_path(self.version), document))

    def approved(self, name: str) -> bool:
        """
        Whether that request is approved.
        """
        resource = self.api.catalogue.find("certificates.k8s.io", self.version, "certificatesigningrequests")
        assert resource is not None
        status: dict[str, Any] = self.api.store.get(resource, "", name).document["status"]
        return [one["type"] for one in status.get("conditions", ())] == ["Approved"]

    def events(self) -> list[str]:
        """
        What was said, about what.
        """
        stored = self.api.store.collection(self.api.catalogue.named("events")).objects.values()
        return [one.document["involvedObject"]["name"] for one in stored]


class ApprovingTests(ApprovingCase):
    """
    Tests of what happens when.
    """

    def test_joining(self) -> None:
        """
        A node joins, serves, and renews.
        """
        self.ask("early", pkcs10("system:node:edge-1", HUB))
        self.start()
        self.assertTrue(self.approved("early"))
        self.ask("serve", pkcs10("system:node:edge-1", NODES, ["169.254.2.1"]), NODE_USER, serving=True)
        self.ask("renew", pkcs10("system:node:edge-1", HUB), NODE_USER)
        self.assertEqual([self.approved(name) for name in ("serve", "renew")], [True, True])
        self.assertEqual((self.events(), self.runner.problem()), ([], None))

    def test_told_once(self) -> None:
        """
        However often a refused request is looked at, one Event is written, and the API server is asked for one.
        """
        self.start()
        self.ask("wrong", pkcs10("tunnel-proxy-client", ["openyurt:yurttunnel"]))
        self.advance(10 * RESYNC)
        self.assertEqual((self.events(), self.server.counts["create", "events"]), (["wrong"], 1))
        self.assertFalse(self.approved("wrong"))

    def test_address_comes_later(self) -> None:
        """
        A request that names an address of the node is approved when the Node has it.
        """
        self.start()
        self.ask("serve", pkcs10("system:node:edge-1", NODES, ["192.168.1.2"]), NODE_USER, serving=True)
        self.assertEqual((self.approved("serve"), self.events()), (False, ["serve"]))
        self.api.put("nodes", node("edge-1"))
        self.advance(0.5)
        self.assertFalse(self.approved("serve"))
        self.api.put("nodes", node("edge-1", "192.168.1.2"))
        self.advance(0.5)
        self.assertTrue(self.approved("serve"))

    def test_node_is_lost(self) -> None:
        """
        A token takes no living node over; when the node is lost the request that waits is approved.
        """
        self.api.put("nodes", node("edge-1", ready="True"))
        self.start()
        self.ask("again", pkcs10("system:node:edge-1", HUB))
        self.advance(5)
        self.assertFalse(self.approved("again"))
        self.api.put("nodes", node("edge-1", ready="Unknown", since=1_700_000_000))
        self.advance(0.5)
        self.assertTrue(self.approved("again"))

    def test_two_askers(self) -> None:
        """
        Of many that ask for one node at the same time one gets it, and the others are told so.
        """
        self.start()
        names = [f"csr-{number}" for number in range(5)]
        asked = [self.send(name, pkcs10("system:node:edge-1", HUB)) for name in names]
        self.advance(5)
        for one in asked:
            self.successResultOf(one)
        self.assertEqual([self.approved(name) for name in names], [True, False, False, False, False])
        self.assertEqual(sorted(set(self.events())), names[1:])

    def test_conflict(self) -> None:
        """
        A request that somebody else decides meanwhile is looked at anew, and left.
        """
        self.start()

        def first_come(exchange: Any) -> bool:
            if exchange.method != "PUT":
                return False
            self.server.intercept = lambda other: False
            exchange.answer(409, {"kind": "Status", "code": 409, "reason": "Conflict"})
            return True

        self.server.intercept = first_come
        self.ask("join", pkcs10("system:node:edge-1", HUB))
        self.advance(2)
        self.assertTrue(self.approved("join"))
        self.assertEqual(self.runner.problem(), None)

    def test_rubbish(self) -> None:
        """
        A request that cannot be read, or is too large, is passed over, and those after it are not.
        """
        self.start()
        self.ask("rubbish", b"-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n")
        self.ask("large", b"x" * 20_000)
        self.ask("join", pkcs10("system:node:edge-1", HUB))
        self.assertEqual((self.approved("join"), self.approved("rubbish"), self.approved("large")), (True, False, False))
        self.assertEqual(self.runner.problem(), None)


class OldClusterTests(ApprovingTests):
    """
    The same where the cluster has v1beta1 alone.
    """

    version = "v1beta1"

    def setUp(self) -> None:
        super().setUp()
        del self.api.catalogue._types["certificates.k8s.io", "v1", "certificatesigningrequests"]
