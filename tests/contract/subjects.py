"""
The two servers that the contract is run against.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.certs import Identity, issue
from tests.e2e.apiserver import NEEDED, ControlPlane
from tests.e2e.process import require
from tests.miniapi import MiniAPI, custom
from tests.ports import free_port

from .client import KubeClient, Reply

WIDGETS = custom("example.com", "v1", "widgets", "Widget", status=True)
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
_numbers = count(1)


class OnMini(TestCase):
    """
    Runs a contract against the miniature apiserver.
    """

    def setUp(self) -> None:
        api = self.api = MiniAPI(reactor, types=[WIDGETS])
        api.permits = lambda user, verb, call, path: not user.name.startswith("system:serviceaccount:")
        self.addCleanup(api.stop)
        self.url, self.ca = api.start(), api.ca
        self.admin = self.client(issue(self.ca, "admin", ["system:masters"]))

    def client(self, identity: Identity | None = None, token: str = "") -> KubeClient:
        client = KubeClient(reactor, self.url, self.ca.cert_pem, identity, token)
        self.addCleanup(lambda: Deferred.fromCoroutine(client.close()))
        return client

    async def forget_history(self) -> None:
        self.api.compact()

    async def widgets_served(self) -> None: ...


@cache
def real_server() -> ControlPlane:
    """
    The real one, started once and ended with this process.
    """
    folder = Path(tempfile.mkdtemp(prefix="y2e-contract-"))
    plane = ControlPlane(
        folder,
        port=free_port(),
        etcd_ports=(free_port(), free_port()),
        extra=(
            *("--disable-admission-plugins", "ServiceAccount", "--endpoint-reconciler-type", "none"),
            "--enable-bootstrap-token-auth",
        ),
    )
    owner = os.getpid()

    def end() -> None:
        if os.getpid() == owner:
            plane.stop()
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    plane.start()
    return plane


class OnReal(TestCase):
    """
    Runs the same contract against a real kube-apiserver.
    """

    timeout = 180

    def setUp(self) -> None:
        require(*NEEDED)
        plane = self.plane = real_server()
        self.url, self.ca = plane.url, plane.authority.ca
        self.admin = self.client(issue(self.ca, "admin", ["system:masters"]))

    def client(self, identity: Identity | None = None, token: str = "") -> KubeClient:
        client = KubeClient(reactor, self.url, self.ca.cert_pem, identity, token)
        self.addCleanup(lambda: Deferred.fromCoroutine(client.close()))
        return client

    async def forget_history(self) -> None:
        """
        Compact etcd, and restart the apiserver so that its watch caches begin anew.
        """
        reply = await self.admin.ask("GET", "/api/v1/configmaps?limit=1")
        self.plane.compact(int(reply.json["metadata"]["resourceVersion"]))
        self.plane.stop_apiserver()
        self.plane.start_apiserver()

    async def widgets_served(self) -> None:
        await self.admin.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", CRD)
        while (await self.admin.ask("GET", "/apis/example.com/v1/widgets")).status != 200:
            await pause(0.1)


def pause(seconds: float) -> Deferred[None]:
    """
    Fires later: between two looks at a condition.
    """
    later: Deferred[None] = Deferred()
    clock: Any = reactor
    clock.callLater(seconds, later.callback, None)
    return later


class Contract:
    """
    What the contracts need of their subject, and some words that they share.
    """

    admin: KubeClient
    assertEqual: Any
    assertIn: Any
    assertTrue: Any
    assertFalse: Any
    assertIs: Any
    assertRaises: Any
    addCleanup: Any
    assertNotIn: Any
    assertNotEqual: Any

    async def namespace(self) -> str:
        """
        The path of a namespace that is this test's own.
        """
        name = f"test-{os.getpid()}-{next(_numbers)}"
        reply = await self.admin.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        self.assertEqual(reply.status, 201, reply.body)
        return f"/api/v1/namespaces/{name}"

    async def create(self, path: str, name: str, **fields: Any) -> dict[str, Any]:
        """
        Create an object of which the fields are given.
        """
        labels = fields.pop("labels", {})
        reply = await self.admin.ask("POST", path, {"metadata": {"name": name, "labels": labels}, **fields})
        self.assertEqual(reply.status, 201, reply.body)
        return reply.json

    def assert_status(self, reply: Reply, code: int, reason: str, message: str = "", **details: Any) -> None:
        """
        The reply is a Failure of that code and reason, whose message contains ``message``.
        """
        document = reply.json
        self.assertEqual(
            (
                reply.status,
                document["kind"],
                document["apiVersion"],
                document["status"],
                document["code"],
                document.get("reason"),
            ),
            (code, "Status", "v1", "Failure", code, reason),
            document,
        )
        self.assertIn(message, document["message"])
        for name, value in details.items():
            self.assertEqual(document["details"].get(name), value, document)


def a_pod(**spec: Any) -> dict[str, Any]:
    """
    The spec of a small pod.
    """
    return {"spec": {"containers": [{"name": "main", "image": "busybox:1"}], **spec}}
