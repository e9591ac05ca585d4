"""
Tests of writes of the status of nodes and pods, on a clock.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import NODE, PODS, MemoryRequest, MemorySite
from tests.hub.test_writes import EVENTS, JSON_PATCH, MERGE, NODES, POD_LIST, POD_STATUS, STATUS, STRATEGIC, node, pod
from yurt.kube.patch import apply_patch
from yurt.kube.protobuf import MAGIC, encode_bytes


class StatusTests(SynchronousTestCase):
    """
    Tests of the status of nodes and pods without the cloud.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()
        self.site.store_list(NODES, [node()], "10", "NodeList")
        self.site.store_list(POD_LIST, [pod()], "10", "PodList")

    def patch_status(self, body: Any, path: str = STATUS, kind: str = STRATEGIC, **options: Any) -> MemoryRequest:
        """
        A PATCH of a status.
        """
        return self.site.fetch("PATCH", path, body, content_type=kind, **options)

    def test_strategic(self) -> None:
        """
        kubelet's patch is merged by the types of conditions, answered whole, and read by GET and LIST.
        """
        self.site.offline()
        body = {"metadata": {"uid": "uid-node"}, "status": {"conditions": [{"type": "Ready", "status": "False"}]}}
        reply = self.patch_status(body)
        self.assertEqual((reply.status, reply.header("x-yurt-source")), (200, "hub"))
        expected = [{"type": "Ready", "status": "False"}, {"type": "DiskPressure", "status": "False"}]
        self.assertEqual(reply.json["status"]["conditions"], expected)
        self.assertEqual(reply.json["spec"], node()["spec"])
        self.assertEqual(self.site.fetch("GET", f"{NODES}/{NODE}").json["status"]["conditions"], expected)
        (item,) = self.site.fetch("GET", NODES).json["items"]
        self.assertEqual(item["status"]["conditions"], expected)

    def test_other_patches(self) -> None:
        """
        JSON merge patch, JSON patch and PUT change the status, and nothing but the status.
        """
        self.site.offline()
        reply = self.patch_status({"status": {"phase": "Running"}, "spec": {"nodeName": "x"}}, POD_STATUS, MERGE)
        self.assertEqual((reply.json["status"]["phase"], reply.json["spec"]), ("Running", {"nodeName": NODE}))
        reply = self.patch_status([{"op": "add", "path": "/status/podIP", "value": "10.0.0.9"}], POD_STATUS, JSON_PATCH)
        self.assertEqual(reply.json["status"], {"phase": "Running", "podIP": "10.0.0.9"})
        reply = self.site.fetch("PUT", POD_STATUS, {**pod(), "spec": {}, "status": {"phase": "Failed"}})
        self.assertEqual((reply.status, reply.json["status"], reply.json["spec"]), (200, {"phase": "Failed"}, {"nodeName": NODE}))

    def test_another_object(self) -> None:
        """
        A status of an object with another uid, or of another version, is a Conflict, as it is for the cloud.
        """
        self.site.offline()
        for precondition in ({"uid": "uid-other"}, {"resourceVersion": "4"}):
            reply = self.patch_status({"metadata": precondition, "status": {"phase": "x"}})
            self.assertEqual((reply.status, reply.json["reason"]), (409, "Conflict"))
        self.assertEqual(len(self.site.hub.journal), 0)

    def test_bad_patch(self) -> None:
        """
        A patch that does not fit is the client's mistake.
        """
        self.site.offline()
        reply = self.patch_status([{"op": "replace", "path": "/status/nothing/here", "value": 1}], kind=JSON_PATCH)
        self.assertEqual((reply.status, reply.json["reason"]), (400, "BadRequest"))
        for kind, body in ((MERGE, {"metadata": None}), (MERGE, {"status": 5}), (MERGE, [1]), (STRATEGIC, b"{no")):
            self.assertEqual(self.patch_status(body, kind=kind).status, 400, body)
        self.assertEqual(self.site.fetch("PUT", STATUS, b"[]").status, 400)
        self.assertEqual(len(self.site.hub.journal), 0)

    def test_other_media_types(self) -> None:
        """
        A status in a form that is not read here, such as protobuf, is refused with the forms that are: in one of these it is
        taken without waiting for the cloud.
        """
        self.site.offline()
        protobuf = MAGIC + encode_bytes(1, encode_bytes(1, b"v1") + encode_bytes(2, b"Pod")) + encode_bytes(2, b"")
        for method, body, kind, taken in (
            ("PUT", protobuf, "application/vnd.kubernetes.protobuf", "application/json"),
            ("PUT", protobuf, "application/json", "application/json"),
            ("PUT", b"kind: Pod", "application/yaml", "application/json"),
            ("PATCH", b"{}", "application/json", MERGE),
        ):
            reply = self.site.fetch(method, POD_STATUS, body, content_type=kind)
            self.assertEqual((reply.status, reply.json["reason"]), (415, "UnsupportedMediaType"), kind)
            self.assertTrue(taken in reply.json["message"] and "the cloud is not reachable" in reply.json["message"])
        self.assertEqual(len(self.site.hub.journal), 0)
        self.assertEqual(self.site.fetch("PUT", POD_STATUS, pod(phase="Failed"), content_type="application/json").status, 200)

    def test_protobuf_that_may_have_arrived(self) -> None:
        """
        Nobody knows whether a status that was sent, and not answered, has been taken: 504.
        """
        request = self.site.ask("PUT", POD_STATUS, MAGIC, content_type="application/vnd.kubernetes.protobuf")
        self.site.arriving(POD_STATUS).fail()
        self.site.run_until(lambda: request.finished)
        self.assertEqual((request.status, request.json["reason"]), (504, "Timeout"))

    def test_what_only_the_cloud_can_do(self) -> None:
        """
        A server-side apply needs the cloud, and what is only to be tried must change nothing: 503, and nothing is kept.
        """
        self.site.offline()
        applied = self.patch_status({"kind": "Node", "apiVersion": "v1"}, kind="application/apply-patch+yaml")
        tried = self.patch_status({"status": {"phase": "x"}}, f"{STATUS}?dryRun=All")
        event = self.site.fetch("POST", f"{EVENTS}?dryRun=All", {"metadata": {"name": "e"}})
        for reply in (applied, tried, event):
            self.assertEqual((reply.status, reply.json["reason"]), (503, "ServiceUnavailable"))
        self.assertEqual(len(self.site.hub.journal), 0)
        self.assertNotIn("phase", self.site.fetch("GET", f"{NODES}/{NODE}").json["status"])

    def test_watchers(self) -> None:
        """
        Each held watch hears of a local change as its namespace, selectors and identity let it.
        """
        watches = {
            "all": self.site.ask("GET", f"{PODS}?watch=true&resourceVersion=10"),
            "namespace": self.site.ask("GET", "/api/v1/namespaces/default/pods?watch=true&resourceVersion=10"),
            "elsewhere": self.site.ask("GET", "/api/v1/namespaces/other/pods?watch=true&resourceVersion=10"),
            "running": self.site.ask("GET", f"{PODS}?watch=true&resourceVersion=10&fieldSelector=status.phase%3DRunning"),
            "pending": self.site.ask("GET", f"{PODS}?watch=true&resourceVersion=10&fieldSelector=status.phase%3DPending"),
            "labelled": self.site.ask("GET", f"{PODS}?watch=true&resourceVersion=10&labelSelector=app"),
            "nodes": self.site.ask("GET", f"{NODES}?watch=true&resourceVersion=10"),
            "another": self.site.ask("GET", f"{PODS}?watch=true&resourceVersion=10", agent="coredns"),
        }
        self.site.run(0.1)
        for exchange in [*self.site.at_cloud(PODS), *self.site.at_cloud("/api/v1/namespaces/default/pods")]:
            exchange.begin()
        for exchange in [*self.site.at_cloud("/api/v1/namespaces/other/pods"), *self.site.at_cloud(NODES)]:
            exchange.begin()
        self.site.offline()
        self.assertEqual(self.patch_status({"status": {"phase": "Running"}}, POD_STATUS).status, 200)
        heard = {name: [one["type"] for one in request.events] for name, request in watches.items()}
        self.assertEqual(
            heard,
            {
                "all": ["MODIFIED"],
                "namespace": ["MODIFIED"],
                "elsewhere": [],
                "running": ["ADDED"],
                "pending": ["DELETED"],
                "labelled": [],
                "nodes": [],
                "another": [],
            },
        )
        self.assertEqual(watches["all"].events[0]["object"]["status"]["phase"], "Running")

    def test_watcher_that_does_not_read(self) -> None:
        """
        A held watch whose client does not read is broken off rather than fed, or left without the change.
        """
        request = self.site.ask("GET", f"{PODS}?watch=true&resourceVersion=10")
        self.site.arriving(PODS).begin()
        self.site.offline()
        request.stop_reading()
        self.patch_status({"status": {"phase": "Running"}}, POD_STATUS)
        self.assertEqual((request.data, request.aborted), (b"", True))

    def test_refused_state_is_taken_back(self) -> None:
        """
        A status that the cloud does not take is not read from the cache any more: the object is what it was before.
        """
        for refusal in (422, 409, 404):
            self.site.offline()
            self.patch_status({"status": {"phase": "Running"}}, POD_STATUS)
            self.patch_status({"status": {"podIP": "10.0.0.9"}}, POD_STATUS)
            self.assertEqual(self.site.fetch("GET", POD_STATUS).json["status"], {"phase": "Running", "podIP": "10.0.0.9"})
            self.site.online()
            reasons = {422: "Invalid", 409: "Conflict", 404: "NotFound"}
            self.site.arriving(POD_STATUS).answer(refusal, {"kind": "Status", "reason": reasons[refusal], "code": refusal})
            self.site.offline()
            self.assertEqual(self.site.fetch("GET", POD_STATUS).json["status"], pod()["status"])
            self.assertEqual(self.site.fetch("GET", POD_LIST).json["items"][0]["status"], pod()["status"])
        self.assertEqual((self.site.hub.journal.dropped, len(self.site.hub.journal)), (3, 0))

    def test_refused_but_newer(self) -> None:
        """
        A version that the cloud has told meanwhile stays.
        """
        self.site.offline()
        self.patch_status({"status": {"phase": "Running"}}, POD_STATUS)
        self.site.online()
        patch = self.site.arriving(POD_STATUS)
        self.site.store_list(POD_LIST, [pod(version=12, phase="Failed")], "12", "PodList")
        patch.answer(422, {"kind": "Status", "reason": "Invalid", "code": 422})
        self.site.offline()
        self.assertEqual(self.site.fetch("GET", POD_STATUS).json["status"]["phase"], "Failed")

    def test_last_state_is_sent(self) -> None:
        """
        Of many changes the last state is sent, once, with the uid that it is about, before watches resume.
        """
        watching, exchange = self.site.ask("GET", f"{NODES}?watch=true&resourceVersion=10"), self.site.arriving(NODES)
        exchange.begin()
        self.site.offline()
        for count in range(5):
            self.patch_status({"status": {"conditions": [{"type": "Ready", "status": "True", "message": str(count)}]}})
        self.assertEqual((len(watching.events), len(self.site.hub.journal)), (5, 1))
        self.site.online()
        sent = self.site.arriving(STATUS)
        self.assertEqual(self.site.at_cloud(NODES), [])
        self.assertEqual(sent.head.method, b"PATCH")
        self.assertIn((b"Content-Type", STRATEGIC.encode()), sent.head.headers)
        body = json.loads(sent.body)
        self.assertEqual(body["metadata"], {"uid": "uid-node"})
        self.assertEqual([one.get("message") for one in body["status"]["conditions"]], ["4", None])
        sent.answer(200, node(11))
        self.site.run(20)
        self.assertEqual((len(self.site.hub.journal), self.site.hub.journal.dropped), (0, 0))
        self.assertEqual(len([one for one in self.site.upstream.seen if one.path == STATUS]), 1)

    def test_labels_and_annotations(self) -> None:
        """
        What kubelet changes among labels and annotations with the status is kept and sent with it, and nothing else of them.
        """
        self.site.offline()
        self.patch_status({"metadata": {"labels": {"zone": None, "arch": "arm64"}}})
        reply = self.patch_status({"metadata": {"annotations": {"ttl": "0"}}, "status": {"phase": "x"}})
        self.assertEqual(reply.json["metadata"]["labels"], {"arch": "arm64"})
        self.assertEqual(reply.json["metadata"]["annotations"], {"ttl": "0"})
        self.site.online()
        sent = json.loads(self.site.arriving(STATUS).body)
        expected = {"uid": "uid-node", "labels": {"zone": None, "arch": "arm64"}, "annotations": {"ttl": "0"}}
        self.assertEqual((sent["metadata"], sent["status"]["phase"]), (expected, "x"))

    def test_addresses(self) -> None:
        """
        A node with two addresses of one type keeps both in the cloud: they are replaced together.
        """
        had = node(6, addresses=[{"type": "InternalIP", "address": "10.0.0.9"}])
        self.site.store_list(NODES, [had], "11", "NodeList")
        self.site.offline()
        addresses = [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "InternalIP", "address": "fd00::1"}]
        reply = self.patch_status({"status": {"addresses": [*addresses, {"$patch": "replace"}]}})
        self.assertEqual(reply.json["status"]["addresses"], addresses)
        self.site.online()
        body = json.loads(self.site.arriving(STATUS).body)
        self.assertEqual(body["status"]["addresses"], [*addresses, {"$patch": "replace"}])

    def test_exactly_the_last_state(self) -> None:
        """
        What ended during the cut, over several writes and a restart, ends in the cloud: IPs, conditions, fields.
        """
        condition = {"type": "Ready", "status": "False", "reason": "ContainersNotReady"}
        begun = pod(version=7, phase="Pending")
        begun["status"] = {"phase": "Pending", "message": "waits", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [condition]}
        self.site.store_list(POD_LIST, [begun], "11", "PodList")
        self.site.offline()
        self.patch_status({"status": {"message": None, "podIPs": [{"ip": "10.0.0.2"}, {"$patch": "replace"}]}}, POD_STATUS)
        self.site.reboot()
        self.site.offline()
        ended = [{"$patch": "delete", "type": "Ready"}, {"type": "Initialized", "status": "True"}]
        reply = self.patch_status({"status": {"phase": "Running", "conditions": ended}}, POD_STATUS)
        last = {"phase": "Running", "podIPs": [{"ip": "10.0.0.2"}], "conditions": [{"type": "Initialized", "status": "True"}]}
        self.assertEqual(reply.json["status"], last)
        self.site.online()
        sent = self.site.arriving(POD_STATUS)
        merged = apply_patch(STRATEGIC, begun, sent.body, "Pod")
        self.assertEqual((merged["status"], json.loads(sent.body)["metadata"]), (last, {"uid": "uid-web"}))

    def test_refused_by_the_cloud(self) -> None:
        """
        A state that the cloud does not want (the object is another one by now) is dropped and counted.
        """
        self.site.offline()
        self.patch_status({"status": {"phase": "Running"}}, POD_STATUS)
        self.site.online()
        self.site.arriving(POD_STATUS).answer(409, {"kind": "Status", "code": 409})
        self.assertEqual((len(self.site.hub.journal), self.site.hub.journal.dropped), (0, 1))

    def test_no_overtaking(self) -> None:
        """
        A state written while an earlier one still waits joins it, so that the cloud ends with the newest.
        """
        self.site.offline()
        self.patch_status({"status": {"phase": "Running"}}, POD_STATUS)
        self.site.online()
        sent = self.site.arriving(POD_STATUS)
        reply = self.patch_status({"status": {"podIP": "10.0.0.9"}}, POD_STATUS)
        self.assertEqual((reply.status, reply.header("x-yurt-source")), (200, "hub"))
        sent.answer(200, pod(version=11, phase="Running"))
        last = self.site.arriving(POD_STATUS)
        self.assertEqual(json.loads(last.body)["status"], {"phase": "Running", "podIP": "10.0.0.9"})
        last.answer(200, pod(version=12))
        self.assertEqual(len(self.site.hub.journal), 0)
        request = self.site.ask("PATCH", POD_STATUS, {"status": {"phase": "Failed"}}, content_type=STRATEGIC)
        self.site.arriving(POD_STATUS).answer(200, pod(version=13))
        self.assertEqual(request.header("x-yurt-source"), "cloud")

    def test_cloud_wins_when_newer(self) -> None:
        """
        The local state stands until the cloud has a newer one.
        """
        self.site.offline()
        self.patch_status({"status": {"phase": "Running"}}, POD_STATUS)
        self.site.online()
        self.site.arriving(POD_STATUS).answer(200, pod(version=11, phase="Running"))
        self.site.store_list(POD_LIST, [pod(version=12, phase="Succeeded")], "12", "PodList")
        self.site.offline()
        reply = self.site.fetch("GET", "/api/v1/namespaces/default/pods/web")
        self.assertEqual(reply.json["status"]["phase"], "Succeeded")

    def test_survives_a_restart(self) -> None:
        """
        What was acknowledged is there after a restart: to be read, and to be sent.
        """
        self.site.offline()
        self.patch_status({"status": {"phase": "Running"}}, POD_STATUS)
        self.site.reboot()
        self.site.offline()
        self.assertEqual(self.site.fetch("GET", "/api/v1/namespaces/default/pods/web").json["status"]["phase"], "Running")
        self.site.online()
        self.assertEqual(json.loads(self.site.arriving(POD_STATUS).body)["status"], {"phase": "Running"})

    def test_only_kubelet(self) -> None:
        """
        Nobody else's status is kept: 503, and nothing changes.
        """
        self.site.store_list(NODES, [node()], "10", "NodeList", agent="kube-proxy")
        self.site.offline()
        reply = self.patch_status({"status": {"conditions": []}}, agent="kube-proxy")
        self.assertEqual((reply.status, reply.json["reason"]), (503, "ServiceUnavailable"))
        self.assertEqual(self.site.fetch("GET", f"{NODES}/{NODE}").json["status"], node()["status"])
        self.assertEqual(self.patch_status({"status": {}}, token="a.b.c").status, 401)
        self.assertEqual(len(self.site.hub.journal), 0)

    def test_impersonation(self) -> None:
        """
        In another's name nothing is kept without the cloud, whoever asks: neither a status nor an event.
        """
        token = "opaque-token-of-a-pod"
        self.site.ask("GET", PODS, token=token)
        self.site.arriving(PODS).answer(200, {"kind": "PodList", "apiVersion": "v1", "items": []})
        self.site.offline()
        created = {"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e", "namespace": "default"}}
        self.assertEqual(self.site.fetch("POST", EVENTS, created, token=token).status, 201)
        for options in ({"token": token}, {}):
            for method, path in (("POST", EVENTS), ("PATCH", POD_STATUS), ("GET", PODS)):
                headers = {"content_type": STRATEGIC, "impersonate_user": "someone", **options}
                reply = self.site.fetch(method, path, None if method == "GET" else created, **headers)
                self.assertEqual((reply.status, reply.header("x-yurt-source")), (401, "hub"), (method, path, options))
        self.assertEqual(len(self.site.hub.journal), 1)

    def test_never_seen(self) -> None:
        """
        A status of what the cache does not hold cannot be merged.
        """
        self.site.offline()
        reply = self.patch_status({"status": {"phase": "Running"}}, "/api/v1/namespaces/default/pods/unknown/status")
        self.assertEqual(reply.status, 503)

    def test_cut_in_the_middle(self) -> None:
        """
        A status whose sending broke off is kept, and sent again.
        """
        request = self.site.ask("PATCH", POD_STATUS, {"status": {"phase": "Running"}}, content_type=STRATEGIC)
        self.site.arriving(POD_STATUS).fail()
        self.site.run_until(lambda: request.finished)
        self.assertEqual((request.status, request.header("x-yurt-source")), (200, "hub"))
        self.site.arriving(POD_STATUS).answer(200, pod(version=11))
        self.assertEqual(len(self.site.hub.journal), 0)
