"""
The controllers in a cluster, with the rights of their manifest and no others.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred

import yurt
from tests.certs import Authority, Identity, issue
from tests.controllers.asking import HUB, NODES, pkcs10
from yurt.controllers.config import LEASE, ControllersConfig
from yurt.controllers.leading import Controllers
from yurt.controllers.metrics import ManagerMetrics
from yurt.controllers.registry import NAMES, chosen
from yurt.kube.api import ApiClient, ApiError, client_from_kubeconfig
from yurt.kube.csr.renewal import renews
from yurt.kube.csr.request import requests_path
from yurt.kube.csr.wanted import CLIENT_SIGNER, CLIENT_USAGES, SERVING_SIGNER, SERVING_USAGES
from yurt.kube.kubeconfig import Kubeconfig

from .subjects import Contract, OnMini, OnReal, pause

MANIFEST = Path(yurt.__file__).parent.parent / "etc/kubernetes/yurt-controller-manager.yaml"
USER = "yurt-controller-manager"
SYSTEM = "/api/v1/namespaces/kube-system"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
EVENTS = "/api/v1/namespaces/default/events"
PERIOD = 0.05
CREATED, EXISTS = 201, 409

ASKING_ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "test-bootstrappers"},
    "subjects": [{"kind": "Group", "name": "system:bootstrappers", "apiGroup": "rbac.authorization.k8s.io"}],
    "roleRef": {"kind": "ClusterRole", "name": "system:node-bootstrapper", "apiGroup": "rbac.authorization.k8s.io"},
}
"""What kubeadm sets up: who shows a bootstrap token may ask for certificates."""


def plural(kind: str) -> str:
    return kind.lower() + "s"


def collection(document: dict[str, Any]) -> str:
    """
    The path to which a document of the manifest is posted.
    """
    version, namespace = document["apiVersion"], document["metadata"].get("namespace")
    prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{prefix}/namespaces/{namespace}/{plural(document['kind'])}" if namespace else f"{prefix}/{plural(document['kind'])}"


class ControllersContract(Contract):
    """
    What holds of the controllers, over real connections.
    """

    url: str
    ca: Authority
    has_roles = True
    client: Any

    def api_as(self, identity: Identity) -> ApiClient:
        kubeconfig = Kubeconfig(self.url, ca_data=self.ca.cert_pem, cert_data=identity.cert_pem, key_data=identity.key_pem)
        client = client_from_kubeconfig(reactor, kubeconfig, USER)
        self.addCleanup(client.close)
        return client

    def run_controllers(self, identity: str) -> Controllers:
        """
        All controllers, as the user of the manifest.
        """
        config = ControllersConfig(Kubeconfig(self.url, ca_data=self.ca.cert_pem), frozenset(NAMES))
        controllers = Controllers(
            reactor,
            self.api_as(issue(self.ca, USER)),
            chosen(config),
            identity,
            ManagerMetrics(CollectorRegistry(), USER),
            namespace="kube-system",
            resync=3600.0,
        )
        controllers.startService()
        self.addCleanup(lambda: maybeDeferred(controllers.stopService) if controllers.running else None)
        return controllers

    async def until(self, what: str, condition: Callable[[], bool]) -> None:
        """
        Wait for a condition; the test's timeout bounds it.
        """
        while not condition():
            await pause(PERIOD)

    async def apply(self) -> None:
        """
        Create what the manifest holds, unless a test before did.
        """
        if self.has_roles:
            for document in (*yaml.safe_load_all(MANIFEST.read_text()), ASKING_ROLE):
                reply = await self.admin.ask("POST", collection(document), document)
                self.assertIn(reply.status, (CREATED, EXISTS), reply.body)
        for version in ("v1", "v1beta1"):
            await self.admin.ask("DELETE", requests_path(version))

    async def ask_for(
        self, name: str, asker: Identity, pem: bytes, *, serving: bool = False, version: str = "v1", shown: Identity | None = None
    ) -> str:
        """
        Ask for a certificate, which is to follow the one that is ``shown``; the path of the request.
        """
        annotations = renews(shown.cert_pem + shown.key_pem, pem) if shown else {}
        spec = {
            "request": base64.b64encode(pem).decode(),
            "signerName": SERVING_SIGNER if serving else CLIENT_SIGNER,
            "usages": list(SERVING_USAGES if serving else CLIENT_USAGES),
        }
        document = {
            "apiVersion": f"certificates.k8s.io/{version}",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name, "labels": {"some": "label"}, "annotations": annotations},
            "spec": spec,
        }
        made = await self.client(asker).ask("POST", requests_path(version), document)
        self.assertEqual(made.status, CREATED, made.body)
        return f"{requests_path(version)}/{name}"

    def asker(self, name: str, *groups: str) -> Identity:
        return issue(self.ca, name, list(groups))

    def bootstrapper(self) -> Identity:
        return self.asker("system:bootstrap:abcdef", "system:bootstrappers")

    def node(self, name: str) -> Identity:
        return self.asker(f"system:node:{name}", *HUB)

    async def decided(self, path: str) -> dict[str, Any]:
        """
        The request, once it is approved.
        """
        while True:
            document = (await self.admin.ask("GET", path)).json
            if document.get("status", {}).get("conditions"):
                return document
            await pause(PERIOD)

    async def events_about(self, name: str, count: int = 1) -> Sequence[str]:
        """
        What is said about a request, once so much is.
        """
        while True:
            listed = (await self.admin.ask("GET", EVENTS)).json["items"]
            said = [event["message"] for event in listed if event["involvedObject"].get("name") == name]
            if len(said) >= count:
                return said
            await pause(PERIOD)

    async def test_approval(self) -> None:
        """
        A node that joins gets its client certificate, and with it one to serve; a Lease says who approved, and is given up.
        """
        await self.apply()
        await self.ask_for("early", self.bootstrapper(), pkcs10("system:node:edge-1", HUB))
        controllers = self.run_controllers("me")
        await self.until("the lead", lambda: controllers.election.leading and not controllers.unready())
        early = await self.decided(f"{requests_path('v1')}/early")
        condition = early["status"]["conditions"][0]
        self.assertEqual((condition["type"], condition["reason"]), ("Approved", "AutoApproved"))
        self.assertEqual(condition["message"], "Auto approving yurthub node client certificate")
        self.assertEqual((early["metadata"]["labels"], early["spec"]["username"]), ({"some": "label"}, "system:bootstrap:abcdef"))
        late = await self.ask_for("late", self.node("edge-1"), pkcs10("system:node:edge-1", NODES, ["169.254.2.1"]), serving=True)
        self.assertEqual((await self.decided(late))["status"]["conditions"][0]["reason"], "AutoApproved")
        lease = (await self.admin.ask("GET", f"{LEASES}/{LEASE}")).json["spec"]
        self.assertEqual((lease["holderIdentity"], lease["leaseDurationSeconds"]), ("me", 15))
        self.assertEqual(controllers.status()["problems"], [])
        await controllers.stopService()
        self.assertFalse((await self.admin.ask("GET", f"{LEASES}/{LEASE}")).json["spec"].get("holderIdentity"))

    async def test_agent_renews(self) -> None:
        """
        With its own certificate an agent gets the next one, for its own node only.
        """
        await self.apply()
        controllers = self.run_controllers("me")
        await self.until("the lead", lambda: controllers.election.leading and not controllers.unready())
        agent = issue(self.ca, "tunnel-agent-client", ["openyurt:yurttunnel"], dns=["edge-1"])
        own, other = (pkcs10("tunnel-agent-client", ["openyurt:yurttunnel"], [name]) for name in ("edge-1", "edge-2"))
        stolen = await self.ask_for("stolen", agent, other, shown=agent)
        path = await self.ask_for("renewal", agent, own, shown=agent)
        document = await self.decided(path)
        self.assertEqual((document["spec"]["username"], document["status"]["conditions"][0]["message"]),
                         ("tunnel-agent-client", "Auto approving tunnel-agent client certificate"))  # fmt: skip
        self.assertIn("not that of an agent of Node edge-2", (await self.events_about("stolen"))[0])
        self.assertEqual((await self.admin.ask("GET", stolen)).json["status"], {})

    async def test_refusal(self) -> None:
        """
        What is not approved has one Event that says why, also when another process takes over.
        """
        await self.apply()
        first = self.run_controllers("first")
        await self.until("the lead", lambda: first.election.leading)
        path = await self.ask_for("wrong", self.bootstrapper(), pkcs10("tunnel-proxy-client", ["openyurt:yurttunnel"]))
        said = await self.events_about("wrong")
        self.assertIn("system:bootstrap:abcdef asks for it; only", said[0])
        second = self.run_controllers("second")
        await first.stopService()
        await self.until("the next lead", lambda: second.election.leading and not second.unready())
        last = await self.ask_for("last", self.bootstrapper(), pkcs10("system:node:edge-9", HUB))
        await self.decided(last)
        self.assertEqual(len(await self.events_about("wrong")), 1)
        self.assertEqual((await self.admin.ask("GET", path)).json["status"], {})
        self.assertEqual(second.status()["problems"], [])


class MiniControllersTests(ControllersContract, OnMini):
    """
    On the miniature apiserver, which knows no roles.
    """

    timeout = 180
    has_roles = False

    async def test_old_cluster(self) -> None:
        """
        Where only v1beta1 is served, that is spoken.
        """
        types = self.api.catalogue._types
        del types["certificates.k8s.io", "v1", "certificatesigningrequests"]
        controllers = self.run_controllers("me")
        await self.until("the lead", lambda: controllers.election.leading and not controllers.unready())
        path = await self.ask_for("old", self.bootstrapper(), pkcs10("system:node:edge-1", HUB), version="v1beta1")
        self.assertEqual((await self.decided(path))["status"]["conditions"][0]["reason"], "AutoApproved")


class RealControllersTests(ControllersContract, OnReal):
    """
    On the real one, with the rights of the manifest.
    """

    async def test_no_more_rights(self) -> None:
        """
        The controllers may do nothing that they do not need.
        """
        await self.apply()
        api = self.api_as(issue(self.ca, USER))
        request = await self.ask_for("other", self.bootstrapper(), pkcs10("system:node:edge-1", HUB))
        pem = base64.b64encode(pkcs10("a", ["b"])).decode()
        foreign = {
            "metadata": {"name": "foreign"},
            "spec": {"request": pem, "signerName": "example.com/x", "usages": ["client auth"]},
        }
        made = await self.admin.ask("POST", requests_path("v1"), foreign)
        self.assertIn(made.status, (CREATED, EXISTS), made.body)
        path = f"{requests_path('v1')}/foreign"
        condition = {"type": "Approved", "status": "True", "reason": "x", "message": "x"}
        approved = {**(await self.admin.ask("GET", path)).json, "status": {"conditions": [condition]}}
        event = {"metadata": {"name": "x"}, "involvedObject": {"namespace": "kube-system"}}
        for call in (
            api.update(f"{path}/approval", approved),
            api.get(request),
            api.update(request, approved),
            api.delete(request),
            api.update(f"{request}/status", approved),
            api.create(requests_path("v1"), foreign),
            api.get("/api/v1/nodes/edge-1"),
            api.get("/api/v1/secrets"),
            api.get("/api/v1/pods"),
            api.get(EVENTS),
            api.create(f"{SYSTEM}/events", event),
            api.get(LEASES),
            api.get(f"{LEASES}/kube-controller-manager"),
            api.delete(f"{LEASES}/{LEASE}"),
            api.create("/apis/coordination.k8s.io/v1/namespaces/default/leases", {"metadata": {"name": LEASE}}),
        ):
            with self.assertRaises(ApiError) as caught:
                await call
            self.assertEqual(caught.exception.code, 403, str(caught.exception))
