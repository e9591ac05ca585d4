"""
Tests of writes of events, with the cloud and without, on a clock.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MemorySite
from tests.hub.test_writes import EVENTS, MERGE, STRATEGIC
from yurt.hub.clienttime import KEPT_AFTER
from yurt.hub.journal import MAX_EVENT_BYTES
from yurt.kube.protobuf import MAGIC, encode_bytes


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

    def test_cut_without_a_name(self) -> None:
        """
        One that gets its name from the cloud may have been made: it is not made a second time.  Nor is added again what a JSON
        patch may have added.
        """
        self.site.online()
        add = [{"op": "add", "path": "/related/-", "value": {}}]
        patched = self.site.ask("PATCH", f"{EVENTS}/web.1", add, content_type="application/json-patch+json")
        self.site.arriving(f"{EVENTS}/web.1").fail()
        self.site.run_until(lambda: patched.finished)
        self.assertEqual((patched.status, patched.json["reason"]), (504, "Timeout"))
        body = self.event()
        body["metadata"] = {"generateName": "web.", "namespace": "default"}
        request = self.site.ask("POST", EVENTS, body)
        self.site.arriving(EVENTS).fail()
        self.site.run_until(lambda: request.finished)
        self.assertEqual((request.status, request.json["reason"]), (504, "Timeout"))
        silent = self.site.ask("POST", EVENTS, body)
        self.site.run(KEPT_AFTER + 1)
        self.assertEqual((silent.status, len(self.site.hub.journal)), (0, 0))
        self.site.arriving(EVENTS).fail(sent=False)
        self.site.run_until(lambda: silent.finished)
        self.assertEqual((silent.status, len(self.site.hub.journal)), (201, 1))
