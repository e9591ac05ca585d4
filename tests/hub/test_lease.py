"""
The node's Lease: answered to kubelet, renewed in the cloud.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.hub.fake_upstream import Answer, FakeUpstream, Sent
from yurt.http.interfaces import UpstreamError
from yurt.hub.cloud import Cloud, CloudSettings, Server
from yurt.hub.lease import KEY, RENEW_RETRY, RENEW_SPREAD, RENEW_TIMEOUT, NodeLease

EPOCH = 1_700_000_000.0
COLLECTION = b"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
ITEM = COLLECTION + b"/edge-1"
OWNERS = [{"apiVersion": "v1", "kind": "Node", "name": "edge-1", "uid": "8c3e"}]


def make_body(**spec: Any) -> bytes:
    """
    What kubelet writes.
    """
    return json.dumps(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "edge-1", "namespace": "kube-node-lease", "ownerReferences": OWNERS},
            "spec": {"holderIdentity": "edge-1", "leaseDurationSeconds": 40, "renewTime": "2023-11-14T22:13:20.000000Z", **spec},
        }
    ).encode()


class LeaseServer:
    """
    Leases as an API server keeps them, one object: optimistic locking and fields of its own.
    """

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 100
        self.conflicts = 0
        self.forced = 0
        self.lost = 0
        self.log: list[tuple[str, int]] = []

    def __call__(self, sent: Sent) -> Answer:
        if sent.head.target == b"/readyz":
            return 200, b"ok"
        if self.lost:
            self.lost -= 1
            raise UpstreamError("connection reset")
        status = self.forced or self.handle(sent.head.method.decode(), sent.head.target, sent.body)
        self.log.append((sent.head.method.decode(), status))
        return status, json.dumps(self.lease).encode() if status < 300 else b'{"kind":"Status"}'

    def handle(self, method: str, target: bytes, body: bytes) -> int:
        """
        The status of one call, after its effect.
        """
        assert target == (COLLECTION if method == "POST" else ITEM), target
        if method == "GET":
            return 200 if self.lease else 404
        sent = json.loads(body)
        if method == "POST":
            if self.lease:
                return 409
            sent["metadata"].update(uid="of-the-cloud", managedFields=[{"manager": "yurthub"}])
            return self.write(sent, 201)
        if self.lease is None:
            return 404
        if self.conflicts:
            self.conflicts -= 1
            return 409
        assert sent["metadata"]["resourceVersion"] == str(self.version)
        return self.write(sent, 200)

    def write(self, lease: dict[str, Any], status: int) -> int:
        """
        Keep it as a new version.
        """
        self.version += 1
        lease["metadata"]["resourceVersion"] = str(self.version)
        self.lease = lease
        return status


class Table(dict[bytes, bytes]):
    """
    A table of the store that counts what is written.
    """

    writes = 0

    def put(self, key: bytes, value: bytes) -> None:
        self.writes += 1
        self[key] = value


class LeaseTests(SynchronousTestCase):
    """
    A hub's Lease beside a cloud in memory.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = LeaseServer()
        self.upstream = FakeUpstream(self.clock, self.server)
        self.cloud = Cloud(
            self.clock,
            [Server(self.upstream.name, self.upstream, FakeUpstream(self.clock))],
            CloudSettings(),
            lambda: [(b"Authorization", b"Bearer of-the-node")],
            draw=lambda: 0.5,
        )
        self.table = Table()
        self.lease = self.make_lease()
        self.cloud.start()
        self.lease.start()
        self.addCleanup(self.assert_clean)

    def make_lease(self) -> NodeLease:
        """
        The part under test; a second one is a restarted hub.
        """
        return NodeLease(
            self.clock, self.cloud, "edge-1", self.table, wall=lambda: EPOCH + self.clock.seconds(), draw=lambda: 0.5
        )

    def assert_clean(self) -> None:
        """
        Stopped, nothing is left to do.
        """
        self.successResultOf(self.lease.stop())
        self.successResultOf(self.cloud.stop())
        self.clock.advance(1.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def run_for(self, seconds: float, *, kubelet: bool = False) -> None:
        """
        Let time pass; with ``kubelet`` its heartbeat comes every ten seconds.
        """
        for step in range(round(seconds * 20)):
            if kubelet and step % 200 == 0:
                self.call("PUT", make_body())
            self.clock.advance(0.05)

    def call(self, method: str, body: bytes = b"", content_type: str = "application/json") -> tuple[int, dict[str, Any]]:
        """
        A call of kubelet's.
        """
        status, answer = self.lease.answer(method, body, content_type)
        return status, json.loads(answer)

    def renewals(self) -> list[tuple[str, int]]:
        """
        What was asked of the cloud since the last time this was called.
        """
        log, self.server.log = self.server.log, []
        return log


class KubeletTests(LeaseTests):
    """
    Towards kubelet.
    """

    def test_first_contact(self) -> None:
        """
        As with an API server: 404, then created with the stamps of a server, then found as it was written.
        """
        status, answer = self.call("GET")
        self.assertEqual(
            (status, answer["kind"], answer["reason"], answer["details"]["name"]), (404, "Status", "NotFound", "edge-1")
        )
        status, created = self.call("POST", make_body())
        self.assertEqual(status, 201)
        self.assertTrue(created["metadata"]["uid"])
        self.assertEqual(created["metadata"]["creationTimestamp"], "2023-11-14T22:13:20Z")
        self.assertEqual(created["metadata"]["ownerReferences"], OWNERS)
        self.assertEqual(self.call("GET"), (200, created))

    def test_second_creation(self) -> None:
        """
        What exists is not created again.
        """
        self.call("POST", make_body())
        status, answer = self.call("POST", make_body())
        self.assertEqual((status, answer["reason"]), (409, "AlreadyExists"))

    def test_update(self) -> None:
        """
        An update is taken at once; versions only rise, identity stays.
        """
        _, before = self.call("POST", make_body())
        status, after = self.call("PUT", make_body(renewTime="2023-11-14T22:13:30.000000Z"))
        self.assertEqual((status, after["spec"]["renewTime"]), (200, "2023-11-14T22:13:30.000000Z"))
        self.assertGreater(int(after["metadata"]["resourceVersion"]), int(before["metadata"]["resourceVersion"]))
        for stamp in ("uid", "creationTimestamp"):
            self.assertEqual(after["metadata"][stamp], before["metadata"][stamp])

    def test_update_of_nothing(self) -> None:
        """
        Leases may be created by an update.
        """
        self.assertEqual(self.call("PUT", make_body())[0], 201)
        self.assertEqual(self.call("GET")[0], 200)

    def test_patch(self) -> None:
        """
        A patch changes what it names.
        """
        self.assertEqual(self.call("PATCH", b"{}", "application/merge-patch+json")[0], 404)
        self.call("POST", make_body())
        status, answer = self.call("PATCH", b'{"spec":{"leaseDurationSeconds":50}}', "application/merge-patch+json")
        self.assertEqual((status, answer["spec"]["leaseDurationSeconds"], answer["spec"]["holderIdentity"]), (200, 50, "edge-1"))

    def test_bad_bodies(self) -> None:
        """
        What is no Lease of this node is refused with a reason, and changes nothing.
        """
        _, kept = self.call("PUT", make_body())
        pod = b'{"kind":"Pod","metadata":{}}'
        other = make_body().replace(b'"name": "edge-1"', b'"name": "edge-2"')
        for body in (
            b"",
            b"{",
            b"[]",
            b"\xff",
            b"k8s\0\xff",
            b"k8s\0",
            b'{"metadata":1}',
            b'{"metadata":{},"spec":1}',
            pod,
            other,
        ):
            status, answer = self.call("PUT", body)
            self.assertEqual((body, status, answer["reason"]), (body, 400, "BadRequest"))
        self.assertEqual(self.call("PATCH", b"{", "application/merge-patch+json")[0], 400)
        self.assertEqual(self.call("GET"), (200, kept))

    def test_forgotten(self) -> None:
        """
        What the cloud has deleted is there no more, until kubelet makes or renews it.
        """
        self.call("POST", make_body())
        self.lease.forget()
        self.assertEqual((self.call("GET")[0], self.call("HEAD")[0], self.call("PUT", make_body())[0]), (404, 404, 201))
        self.assertEqual((self.call("HEAD")[0], self.call("POST", make_body())[0]), (200, 409))

    def test_alive(self) -> None:
        """
        Kubelet lives for 40 s from each call, and not before the first.
        """
        self.assertFalse(self.lease.kubelet_alive)
        self.call("GET")
        self.run_for(39.9)
        self.assertTrue(self.lease.kubelet_alive)
        self.run_for(0.3)
        self.assertFalse(self.lease.kubelet_alive)

    def test_restart(self) -> None:
        """
        A restarted hub knows the Lease, so that kubelet's next update finds it; versions still rise.
        """
        _, before = self.call("POST", make_body())
        self.run_for(5.0)
        self.successResultOf(self.lease.stop())
        self.lease = self.make_lease()
        self.lease.start()
        self.assertFalse(self.lease.kubelet_alive)
        status, after = self.call("PUT", make_body())
        self.assertEqual((status, after["metadata"]["uid"]), (200, before["metadata"]["uid"]))
        self.assertGreater(int(after["metadata"]["resourceVersion"]), int(before["metadata"]["resourceVersion"]))

    def test_memory_of_another_node(self) -> None:
        """
        A Lease remembered under another node's name, or damaged, is not taken for this node's.
        """
        for remembered in (make_body().replace(b"edge-1", b"edge-2"), b"{"):
            self.table[KEY] = remembered
            self.successResultOf(self.lease.stop())
            self.lease = self.make_lease()
            self.lease.start()
            self.assertEqual(self.call("GET")[0], 404)

    def test_heartbeats_spare_the_disk(self) -> None:
        """
        A heartbeat changes only time and version, which are not worth a write.
        """
        for second in range(10, 40):
            self.call("PUT", make_body(renewTime=f"2023-11-14T22:13:{second}.000000Z"))
        self.assertEqual(self.table.writes, 1)
        self.call("PUT", make_body(leaseDurationSeconds=50))
        self.assertEqual(self.table.writes, 2)


class RenewalTests(LeaseTests):
    """
    Towards the cloud.
    """

    def test_renews(self) -> None:
        """
        The Lease is created at once, then renewed every ten seconds by one request, with the present time and kubelet's fields.
        """
        self.run_for(0.5)
        self.run_for(55.0, kubelet=True)
        self.assertEqual(self.renewals(), [("GET", 404), ("POST", 201), *[("PUT", 200)] * 5])
        assert self.server.lease is not None
        spec, metadata = self.server.lease["spec"], self.server.lease["metadata"]
        self.assertEqual((spec["holderIdentity"], spec["leaseDurationSeconds"]), ("edge-1", 40))
        self.assertEqual((metadata["ownerReferences"], metadata["uid"]), (OWNERS, "of-the-cloud"))
        self.assertRegex(spec["renewTime"], r"^2023-11-14T22:14:(0|1|2)\d\.\d{6}Z$")
        self.assertNotIn("managedFields", metadata)
        sent = self.upstream.of(ITEM)[-1].head.headers
        self.assertIn((b"Authorization", b"Bearer of-the-node"), sent)
        self.assertApproximates(self.lease.renewed_at, EPOCH + self.clock.seconds(), 11.0)

    def test_foreign_fields_stay(self) -> None:
        """
        What the cloud's object has beyond kubelet's fields stays in it.
        """
        self.server.lease = json.loads(make_body(leaseTransitions=3, holderIdentity="somebody"))
        self.server.lease["metadata"].update(labels={"a": "b"}, resourceVersion="100")
        self.call("PUT", make_body())
        self.run_for(1.0)
        self.assertEqual(self.renewals(), [("GET", 200), ("PUT", 200)])
        self.assertEqual(self.server.lease["metadata"]["labels"], {"a": "b"})
        self.assertEqual(self.server.lease["spec"]["leaseTransitions"], 3)
        self.assertEqual(self.server.lease["spec"]["holderIdentity"], "edge-1")

    def test_not_without_kubelet(self) -> None:
        """
        Without a sign of life of kubelet nothing is renewed, and the cloud stays reachable all the same.
        """
        self.run_for(100.0)
        self.assertEqual(self.renewals(), [])
        self.run_for(30.0, kubelet=True)
        self.assertTrue(self.renewals())
        self.run_for(45.0)
        self.renewals()
        self.run_for(100.0)
        self.assertEqual(self.renewals(), [])
        self.assertTrue(self.cloud.reachable)
        self.run_for(0.5, kubelet=True)
        self.assertEqual(self.renewals(), [("PUT", 200)])

    def test_conflict(self) -> None:
        """
        After a conflict the Lease is read anew and written once more.
        """
        self.run_for(1.0, kubelet=True)
        self.renewals()
        self.server.conflicts = 1
        self.run_for(10.0, kubelet=True)
        self.assertEqual(self.renewals(), [("PUT", 409), ("GET", 200), ("PUT", 200)])

    def test_conflicts_end(self) -> None:
        """
        Endless conflicts end this renewal, not the next.
        """
        self.run_for(1.0, kubelet=True)
        self.renewals()
        self.server.conflicts = 3
        self.run_for(10.0, kubelet=True)
        self.assertEqual(self.renewals()[-1], ("PUT", 409))
        self.run_for(10.0, kubelet=True)
        self.assertEqual(self.renewals(), [("GET", 200), ("PUT", 200)])

    def test_deleted(self) -> None:
        """
        A Lease that was deleted in the cloud is created again.
        """
        self.run_for(1.0, kubelet=True)
        self.renewals()
        self.server.lease = None
        self.run_for(10.0, kubelet=True)
        self.assertEqual(self.renewals(), [("PUT", 404), ("GET", 404), ("POST", 201)])

    def test_forbidden(self) -> None:
        """
        A refusal is tried again at the usual pace, and is no reason to call the cloud unreachable.
        """
        self.server.forced = 403
        self.run_for(0.5)
        self.run_for(25.0, kubelet=True)
        self.assertEqual(self.renewals(), [("GET", 403)] * 3)
        self.assertTrue(self.cloud.reachable)

    def test_renewals_are_heartbeats(self) -> None:
        """
        A node whose Lease is renewed sends no probes besides.
        """
        self.run_for(5.0, kubelet=True)
        before = len(self.upstream.probes)
        self.run_for(100.0, kubelet=True)
        self.assertLessEqual(len(self.upstream.probes) - before, 1)

    def test_silence_is_noticed(self) -> None:
        """
        A renewal without an answer has the server probed; offline, nothing is sent and kubelet is still answered.
        """
        self.run_for(5.0, kubelet=True)
        self.upstream.silent = True
        self.run_for(30.0, kubelet=True)
        self.assertFalse(self.cloud.reachable)
        self.renewals()
        before = len(self.upstream.of(ITEM))
        self.run_for(60.0, kubelet=True)
        self.assertEqual(len(self.upstream.of(ITEM)), before)
        self.assertEqual(self.call("PUT", make_body())[0], 200)

    def test_dead_connections(self) -> None:
        """
        Connections that a load balancer keeps, though their server is gone, cost one renewal its time: the next goes over a new
        one, long before the node would be taken for dead.
        """
        self.run_for(25.0, kubelet=True)
        self.upstream.dead = True
        self.renewals()
        self.run_for(10.0 + RENEW_TIMEOUT + RENEW_RETRY + 1.0, kubelet=True)
        self.assertEqual(self.renewals(), [("PUT", 200)])
        self.assertTrue(self.cloud.reachable)

    def test_refusal_is_tried_again_soon(self) -> None:
        """
        A connection lost with a renewal, on a cloud that a probe finds alive, costs two seconds and not ten.
        """
        self.run_for(1.0, kubelet=True)
        self.renewals()
        self.server.lost = 1
        self.run_for(10.0 + RENEW_RETRY)
        self.assertEqual(self.renewals(), [("PUT", 200)])
        before, after = self.upstream.of(ITEM)[-2:]
        self.assertApproximates(after.at - before.at, RENEW_RETRY, 0.1)

    def test_return(self) -> None:
        """
        When the cloud is back the Lease is renewed within a second of that.
        """
        self.run_for(5.0, kubelet=True)
        self.upstream.refusing = True
        self.cloud.failed(self.cloud.servers[0], "connection refused")
        self.run_for(20.0, kubelet=True)
        self.renewals()
        self.upstream.refusing = False
        while not self.cloud.reachable:
            self.assertLess(self.clock.seconds(), 40.0)
            self.clock.advance(0.05)
        self.run_for(RENEW_SPREAD)
        self.assertEqual(self.renewals(), [("PUT", 200)])

    def test_one_at_a_time(self) -> None:
        """
        A slow renewal is not overtaken by the next.
        """
        self.run_for(5.0, kubelet=True)
        self.renewals()
        self.upstream.delay = 7.0
        self.run_for(9.0, kubelet=True)
        self.run_for(30.0, kubelet=True)
        under_way = [sent for sent in self.upstream.of(ITEM) if sent.at > 5.5 and not sent.cancelled]
        gaps = [after.at - before.at for before, after in zip(under_way, under_way[1:], strict=False)]
        self.assertTrue(all(gap > 6.9 for gap in gaps), gaps)
