"""
Tests of writes, with the cloud and without, on a clock.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MAPS, NODE, PODS, MemoryRequest, MemorySite, config_map
from yurt.hub.journal import MAX_EVENT_BYTES
from yurt.kube.patch import apply_patch
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


class EventTests(SynchronousTestCase):
    """
    Tests of events without the cloud.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()
        self.site.offline()

    def event(self, name: str = "web.1", **metadata: Any) -> dict[str, Any]:
        """
        An Event as a recorder posts it.
        """
        return {
            "kind": "Event",
            "apiVersion": "v1",
            "metadata": {"name": name, "namespace": "default", **metadata},
            "reason": "Started",
            "count": 1,
        }

    def test_post(self) -> None:
        """
        A new event is acknowledged with 201 as it would be stored, and sent when the cloud is back.
        """
        reply = self.site.fetch("POST", EVENTS, self.event())
        self.assertEqual((reply.status, reply.header("x-yurt-source")), (201, "hub"))
        self.assertEqual(reply.json["metadata"]["name"], "web.1")
        self.assertTrue(reply.json["metadata"]["uid"])
        self.site.online()
        sent = self.site.arriving(EVENTS)
        self.assertEqual((sent.head.method, json.loads(sent.body)["metadata"]["name"]), (b"POST", "web.1"))
        sent.answer(201, self.event())
        self.site.run(10)
        self.assertEqual((len(self.site.hub.journal), len(self.site.upstream.seen)), (0, 1))

    def test_generated_name(self) -> None:
        """
        A name that the hub made up is the one under which the event is sent.
        """
        body = self.event()
        body["metadata"] = {"generateName": "web.", "namespace": "default"}
        reply = self.site.fetch("POST", EVENTS, body)
        name = reply.json["metadata"]["name"]
        self.assertTrue(name.startswith("web.") and len(name) > 4)
        self.site.online()
        self.assertEqual(json.loads(self.site.arriving(EVENTS).body)["metadata"]["name"], name)

    def test_patch(self) -> None:
        """
        A patch of an event is acknowledged with 200, and follows the event it patches.
        """
        self.site.fetch("POST", EVENTS, self.event())
        reply = self.site.fetch("PATCH", f"{EVENTS}/web.1", {"count": 2}, content_type=STRATEGIC)
        self.assertEqual((reply.status, reply.json["count"], reply.json["metadata"]["name"]), (200, 2, "web.1"))
        self.site.online()
        self.site.arriving(EVENTS).answer(201, self.event())
        sent = self.site.arriving(f"{EVENTS}/web.1")
        self.assertEqual((sent.head.method, json.loads(sent.body)), (b"PATCH", {"count": 2}))
        self.assertIn((b"Content-Type", STRATEGIC.encode()), sent.head.headers)

    def test_patches_add_up(self) -> None:
        """
        A patch is answered with the event as it will be: the journalled one with all patches up to this one.
        """
        created = self.site.fetch("POST", EVENTS, self.event()).json
        self.site.fetch("POST", EVENTS, self.event("web.2"))
        self.site.fetch("PATCH", f"{EVENTS}/web.1", {"count": 2, "message": "again"}, content_type=STRATEGIC)
        for step in (lambda: None, self.site.reboot):
            step()
            self.site.offline()
            reply = self.site.fetch("PATCH", f"{EVENTS}/web.1?fieldManager=x", {"count": 3, "reason": None}, content_type=MERGE)
            event = {**created, "count": 3, "message": "again"}
            del event["reason"]
            self.assertEqual((reply.status, reply.json), (200, event))

    def test_patches_take_one_place(self) -> None:
        """
        An event that repeats for days pushes nothing out of the journal: its patches wait as one, and are sent so, after it.
        """
        self.site.fetch("POST", EVENTS, self.event())
        for count in range(2, 50):
            self.site.fetch("PATCH", f"{EVENTS}/web.1", {"count": count, "lastTimestamp": f"t{count}"}, content_type=STRATEGIC)
        self.site.fetch("POST", EVENTS, self.event("web.2"))
        self.assertEqual(len(self.site.hub.journal), 3)
        self.site.reboot()
        self.site.offline()
        self.site.fetch("PATCH", f"{EVENTS}/web.1", {"count": 50}, content_type=STRATEGIC)
        self.assertEqual(len(self.site.hub.journal), 3)
        self.site.online()
        self.site.arriving(EVENTS).answer(201, self.event())
        sent = self.site.arriving(f"{EVENTS}/web.1")
        self.assertEqual(json.loads(sent.body), {"count": 50, "lastTimestamp": "t49"})
        late = self.site.fetch("PATCH", f"{EVENTS}/web.1", {"count": 51}, content_type=STRATEGIC)
        self.assertEqual((late.status, late.json["count"]), (200, 51))
        sent.answer(200, {**self.event(), "count": 50})
        again = self.site.arriving(f"{EVENTS}/web.1")
        self.assertEqual(json.loads(again.body)["count"], 51)
        again.answer(200, {**self.event(), "count": 51})
        self.site.arriving(EVENTS).answer(201, self.event("web.2"))
        self.site.run(1)
        self.assertEqual(len(self.site.hub.journal), 0)

    def test_too_large(self) -> None:
        """
        What no event needs is not kept: a pod could else fill the disk by 1,000 events of 3 MiB, or by one that grows.
        """
        large = {**self.event(), "message": "x" * MAX_EVENT_BYTES}
        reply = self.site.fetch("POST", EVENTS, large)
        self.assertEqual((reply.status, reply.json["reason"], len(self.site.hub.journal)), (503, "ServiceUnavailable", 0))
        for number in range(8):
            patch = {"metadata": {"annotations": {str(number): "x" * (MAX_EVENT_BYTES // 3)}}}
            self.site.fetch("PATCH", f"{EVENTS}/web.1", patch, content_type=STRATEGIC)
        self.assertEqual(len(self.site.hub.journal), 4)

    def test_patch_of_what_the_cloud_told(self) -> None:
        """
        An event that was read before is patched as it was read.
        """
        self.site.online()
        self.site.ask("GET", f"{EVENTS}/web.1")
        self.site.arriving(f"{EVENTS}/web.1").answer(200, self.event(resourceVersion="7"))
        self.site.offline()
        reply = self.site.fetch("PATCH", f"{EVENTS}/web.1", {"count": 2}, content_type=STRATEGIC)
        self.assertEqual((reply.status, reply.json), (200, {**self.event(resourceVersion="7"), "count": 2}))

    def test_no_overtaking(self) -> None:
        """
        While an event waits to be sent, patches of it queue behind it; of other events they go straight on.
        """
        self.site.fetch("POST", EVENTS, self.event())
        self.site.online()
        first = self.site.arriving(EVENTS)
        queued = self.site.fetch("PATCH", f"{EVENTS}/web.1", {"count": 2}, content_type=STRATEGIC)
        self.assertEqual((queued.status, queued.header("x-yurt-source"), queued.json["count"]), (200, "hub", 2))
        other = self.site.ask("PATCH", f"{EVENTS}/web.2", {"count": 2}, content_type=STRATEGIC)
        self.site.arriving(f"{EVENTS}/web.2").answer(200, self.event("web.2"))
        self.assertEqual(other.header("x-yurt-source"), "cloud")
        self.assertEqual(self.site.at_cloud(f"{EVENTS}/web.1"), [])
        first.answer(201, self.event())
        self.site.arriving(f"{EVENTS}/web.1").answer(200, {**self.event(), "count": 2})
        self.site.run(1)
        self.assertEqual(len(self.site.hub.journal), 0)
        last = self.site.ask("PATCH", f"{EVENTS}/web.1", {"count": 3}, content_type=STRATEGIC)
        self.site.arriving(f"{EVENTS}/web.1").answer(200, {**self.event(), "count": 3})
        self.assertEqual(last.header("x-yurt-source"), "cloud")

    def test_protobuf(self) -> None:
        """
        An event in protobuf is answered and sent as it came.
        """
        body = MAGIC + encode_bytes(1, encode_bytes(1, b"v1") + encode_bytes(2, b"Event")) + encode_bytes(2, b"")
        media = "application/vnd.kubernetes.protobuf"
        reply = self.site.fetch("POST", EVENTS, body, content_type=media)
        self.assertEqual((reply.status, reply.data, reply.header("content-type")), (201, body, media))
        self.site.online()
        sent = self.site.arriving(EVENTS)
        self.assertEqual(sent.body, body)
        self.assertIn((b"Content-Type", media.encode()), sent.head.headers)

    def test_patch_of_protobuf(self) -> None:
        """
        A patch, which is always JSON, of an event that was sent in protobuf is answered with the whole event.
        """
        meta = encode_bytes(1, encode_bytes(1, b"web.1") + encode_bytes(3, b"default"))
        raw = meta + encode_bytes(3, b"Started") + encode_bytes(4, b"Started main")
        body = MAGIC + encode_bytes(1, encode_bytes(1, b"v1") + encode_bytes(2, b"Event")) + encode_bytes(2, raw)
        self.site.fetch("POST", EVENTS, body, content_type="application/vnd.kubernetes.protobuf")
        reply = self.site.fetch("PATCH", f"{EVENTS}/web.1", {"count": 2}, content_type=STRATEGIC)
        metadata = {"name": "web.1", "namespace": "default"}
        event = {"kind": "Event", "apiVersion": "v1", "metadata": metadata, "reason": "Started", "message": "Started main"}
        self.assertEqual((reply.status, reply.json), (200, {**event, "count": 2}))

    def test_another_namespace(self) -> None:
        """
        An event of another namespace than its path's is refused at once, as it would be later.
        """
        reply = self.site.fetch("POST", EVENTS, self.event(namespace="other"))
        self.assertEqual((reply.status, reply.json["reason"]), (400, "BadRequest"))
        meta = encode_bytes(1, encode_bytes(1, b"e") + encode_bytes(3, b"other"))
        body = MAGIC + encode_bytes(1, encode_bytes(1, b"v1") + encode_bytes(2, b"Event")) + encode_bytes(2, meta)
        self.assertEqual(self.site.fetch("POST", EVENTS, body, content_type="application/vnd.kubernetes.protobuf").status, 400)
        self.assertEqual(len(self.site.hub.journal), 0)

    def test_events_k8s_io(self) -> None:
        """
        Events of the newer group count, too.
        """
        path = "/apis/events.k8s.io/v1/namespaces/default/events"
        body = {**self.event(), "apiVersion": "events.k8s.io/v1"}
        self.assertEqual(self.site.fetch("POST", path, body, agent="kube-proxy").status, 201)
        self.assertEqual(len(self.site.hub.journal), 1)

    def test_nonsense(self) -> None:
        """
        What is no event is not claimed to be kept.
        """
        for body in (b"", b"[]", b"{", b'{"metadata": 5}'):
            reply = self.site.fetch("POST", EVENTS, body)
            self.assertEqual(reply.status, 503, body)
        self.assertEqual(len(self.site.hub.journal), 0)

    def test_load_balancer(self) -> None:
        """
        A load balancer's 503 does not lose an event; it is sent again without an outage in between.
        """
        self.site.online()
        request = self.site.ask("POST", EVENTS, self.event())
        self.site.arriving(EVENTS).answer(503, b"<html>")
        self.site.run_until(lambda: request.finished)
        self.assertEqual(request.status, 201)
        self.site.arriving(EVENTS).answer(201, self.event())
        self.assertEqual(len(self.site.hub.journal), 0)

    def test_cut_in_the_middle(self) -> None:
        """
        A connection that breaks after the event was sent: it is kept and sent again, and the cloud's 409 is no failure.
        """
        self.site.online()
        request = self.site.ask("POST", EVENTS, self.event())
        self.site.arriving(EVENTS).fail()
        self.site.run_until(lambda: request.finished)
        self.assertEqual(request.status, 201)
        self.site.arriving(EVENTS).answer(409, {"kind": "Status", "code": 409})
        self.assertEqual((len(self.site.hub.journal), self.site.hub.journal.dropped), (0, 0))


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
