"""
Tests of what the cloud answers to writes, and what the cache makes of it.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import JSON, MAPS, MemoryRequest, MemorySite, config_map
from tests.hub.test_writes import MERGE, POD_STATUS, STRATEGIC, pod
from yurt.hub.changes import is_gone
from yurt.kube.protobuf import MAGIC

PODS = "/api/v1/namespaces/default/pods"
DONE = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": {"name": "a", "kind": "configmaps"}}
PROTOBUF_FIRST = "application/vnd.kubernetes.protobuf,application/json"


class ChangeTests(SynchronousTestCase):
    """
    A write is answered; the cloud goes away at once; the cache is asked.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()
        self.site.store_list(MAPS, [config_map("a", 5, data={"k": "old"})], "10")

    def write(self, method: str, path: str, answer: Any, status: int = 200, **options: Any) -> MemoryRequest:
        """
        A write, and the cloud's answer to it.
        """
        request = self.site.ask(method, path, options.pop("body", {}), **options)
        self.site.arriving(path.partition("?")[0]).answer(status, answer)
        self.assertEqual(request.status, status)
        return request

    def offline(self, path: str = f"{MAPS}/a", **options: Any) -> MemoryRequest:
        """
        What the cache says once the cloud is gone.
        """
        self.site.offline()
        return self.site.fetch("GET", path, **options)

    def test_changed(self) -> None:
        """
        What was changed is read as it is now, alone and in lists.
        """
        for method, content_type in (("PUT", "application/json"), ("PATCH", MERGE), ("PATCH", "application/apply-patch+yaml")):
            version = int(self.site.clock.seconds()) + 11
            new = config_map("a", version, data={"k": method + content_type})
            self.write(method, f"{MAPS}/a", new, content_type=content_type)
            self.assertEqual(self.offline().json["data"], new["data"])
            self.assertEqual([item["data"] for item in self.offline(MAPS).json["items"]], [new["data"]])
            self.site.online()
            self.site.run(1.0)

    def test_created(self) -> None:
        """
        What was created is there, and creating it again conflicts.
        """
        self.write("POST", MAPS, config_map("b", 11), 201, body=config_map("b", 0))
        self.assertEqual(self.offline(f"{MAPS}/b").json["metadata"]["resourceVersion"], "11")
        self.assertEqual(self.site.fetch("POST", MAPS, config_map("b", 0)).status, 409)

    def test_status(self) -> None:
        """
        What kubelet has reported with the cloud it reads without it, and so does the next report.
        """
        self.site.store_list(PODS, [pod("web", 6)], "10", "PodList")
        body = {"status": {"phase": "Running"}}
        self.write("PATCH", POD_STATUS, pod("web", 11, "Running"), content_type=STRATEGIC, body=body)
        self.assertEqual(self.offline(f"{PODS}/web").json["status"]["phase"], "Running")
        again = self.site.fetch("PATCH", POD_STATUS, body, content_type=STRATEGIC)
        self.assertEqual(again.json["metadata"]["resourceVersion"], "11")

    def test_deleted(self) -> None:
        """
        What was deleted is gone.
        """
        self.write("DELETE", f"{MAPS}/a", DONE)
        gone = self.offline()
        self.assertEqual((gone.status, gone.json["reason"]), (404, "NotFound"))

    def test_deleted_in_time(self) -> None:
        """
        What waits for its end is still there, and says so; what the answer shows for the last time is gone.
        """
        self.site.store_list(PODS, [pod("web", 6)], "10", "PodList")
        ending: dict[str, Any] = {"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}
        self.write("DELETE", f"{PODS}/web", pod("web", 11, **ending))
        self.assertIn("deletionTimestamp", self.offline(f"{PODS}/web").json["metadata"])
        self.site.online()
        self.write("DELETE", f"{PODS}/web", pod("web", 12, **{**ending, "deletionGracePeriodSeconds": 0}))
        self.assertEqual(self.offline(f"{PODS}/web").status, 404)

    def test_dry_run(self) -> None:
        """
        What was only tried has not happened, wherever the request says that it was.
        """
        self.write("DELETE", f"{MAPS}/a", DONE, body={"dryRun": ["All"]})
        self.write("DELETE", f"{MAPS}/a", DONE, body=MAGIC + b"\x00\x2a\x03All")
        self.write("DELETE", f"{MAPS}/a?dryRun=All", DONE)
        self.write("PUT", f"{MAPS}/a?dryRun=All", config_map("a", 11, data={"k": "new"}))
        self.assertEqual(self.offline().json["data"], {"k": "old"})

    def test_no_news(self) -> None:
        """
        An error, an older state, a Status, a subresource's answer and one in another form change nothing.
        """
        new = config_map("a", 11, data={"k": "new"})
        self.write("PUT", f"{MAPS}/a", {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 409}, 409)
        self.write("PUT", f"{MAPS}/a", config_map("a", 4, data={"k": "older"}))
        self.write("PATCH", f"{MAPS}/a", {"kind": "Status", "apiVersion": "v1", "status": "Success"}, content_type=MERGE)
        self.write("PUT", f"{MAPS}/a/scale", new)
        self.write("PUT", f"{MAPS}/a", b"{", 200)
        self.write("PUT", f"{MAPS}/a", {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": [], "rows": []})
        self.assertEqual(self.offline().json["data"], {"k": "old"})

    def test_others(self) -> None:
        """
        Who is not cached leaves nothing in the cache, and a caller's own change is read by that caller only.
        """
        self.write("PUT", f"{MAPS}/b", config_map("b", 11), agent="curl")
        self.write("PUT", f"{MAPS}/c", config_map("c", 11), agent="kube-proxy")
        self.assertEqual(self.offline(f"{MAPS}/b").status, 404)
        self.assertEqual(self.offline(f"{MAPS}/b", agent="curl").status, 503)
        self.assertEqual(self.offline(f"{MAPS}/c", agent="kube-proxy").status, 200)
        self.assertEqual(self.offline(f"{MAPS}/c", agent="flanneld").status, 503)

    def test_asks_for_json(self) -> None:
        """
        The cloud is asked for the form that is stored, if the client takes it; else the answer passes as it comes.
        """
        for accept, asked in ((PROTOBUF_FIRST, b"application/json"), ("application/vnd.kubernetes.protobuf",) * 2):
            request = self.site.ask("PUT", f"{MAPS}/a", {}, accept=accept)
            exchange = self.site.arriving(f"{MAPS}/a")
            named = [value for name, value in exchange.head.headers if name.lower() == b"accept"]
            self.assertEqual(named, [asked if isinstance(asked, bytes) else asked.encode()])
            exchange.answer(200, MAGIC, [(b"Content-Type", b"application/vnd.kubernetes.protobuf")])
            self.assertEqual(request.data, MAGIC)
        self.assertEqual(self.offline().json["data"], {"k": "old"})

    def test_excluded(self) -> None:
        """
        What is not to be cached is not, whichever way it comes.
        """
        site = MemorySite(self, cache_exclude=("secrets",))
        site.online()
        path = "/api/v1/namespaces/default/secrets/s"
        site.ask("PUT", path, {})
        site.arriving(path).answer(200, {**config_map("s", 11), "kind": "Secret"}, JSON)
        site.offline()
        self.assertEqual(site.fetch("GET", path).status, 503)


class GoneTests(SynchronousTestCase):
    """
    Which objects a write has ended.
    """

    def test_gone(self) -> None:
        """
        One that was deleted, and waits neither for its grace period nor for a finalizer, of a namespace either.
        """
        grace = b'"deletionTimestamp":"t","deletionGracePeriodSeconds":30'
        now = grace.replace(b"30", b"0")
        for metadata, rest, deleted, gone in (
            (b"", b"", True, True),
            (b"", b"", False, False),
            (grace, b"", True, False),
            (grace, b"", False, False),
            (now, b"", True, True),
            (now, b"", False, True),
            (now + b',"finalizers":["f"]', b"", True, False),
            (now, b',"spec":{"finalizers":["kubernetes"]}', True, False),
        ):
            self.assertEqual(is_gone(b'{"metadata":{%b}%b}' % (metadata, rest), deleted=deleted), gone, (metadata, rest, deleted))
