"""
Upgrades begun on the node: what is done, in whose name, and every refusal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.hub.memory_site import NODE, HandExchange, MemorySite
from tests.hub.site import Site
from tests.hub.test_admin import SampleState
from tests.web_client import get
from yurt.hub.admin import admin_site
from yurt.hub.ota import MAX_UPGRADES, UpgradePage, Upgrades
from yurt.kube.status import status_body
from yurt.metrics import new_registry

POD = "/api/v1/namespaces/edge/pods/nginx-n1"
UPGRADE = "/openyurt.io/v1/namespaces/edge/pods/nginx-n1/upgrade"
PULL = "/openyurt.io/v1/namespaces/edge/pods/nginx-n1/imagepull"
CONFIG_MAP = "/api/v1/namespaces/edge/configmaps/yurt-static-set-nginx"
MANIFEST = "kind: Pod\nmetadata: {name: nginx, namespace: edge}\nspec: {}\n"


def pod(owner: str = "DaemonSet", **changes: Any) -> dict[str, Any]:
    """
    A pod that can be upgraded; ``changes`` are of its metadata, spec or status.
    """
    metadata = {
        "name": "nginx-n1", "namespace": "edge", "uid": "u1", "resourceVersion": "5",
        "ownerReferences": [{"kind": owner, "name": "nginx", "controller": True}],
    }  # fmt: skip
    condition = {"type": "PodNeedUpgrade", "status": "True", "message": "version:abc"}
    document: dict[str, Any] = {
        "kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"nodeName": NODE},
        "status": {"conditions": [{"type": "Ready", "status": "True"}, condition]},
    }  # fmt: skip
    for part, values in changes.items():
        document[part] = {**document[part], **values}
    return document


class UpgradeCase(SynchronousTestCase):
    """
    A hub, its admin pages, and a cloud that answers as ``answers`` say, by method and path.
    """

    def setUp(self) -> None:
        self.hub_site = MemorySite(self)
        self.manifests = Path(self.mktemp())
        self.manifests.mkdir()
        (self.manifests / "nginx.yaml").write_text(MANIFEST)
        page = UpgradePage(Upgrades(self.hub_site.hub, str(self.manifests)))
        self.page = page
        self.admin = admin_site(SampleState(), new_registry(), None, page)
        self.hub_site.online()
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {
            ("GET", POD): (200, pod()),
            ("DELETE", POD): (200, pod()),
            ("PATCH", f"{POD}/status"): (200, pod()),
            ("GET", CONFIG_MAP): (200, {"kind": "ConfigMap", "data": {"nginx": MANIFEST.replace("{}", "{hostNetwork: true}")}}),
        }
        self.asked: list[HandExchange] = []
        self.hub_site.upstream.on_request = self.answer

    def answer(self, exchange: HandExchange) -> None:
        """
        What the cloud says.
        """
        method = exchange.head.method.decode()
        if "edge" in exchange.path:
            self.asked.append(exchange)
        exchange.answer(*self.answers.get((method, exchange.path), (404, status_body(404, "NotFound", "not found"))))

    def post(self, path: str = UPGRADE, *headers: str, peer: str = "127.0.0.1", method: str = "POST") -> tuple[int, str]:
        """
        Status and text of an answer.
        """
        protocol = self.admin.buildProtocol(IPv4Address("TCP", peer, 40000))
        assert protocol is not None
        transport = StringTransport(peerAddress=IPv4Address("TCP", peer, 40000))
        protocol.makeConnection(transport)
        lines = [f"{method} {path} HTTP/1.1", "Host: admin", "Connection: close", "Content-Length: 0", *headers, "", ""]
        protocol.dataReceived("\r\n".join(lines).encode())
        self.hub_site.run_until(lambda: transport.value())
        protocol.connectionLost(Failure(ConnectionDone()))
        head, _, body = transport.value().partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    def done(self) -> list[tuple[str, str]]:
        """
        What the cloud was asked.
        """
        return [(one.head.method.decode(), one.head.target.decode()) for one in self.asked]

    def field(self, exchange: HandExchange, name: bytes) -> bytes | None:
        """
        A header of what the cloud was asked.
        """
        return dict((key.lower(), value) for key, value in exchange.head.headers).get(name)


class DaemonSetTests(UpgradeCase):
    """
    Pods of a DaemonSet.
    """

    def test_upgrade(self) -> None:
        """
        The pod is deleted, that very one, and its DaemonSet makes a newer one.
        """
        self.assertEqual(self.post(), (200, "Start updating pod edge/nginx-n1"))
        self.assertEqual(self.done(), [("GET", POD), ("DELETE", POD)])
        self.assertEqual(json.loads(self.asked[1].body)["preconditions"], {"uid": "u1"})
        self.assertIsNone(self.field(self.asked[1], b"authorization"))

    def test_own_credentials(self) -> None:
        """
        A caller with a token is judged by the cloud, by that token, wherever it calls from.
        """
        for peer in ("127.0.0.1", "10.244.0.7"):
            self.asked.clear()
            self.assertEqual(self.post(UPGRADE, "Authorization: Bearer a-pods-own", peer=peer)[0], 200)
            self.assertEqual([self.field(one, b"authorization") for one in self.asked], [b"Bearer a-pods-own"] * 2)
        self.answers["DELETE", POD] = (403, status_body(403, "Forbidden", "may not delete pods"))
        status, text = self.post(UPGRADE, "Authorization: Bearer a-pods-own")
        self.assertEqual(status, 403)
        self.assertIn("may not delete pods", text)

    def test_no_credentials(self) -> None:
        """
        The node's name is lent on loopback only, to nobody in another's name, and for no other kind of credential.
        """
        self.assertEqual(self.post(peer="10.244.0.7")[0], 401)
        self.assertEqual(self.post(UPGRADE, "Impersonate-User: root")[0], 401)
        self.assertEqual(self.post(UPGRADE, "Authorization: Basic YTpi")[0], 401)
        self.assertEqual(self.done(), [])

    def test_not_updatable(self) -> None:
        """
        A pod that is not there, is being deleted, is elsewhere, or needs no upgrade is left alone.
        """
        needless = {"conditions": [{"type": "PodNeedUpgrade", "status": "False"}]}
        for answer in (
            (404, status_body(404, "NotFound", "no")),
            (200, pod(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})),
            (200, pod(spec={"nodeName": "n2"})),
            (200, pod(status=needless)),
            (200, pod(status={"conditions": None})),
        ):
            self.asked.clear()
            self.answers["GET", POD] = answer
            for path in (UPGRADE, PULL):
                status, text = self.post(path)
                self.assertEqual((status, text.startswith("Pod is not-updatable: ")), (403, True), text)
            self.assertEqual(self.done(), [("GET", POD)] * 2)

    def test_other_owners(self) -> None:
        """
        Pods of other owners are not upgraded so.
        """
        for document, kind in ((pod("ReplicaSet"), "ReplicaSet"), (pod(metadata={"ownerReferences": []}), "without owner")):
            self.answers["GET", POD] = (200, document)
            self.assertEqual(self.post(), (400, f"Not support ota upgrade pod type {kind}"))

    def test_offline(self) -> None:
        """
        Without the cloud nothing is upgraded.
        """
        self.hub_site.offline()
        said = (403, "OTA update is not allowed when edge is disconnected to cloud")
        self.assertEqual((self.post(), self.post(PULL)), (said, said))

    def test_failing_cloud(self) -> None:
        """
        What goes wrong on the way is told, as a failure.
        """
        self.answers["DELETE", POD] = (500, status_body(500, "InternalError", "etcd is away"))
        status, text = self.post()
        self.assertEqual((status, text.startswith("Apply update failed: ")), (500, True))
        self.assertIn("etcd is away", text)
        self.answers["DELETE", POD] = (409, status_body(409, "Conflict", "another uid"))
        self.assertEqual(self.post()[0], 409)
        self.answers["GET", POD] = (200, b"<html>")
        self.assertEqual(self.post()[0], 500)

    def test_paths(self) -> None:
        """
        Other paths are 404, other methods 405, names that are none 400.
        """
        self.assertEqual(self.post("/openyurt.io/v1/pods/x/upgrade")[0], 404)
        self.assertEqual(self.post(UPGRADE.replace("upgrade", "explode"))[0], 404)
        self.assertEqual(self.post(UPGRADE.replace("edge", "%2e%2e"))[0], 400)
        self.assertEqual(self.post(UPGRADE.replace("nginx-n1", "a%2Fb"))[0], 400)
        self.assertEqual(get(self.admin, UPGRADE)[0], 405)
        self.assertEqual(self.done(), [])

    def test_hung_up(self) -> None:
        """
        A caller that hangs up before the pod was deleted leaves it.
        """
        self.hub_site.upstream.on_request = None
        protocol = self.admin.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40000))
        assert protocol is not None
        protocol.makeConnection(StringTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 40000)))
        protocol.dataReceived(f"POST {UPGRADE} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode())
        waiting = self.hub_site.arriving(POD)
        self.assertEqual(self.page._running, 1)
        protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual((waiting.cancelled, self.page._running), (True, 0))

    def test_bounded(self) -> None:
        """
        No more than so many at once.
        """
        self.page._running = MAX_UPGRADES
        self.assertEqual(self.post()[0], 429)
        self.page._running = 0
        self.assertEqual(self.post()[0], 200)
        self.assertEqual(self.page._running, 0)


class StaticPodTests(UpgradeCase):
    """
    Static pods.
    """

    def setUp(self) -> None:
        super().setUp()
        self.answers["GET", POD] = (200, pod("Node"))
        self.file = self.manifests / "nginx.yaml"

    def test_upgrade(self) -> None:
        """
        The ConfigMap's manifest replaces the one on the node, if the caller may delete the pod.
        """
        self.assertEqual(self.post(), (200, "Start updating pod edge/nginx-n1"))
        self.assertEqual(self.done(), [("GET", POD), ("GET", CONFIG_MAP), ("DELETE", POD)])
        self.assertEqual(json.loads(self.asked[-1].body)["dryRun"], ["All"])
        self.assertIn("hostNetwork", self.file.read_text())
        backup = Path(self.hub_site.config.root_dir, "manifests", "nginx.yaml.bak")
        self.assertEqual(backup.read_text(), MANIFEST)

    def test_refused(self) -> None:
        """
        Without the right to delete the pod, without ConfigMap, or with a name that is not the node's, nothing is replaced.
        """
        self.answers["DELETE", POD] = (403, status_body(403, "Forbidden", "may not delete pods"))
        self.assertEqual(self.post(UPGRADE, "Authorization: Bearer a-pods-own")[0], 403)
        del self.answers["GET", CONFIG_MAP]
        self.assertEqual(self.post(), (403, "Configmap for static pod does not exist"))
        other = UPGRADE.replace("nginx-n1", "nginx")
        self.answers["GET", POD.removesuffix("-n1")] = (200, pod("Node"))
        status, text = self.post(other)
        self.assertEqual((status, text.startswith("Pod is not-updatable: ")), (403, True))
        self.assertEqual(self.file.read_text(), MANIFEST)

    def test_failed(self) -> None:
        """
        A manifest that does not fit is a failure that says why, and leaves the one that was there.
        """
        self.answers["GET", CONFIG_MAP] = (200, {"kind": "ConfigMap", "data": {"nginx": "kind: Service"}})
        status, text = self.post()
        self.assertEqual((status, text), (500, "Apply update failed: entry nginx of the ConfigMap is no Pod"))
        self.assertEqual(self.file.read_text(), MANIFEST)


class PullTests(UpgradeCase):
    """
    Pulling an image ahead.
    """

    def test_pull(self) -> None:
        """
        The pod's status asks for the version that yurt-manager named.
        """
        self.assertEqual(self.post(PULL), (200, "Image pre-pull requested for pod edge/nginx-n1"))
        self.assertEqual(self.done()[1], ("PATCH", f"{POD}/status?fieldManager=yurthub-ota"))
        patch = json.loads(self.asked[1].body)
        self.assertEqual(patch["status"]["conditions"], [{"type": "PodImageReady", "status": "False", "message": "version:abc"}])
        self.assertEqual(self.field(self.asked[1], b"content-type"), b"application/strategic-merge-patch+json")

    def test_no_version(self) -> None:
        """
        Where no version is named there is none to pull.
        """
        conditions = {"conditions": [{"type": "PodNeedUpgrade", "status": "True"}]}
        self.answers["GET", POD] = (200, pod(status=conditions))
        status, text = self.post(PULL)
        self.assertEqual((status, text.startswith("Pod is not-updatable: ")), (403, True))


class WholeHubTests(TestCase):
    """
    A hub on sockets, and a cloud that speaks like a real one.
    """

    timeout = 180

    async def test_upgrade(self) -> None:
        """
        One call on the node, and the cloud's pod ends as pods do; again, and there is nothing to upgrade.
        """
        site = Site(self)
        site.api.put("pods", pod())
        await site.start_online()
        reply = await site.admin(UPGRADE, "POST")
        self.assertEqual((reply.status, reply.body), (200, b"Start updating pod edge/nginx-n1"))
        self.assertIn("deletionTimestamp", (await site.get(POD)).json["metadata"])
        reply = await site.admin(UPGRADE, "POST")
        self.assertEqual((reply.status, reply.body), (403, b"Pod is not-updatable: it is being deleted"))
        reply = await site.admin(UPGRADE, "POST", authorization="Bearer of-nobody")
        self.assertEqual(reply.status, 401)
