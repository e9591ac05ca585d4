"""
Tests of writes, with the cloud and without, on a clock.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MAPS, NODE, PODS, MemorySite, config_map
from yurt.kube.protobuf import MAGIC, encode_bytes

NODES = "/api/v1/nodes"
STATUS = f"{NODES}/{NODE}/status"
EVENTS = "/api/v1/namespaces/default/events"
POD_LIST = f"{PODS}?fieldSelector=spec.nodeName%3D{NODE}"
POD_STATUS = "/api/v1/namespaces/default/pods/web/status"
STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


def node(version: int = 5, **status: Any) -> dict[str, Any]:
    """
    The node as it comes from the cloud.
    """
    metadata = {"name": NODE, "resourceVersion": str(version), "uid": "uid-node", "labels": {"zone": "a"}}
    conditions = [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}]
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": metadata,
        "spec": {"podCIDR": "10.0.0.0/24"},
        "status": {"conditions": conditions, **status},
    }


def pod(name: str = "web", version: int = 6, phase: str = "Pending", **metadata: Any) -> dict[str, Any]:
    """
    A pod as it comes from the cloud.
    """
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default", "resourceVersion": str(version), "uid": f"uid-{name}", **metadata},
        "spec": {"nodeName": NODE},
        "status": {"phase": phase},
    }


class OnlineTests(SynchronousTestCase):
    """
    Tests of writes while the cloud answers.
    """

    def test_passed_on(self) -> None:
        """
        Every kind of write reaches the cloud as it was made, and its answer the client.
        """
        site = MemorySite(self)
        site.online()
        for method, path, headers in (
            ("POST", MAPS, {}),
            ("PUT", f"{MAPS}/a", {}),
            ("PATCH", f"{MAPS}/a", {"content_type": MERGE}),
            ("DELETE", f"{MAPS}/a", {}),
            ("POST", EVENTS, {}),
            ("PATCH", STATUS, {"content_type": STRATEGIC}),
            ("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", {}),
        ):
            request = site.ask(method, path, b'{"some": "body"}', **headers)
            exchange = site.arriving(path)
            self.assertEqual((exchange.head.method, exchange.body), (method.encode(), b'{"some": "body"}'))
            exchange.answer(222, b"said the cloud")
            self.assertEqual((request.status, request.data, request.header("x-yurt-source")), (222, b"said the cloud", "cloud"))
        self.assertEqual(len(site.hub.journal), 0)


class RefusalTests(SynchronousTestCase):
    """
    Tests of what only the cloud can do.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()
        self.site.store_list(NODES, [node()], "10", "NodeList")
        self.site.store_list(MAPS, [config_map("a", 3)], "10")

    def test_creating_what_exists(self) -> None:
        """
        POST of what the cache holds is answered with 409, whether its body is JSON or protobuf.
        """
        self.site.offline()
        type_meta = encode_bytes(1, b"v1") + encode_bytes(2, b"Node")
        protobuf = MAGIC + encode_bytes(1, type_meta) + encode_bytes(2, encode_bytes(1, encode_bytes(1, NODE.encode())))
        for body, media in ((node(), "application/json"), (protobuf, "application/vnd.kubernetes.protobuf")):
            reply = self.site.fetch("POST", NODES, body, content_type=media)
            self.assertEqual((reply.status, reply.json["reason"]), (409, "AlreadyExists"), media)
            self.assertEqual(reply.json["message"], f'nodes "{NODE}" already exists')
            self.assertEqual(reply.header("x-yurt-source"), "hub")

    def test_everything_else(self) -> None:
        """
        Other creations, updates, patches and deletions: 503 with a reason, and the cache stays as it is.  No Retry-After, which
        would make kubectl repeat the write in silence instead of telling the reason.
        """
        self.site.offline()
        for method, path, headers in (
            ("POST", MAPS, {}),
            ("PUT", f"{MAPS}/a", {}),
            ("PATCH", f"{MAPS}/a", {"content_type": MERGE}),
            ("PATCH", f"{NODES}/{NODE}", {"content_type": MERGE}),
            ("DELETE", f"{MAPS}/a", {}),
            ("DELETE", MAPS, {}),
            ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {}),
            ("POST", "/api/v1/namespaces/default/pods/web/eviction", {}),
        ):
            reply = self.site.fetch(method, path, {"metadata": {"name": "new"}}, **headers)
            self.assertEqual((reply.status, reply.json["reason"]), (503, "ServiceUnavailable"), (method, path))
            self.assertIn("not reachable", reply.json["message"])
            self.assertEqual((reply.header("retry-after"), reply.header("x-yurt-source")), ("", "hub"))
        self.assertEqual([item["metadata"]["name"] for item in self.site.fetch("GET", MAPS).json["items"]], ["a"])
        self.assertEqual(len(self.site.hub.journal), 0)

    def test_cut_in_the_middle(self) -> None:
        """
        A write that may have been carried out is answered with 504, which says so; one that certainly was not with 503.
        """
        for sent, status in ((True, 504), (False, 503)):
            for method, path in (("POST", MAPS), ("PUT", f"{MAPS}/a"), ("DELETE", f"{MAPS}/a")):
                request = self.site.ask(method, path, {"metadata": {"name": "new"}})
                self.site.arriving(path).fail("gone", sent=sent)
                self.site.run(0.1)
                self.assertEqual((request.status, request.header("x-yurt-source")), (status, "hub"), (method, sent))
                self.site.run(2)
        self.assertEqual(len([one for one in self.site.upstream.seen if one.head.method != b"GET"]), 6)

    def test_silence(self) -> None:
        """
        A cloud that swallows a write is found out, and the client told within 2 s.
        """
        request = self.site.ask("POST", MAPS, {"metadata": {"name": "new"}})
        self.site.arriving(MAPS)
        self.site.upstream.alive = False
        self.site.run(2)
        self.assertEqual(request.status, 504)

    def test_other_server(self) -> None:
        """
        A write of which the first server got nothing goes to the other one.
        """
        site = MemorySite(self, servers=2)
        site.run(1)
        request = site.ask("POST", MAPS, {"metadata": {"name": "new"}})
        first = site.arriving(MAPS)
        first.fail("refused", sent=False)
        second = site.arriving(MAPS)
        self.assertIsNot(first.upstream, second.upstream)
        self.assertEqual(json.loads(second.body), {"metadata": {"name": "new"}})
        second.answer(201, config_map("new", 11))
        self.assertEqual(request.status, 201)
