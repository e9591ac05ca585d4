"""
Tests of the node's Lease through the proxy: kubelet's calls are the hub's, everybody else's the cloud's.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import NODE, HandExchange, MemorySite
from yurt.kube.protobuf import MAGIC, encode_bytes

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
OWN = f"{LEASES}/{NODE}"


def lease(time: str = "2026-01-01T00:00:00.000000Z") -> dict[str, Any]:
    """
    A Lease as kubelet writes it.
    """
    return {
        "kind": "Lease",
        "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"name": NODE, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": time},
    }


class LeaseCallTests(SynchronousTestCase):
    """
    Tests of who is answered by whom, and of the renewals that follow.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.renewals: list[float] = []
        self.site.upstream.on_request = self.take

    def take(self, exchange: HandExchange) -> None:
        """
        The cloud keeps a Lease.
        """
        if exchange.head.method == b"GET":
            exchange.answer(404, {"kind": "Status", "code": 404})
            return
        self.renewals.append(self.site.clock.seconds())
        document = json.loads(exchange.body)
        document["metadata"]["resourceVersion"] = str(len(self.renewals))
        exchange.answer(201 if exchange.head.method == b"POST" else 200, document)

    def test_answered_here(self) -> None:
        """
        All of kubelet's calls are answered by the hub, with the cloud and without, and none is passed on.
        """
        self.site.online()
        for step in (self.site.offline, self.site.online):
            with self.subTest(step=step.__name__):
                step()
                status = self.site.fetch("GET", OWN).status
                if status == 404:
                    self.assertEqual(self.site.fetch("POST", LEASES, lease()).status, 201)
                self.assertEqual(self.site.fetch("POST", LEASES, lease()).status, 409)
                kept = self.site.fetch("GET", OWN)
                self.assertEqual((kept.status, kept.header("x-yurt-source")), (200, "hub"))
                updated = self.site.fetch(
                    "PUT", f"{OWN}?timeout=10s", {**kept.json, "spec": lease("2026-01-02T00:00:00Z")["spec"]}
                )
                self.assertEqual((updated.status, updated.json["spec"]["renewTime"]), (200, "2026-01-02T00:00:00Z"))
                self.assertGreater(
                    int(updated.json["metadata"]["resourceVersion"]), int(kept.json["metadata"]["resourceVersion"])
                )
                patch = {"spec": {"leaseDurationSeconds": 50}}
                patched = self.site.fetch("PATCH", OWN, patch, content_type="application/merge-patch+json; charset=utf-8")
                self.assertEqual((patched.status, patched.json["spec"]["leaseDurationSeconds"]), (200, 50))
        self.assertTrue(all(b"kubelet" not in dict(one.head.headers).get(b"User-Agent", b"") for one in self.site.upstream.seen))

    def test_everybody_elses(self) -> None:
        """
        Another component's calls, another node's Lease and a caller with a token go to the cloud.
        """
        self.site.online()
        self.site.upstream.on_request = None
        for method, path, options in (
            ("GET", OWN, {"agent": "kube-controller-manager"}),
            ("PUT", OWN, {"agent": "kubectl"}),
            ("GET", f"{LEASES}/another", {}),
            ("GET", OWN, {"token": "of-somebody"}),
            ("GET", LEASES, {}),
            ("POST", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", {}),
        ):
            body = None if method == "GET" else lease()
            request = self.site.ask(method, path, body, **options)
            self.site.arriving(path).answer(200, {"kind": "Lease"})
            self.assertEqual(request.header("x-yurt-source"), "cloud", (method, path))

    def another(self) -> tuple[dict[str, Any], bytes]:
        """
        Another Lease in both forms.
        """
        metadata = encode_bytes(1, b"n2") + encode_bytes(3, b"kube-node-lease")
        type_meta = encode_bytes(1, b"coordination.k8s.io/v1") + encode_bytes(2, b"Lease")
        other = {**lease(), "metadata": {"name": "n2", "namespace": "kube-node-lease"}}
        return other, MAGIC + encode_bytes(1, type_meta) + encode_bytes(2, encode_bytes(1, metadata))

    def test_creating_another(self) -> None:
        """
        A new Lease of another name, or none, goes on to the cloud as it came; without the cloud it is refused like any write.
        """
        self.site.online()
        self.site.upstream.on_request = None
        other, protobuf = self.another()
        media = "application/vnd.kubernetes.protobuf"
        nameless = {**lease(), "metadata": {"generateName": "n"}}
        elsewhere = {**lease(), "metadata": {"name": NODE, "namespace": "default"}}
        bodies: list[Any] = [other, protobuf, nameless, elsewhere, b"{", b"x" * 100_000]
        for body in bodies:
            self.site.online()
            request = self.site.ask("POST", LEASES, body, content_type=media if body is protobuf else "application/json")
            arrived = self.site.arriving(LEASES)
            self.assertEqual(arrived.body, body if isinstance(body, bytes) else json.dumps(body).encode())
            arrived.answer(201, {"kind": "Lease", "metadata": {"name": "made"}})
            self.assertEqual((request.status, request.header("x-yurt-source")), (201, "cloud"))
            self.site.offline()
            refused = self.site.fetch("POST", LEASES, body)
            self.assertEqual((refused.status, refused.json["kind"], refused.json["code"]), (503, "Status", 503))
        self.assertEqual(self.site.fetch("GET", OWN).status, 404)

    def test_creating_the_own_in_protobuf(self) -> None:
        """
        The node's own Lease in protobuf, as kubelet sends it, is made here, once.
        """
        metadata = encode_bytes(1, NODE.encode()) + encode_bytes(3, b"kube-node-lease")
        type_meta = encode_bytes(1, b"coordination.k8s.io/v1") + encode_bytes(2, b"Lease")
        body = MAGIC + encode_bytes(1, type_meta) + encode_bytes(2, encode_bytes(1, metadata))
        self.site.offline()
        for status in (201, 409):
            reply = self.site.fetch("POST", LEASES, body, content_type="application/vnd.kubernetes.protobuf")
            self.assertEqual((reply.status, reply.header("x-yurt-source")), (status, "hub"))

    def test_deleting_the_own(self) -> None:
        """
        DELETE of the node's own Lease is the cloud's to do; once it is done, the Lease is gone until kubelet makes it anew.
        """
        self.site.online()
        self.site.fetch("POST", LEASES, lease())
        self.site.run(1)
        self.site.upstream.on_request = None
        refused = self.site.ask("DELETE", OWN)
        self.site.arriving(OWN).answer(403, {"kind": "Status", "code": 403})
        self.assertEqual((refused.status, self.site.fetch("GET", OWN).status), (403, 200))
        deleted = self.site.ask("DELETE", OWN)
        self.site.arriving(OWN).answer(200, {"kind": "Status", "status": "Success"})
        self.assertEqual((deleted.status, deleted.header("x-yurt-source")), (200, "cloud"))
        self.assertEqual(self.site.fetch("GET", OWN).status, 404)
        self.site.reboot()
        self.site.offline()
        self.assertEqual(self.site.fetch("GET", OWN).status, 404)
        self.assertEqual(self.site.fetch("DELETE", OWN).status, 503)
        self.assertEqual(self.site.fetch("PUT", OWN, lease()).status, 201)

    def test_not_kubelets_own_words(self) -> None:
        """
        A dry run and what is asked in another's name are no calls of kubelet about its Lease.
        """
        self.site.online()
        self.site.upstream.on_request = None
        asked: list[tuple[str, str, dict[str, str]]] = [
            ("PUT", f"{OWN}?dryRun=All", {}),
            ("GET", OWN, {"impersonate_user": "somebody"}),
        ]
        for method, target, options in asked:
            request = self.site.ask(method, target, lease() if method == "PUT" else None, **options)
            self.site.arriving(OWN).answer(200, {"kind": "Lease"})
            self.assertEqual(request.header("x-yurt-source"), "cloud", (method, target))

    def test_renewals(self) -> None:
        """
        While kubelet calls, the cloud sees a renewal at least each 10 s; 40 s after its last call they end.
        """
        self.site.online()
        self.site.fetch("POST", LEASES, lease())
        for _ in range(6):
            self.site.run(10)
            self.site.fetch("PUT", OWN, lease())
        moments = [0.0, *self.renewals]
        self.assertLessEqual(max(after - before for before, after in zip(moments[1:], moments[2:])), 10.1)
        self.assertGreaterEqual(len(self.renewals), 6)
        last_call = self.site.clock.seconds()
        self.site.run(200)
        self.assertLessEqual(max(self.renewals), last_call + 40.1)
        self.assertGreater(max(self.renewals), last_call + 25)
        self.assertTrue(self.site.cloud.reachable, "a dead kubelet does not make the cloud unreachable")

    def test_renewals_after_the_cloud_returns(self) -> None:
        """
        No renewal is tried without the cloud; the first comes within seconds of its return.
        """
        self.site.online()
        self.site.fetch("POST", LEASES, lease())
        self.site.run(5)
        self.site.offline()
        before = len(self.renewals)
        for _ in range(3):
            self.site.run(10)
            self.site.fetch("PUT", OWN, lease())
        self.assertEqual(len(self.renewals), before)
        self.site.online()
        back = self.site.clock.seconds()
        self.site.run(3)
        self.assertEqual(len(self.renewals), before + 1)
        self.assertLess(self.renewals[-1], back + 2)
