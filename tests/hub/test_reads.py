"""
Tests of cached reads through a whole hub: what is kept, and what is answered without the cloud.
"""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import ResponseFailed

from tests.certs import make_ca
from tests.hub.memory_site import MemorySite
from tests.hub.memory_site import config_map as memory_config_map
from tests.hub.memory_site import event as memory_event
from tests.hub.site import USER, Reply, Site, config_map, header, names, pod, reactor, source, until
from yurt.http.client import HTTPUpstream
from yurt.http.interfaces import RequestHead
from yurt.hub import delivery, health, patience
from yurt.hub import hub as hub_module
from yurt.hub.cache import Caller, ViewKey
from yurt.hub.identity import NODE
from yurt.hub.issuer import IssuerKeys
from yurt.kube.status import status_body
from yurt.kube.watch import read_event

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
ONE_PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"
PROTOBUF = "application/vnd.kubernetes.protobuf"
EMPTY = {"kind": "ConfigMapList", "apiVersion": "v1", "items": []}


class HubCase(TestCase):
    """
    What the tests here say often.
    """

    timeout = 180

    async def site_with(self, *documents: dict[str, Any], resource: str = "configmaps", **settings: Any) -> Site:
        """
        A site whose cloud has these objects, and whose hub is online.
        """
        site = Site(self)
        for document in documents:
            site.api.put(resource, document)
        await site.start_online(**settings)
        return site

    def leave_issuer_keys(self) -> None:
        """
        Let the hub not fetch the issuer's keys, which it does at a moment of its own: by them new tokens would be known.
        """
        self.patch(IssuerKeys, "look", lambda keys: None)

    def assert_from(self, reply: Reply, origin: str, status: int = 200) -> None:
        """
        The answer has that origin and that status.
        """
        self.assertEqual((reply.status, source(reply)), (status, origin), reply.body)

    def assert_failure(self, reply: Reply, status: int, reason: str, *words: str, source: str = "hub") -> None:
        """
        The answer is a Status that the hub made, with these words in its message.
        """
        self.assert_from(reply, source, status)
        self.assertEqual((reply.json["kind"], reply.json["code"], reply.json["reason"]), ("Status", status, reason))
        for word in words:
            self.assertIn(word, reply.json["message"])


class OfflineReadTests(HubCase):
    """
    GET and LIST, with the cloud and then without.
    """

    async def test_get(self) -> None:
        """
        What was read once is read again without the cloud, byte for byte but for the line end, with its age and a warning.
        """
        site = await self.site_with(config_map("one"))
        online = await site.get(f"{MAPS}/one")
        self.assert_from(online, "cloud")
        self.assertEqual((header(online, "age"), header(online, "warning")), ("", ""))
        await site.offline()
        offline = await site.get(f"{MAPS}/one")
        self.assert_from(offline, "cache")
        self.assertEqual(offline.body, online.body.strip())
        self.assertTrue(header(offline, "age").isdigit())
        self.assertTrue(header(offline, "warning").startswith("110 "))

    async def test_list(self) -> None:
        """
        A list too, with its kind and resourceVersion; an item of it can be got by its name.
        """
        site = await self.site_with(config_map("one"), config_map("two"))
        online = await site.get(MAPS)
        await site.offline()
        offline = await site.get(MAPS)
        self.assert_from(offline, "cache")
        self.assertEqual(names(offline), ["one", "two"])
        for field in ("kind", "apiVersion"):
            self.assertEqual(offline.json[field], online.json[field])
        self.assertEqual(offline.json["metadata"]["resourceVersion"], online.json["metadata"]["resourceVersion"])
        item = await site.get(f"{MAPS}/one")
        self.assert_from(item, "cache")
        self.assertEqual((item.json["kind"], item.json["apiVersion"], item.json["data"]), ("ConfigMap", "v1", {"key": "one"}))

    async def test_empty_list(self) -> None:
        """
        An empty list of the cloud is an empty list without it, not a miss.
        """
        site = await self.site_with()
        await site.get(PODS)
        await site.offline()
        offline = await site.get(PODS)
        self.assert_from(offline, "cache")
        self.assertEqual((offline.json["kind"], offline.json["items"]), ("PodList", []))

    async def test_head(self) -> None:
        """
        HEAD of a cached object tells its length and brings no body; it stores nothing itself.
        """
        site = await self.site_with(config_map("one"))
        await site.ask("HEAD", f"{MAPS}/one")
        self.assertEqual(await site.views("/v1/configmaps"), [])
        online = await site.get(f"{MAPS}/one")
        await site.offline()
        offline = await site.ask("HEAD", f"{MAPS}/one")
        self.assert_from(offline, "cache")
        self.assertEqual((offline.body, header(offline, "content-length")), (b"", str(len(online.body.strip()))))

    async def test_never_seen(self) -> None:
        """
        What was never seen is 503 with Retry-After and a reason that says so, never an empty list and never 404.
        """
        site = await self.site_with(config_map("one"))
        await site.offline()
        for path in (MAPS, f"{MAPS}/one", f"{MAPS}/none"):
            reply = await site.get(path)
            self.assert_failure(reply, 503, "ServiceUnavailable", "not reachable", "never saw")
            self.assertEqual(header(reply, "retry-after"), "1")

    async def test_never_seen_by_kubectl(self) -> None:
        """
        The same to kubectl names the moment, so that it shows the reason at once; a watch and a document, too.
        """
        site = await self.site_with(config_map("one"))
        await site.offline()
        for path in (MAPS, f"{MAPS}/one", f"{MAPS}?watch=true", "/api"):
            for agent in ("kubectl/v1.32.4 (linux/amd64)", "kubectl-top/v1", "kubelet/v1.32.4"):
                reply = await site.ask("GET", path, agent=agent)
                self.assert_failure(reply, 503, "ServiceUnavailable", "not reachable")
                form = "1" if agent.startswith("kubelet") else r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT"
                self.assertRegex(header(reply, "retry-after"), f"^{form}$", (path, agent))

    async def test_offline_miss(self) -> None:
        """
        ``--offline-miss 404`` answers those as OpenYurt does.
        """
        site = await self.site_with(offline_miss=404)
        await site.offline()
        for path in (MAPS, f"{MAPS}/none"):
            self.assert_failure(await site.get(path), 404, "NotFound")

    async def test_absent(self) -> None:
        """
        An object that a complete list lacks does not exist: 404 in the API server's words.
        """
        site = await self.site_with(config_map("one"))
        online = await site.get(f"{MAPS}/none")
        await site.get("/api/v1/configmaps")
        await site.offline()
        offline = await site.get(f"{MAPS}/none")
        self.assert_failure(offline, 404, "NotFound", 'configmaps "none" not found', source="cache")
        self.assertIn(int(header(offline, "age")), range(60))
        self.assertTrue(header(offline, "warning").startswith("110 "))
        for field in ("status", "message", "reason", "code", "details"):
            self.assertEqual(offline.json[field], online.json[field], field)

    async def test_absent_of_a_group(self) -> None:
        """
        So it is with resources of a named group.
        """
        site = await self.site_with()
        slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
        online = await site.get(f"{slices}/none")
        await site.get(slices)
        await site.offline()
        offline = await site.get(f"{slices}/none")
        self.assertEqual((offline.status, offline.json["message"]), (404, online.json["message"]))

    async def test_selected_list_says_nothing_of_others(self) -> None:
        """
        An object that a selective list lacks may well exist: 503, not 404.
        """
        site = await self.site_with(config_map("one", labels={"a": "b"}), config_map("two"))
        await site.get(f"{MAPS}?labelSelector=a%3Db")
        await site.offline()
        self.assert_from(await site.get(f"{MAPS}/one"), "cache")
        self.assert_failure(await site.get(f"{MAPS}/two"), 503, "ServiceUnavailable")
        self.assert_failure(await site.get(MAPS), 503, "ServiceUnavailable")

    async def test_cached_after_restart(self) -> None:
        """
        A hub that starts while the cloud is away serves from disk, at once.
        """
        site = await self.site_with(config_map("one"))
        online = await site.get(f"{MAPS}/one")
        await site.get(MAPS)
        await site.stop()
        await site.api.refuse()
        await site.restart()
        reply = await site.get(f"{MAPS}/one")
        self.assert_from(reply, "cache")
        self.assertEqual(reply.body, online.body.strip())
        self.assertEqual(names(await site.get(MAPS)), ["one"])

    async def test_cached_after_restart_in_silence(self) -> None:
        """
        Also when the cloud does not refuse but is silent: nobody waits for the verdict when the disk can answer.
        """
        site = await self.site_with(config_map("one"))
        await site.get(f"{MAPS}/one")
        await site.stop()
        site.api.cut()
        await site.restart()
        self.assert_from(await site.get(f"{MAPS}/one"), "cache")
        self.assertFalse(site.service.cloud.known)


class SelectorTests(HubCase):
    """
    Lists with selectors, from views of the same and of wider scope.
    """

    async def test_wider_view(self) -> None:
        """
        A list of all namespaces answers for one of them, and for any selector, by label and by any field the object has.
        """
        site = await self.site_with(
            config_map("a", labels={"app": "x", "tier": "1"}),
            config_map("b", labels={"app": "y"}),
            config_map("c", labels={"app": "x"}, namespace="kube-system"),
        )
        await site.get("/api/v1/configmaps")
        await site.offline()
        expected = {
            MAPS: ["a", "b"],
            "/api/v1/namespaces/kube-system/configmaps": ["c"],
            "/api/v1/namespaces/kube-public/configmaps": [],
            "/api/v1/configmaps?labelSelector=app%3Dx": ["a", "c"],
            f"{MAPS}?labelSelector=app%20in%20(x,z),tier": ["a"],
            f"{MAPS}?labelSelector=!tier": ["b"],
            f"{MAPS}?labelSelector=app%21%3Dx": ["b"],
            f"{MAPS}?fieldSelector=metadata.name%3Db": ["b"],
            "/api/v1/configmaps?fieldSelector=metadata.namespace%3Dkube-system": ["c"],
            f"{MAPS}?fieldSelector=data.key%3Da": ["a"],
            f"{MAPS}?fieldSelector=data.key%21%3Da,metadata.name%21%3Dz": ["b"],
        }
        for path, members in expected.items():
            reply = await site.get(path)
            self.assert_from(reply, "cache")
            self.assertEqual(names(reply), members, path)

    async def test_bad_selector(self) -> None:
        """
        A selector that no API server takes is 400 offline as well, and hurts nothing.
        """
        site = await self.site_with(config_map("a"))
        await site.get(MAPS)
        await site.offline()
        for query in ("labelSelector=a%20in%20x", "fieldSelector=%3D%3D%3D"):
            self.assert_failure(await site.get(f"{MAPS}?{query}"), 400, "BadRequest")
        self.assert_from(await site.get(MAPS), "cache")

    async def test_side_by_side(self) -> None:
        """
        Lists of different selectors stand beside each other; none wipes the other.
        """
        site = await self.site_with(config_map("a", labels={"app": "x"}), config_map("b", labels={"app": "y"}))
        selected = [f"{MAPS}?labelSelector=app%3D{app}" for app in "xyz"]
        for path in selected:
            await site.get(path)
        await site.offline()
        self.assertEqual([names(await site.get(path)) for path in selected], [["a"], ["b"], []])

    async def test_name_selector_without_item(self) -> None:
        """
        A list by name that finds nothing wipes nothing but tells that this one is not there.
        """
        site = await self.site_with(config_map("a"))
        await site.get(f"{MAPS}/a")
        await site.get(f"{MAPS}?fieldSelector=metadata.name%3Db")
        await site.offline()
        self.assert_from(await site.get(f"{MAPS}/a"), "cache")
        reply = await site.get(f"{MAPS}?fieldSelector=metadata.name%3Db")
        self.assert_from(reply, "cache")
        self.assertEqual(names(reply), [])
        self.assert_failure(await site.get(f"{MAPS}/b"), 404, "NotFound", source="cache")

    async def test_kubelet_pods(self) -> None:
        """
        Kubelet's list of its pods, by spec.nodeName; empty only if the cloud's last one was.
        """
        site = await self.site_with(pod("a"), pod("b", node="n2"), resource="pods")
        path = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&limit=500&resourceVersion=0"
        await site.get(path)
        await site.offline()
        self.assertEqual(names(await site.get(path)), ["a"])
        await site.online()
        site.api.remove("pods", "a")
        await site.get(path)
        await site.offline()
        self.assertEqual(names(await site.get(path)), [])


class PagedListTests(HubCase):
    """
    Lists in pages.
    """

    async def test_pages(self) -> None:
        """
        Pages become one view when the last arrives, and no list is answered from some of them.
        """
        site = await self.site_with(*[config_map(f"m{number}") for number in range(5)])
        first = await site.get(f"{MAPS}?limit=2")
        await site.offline()
        self.assert_failure(await site.get(MAPS), 503, "ServiceUnavailable")
        await site.online()
        token = first.json["metadata"]["continue"]
        while token:
            page = await site.get(f"{MAPS}?limit=2&continue={token}")
            self.assert_from(page, "cloud")
            token = page.json["metadata"].get("continue", "")
        await site.offline()
        for path in (MAPS, f"{MAPS}?limit=2"):
            whole = await site.get(path)
            self.assertEqual(names(whole), [f"m{number}" for number in range(5)])
            self.assertNotIn("continue", whole.json["metadata"])
        self.assertEqual(whole.json["metadata"]["resourceVersion"], first.json["metadata"]["resourceVersion"])

    async def test_page_offline(self) -> None:
        """
        A list that was begun with the cloud cannot go on without it: 410, whereupon clients begin anew.
        """
        site = await self.site_with(*[config_map(f"m{number}") for number in range(3)])
        await site.get(MAPS)
        first = await site.get(f"{MAPS}?limit=2")
        await site.offline()
        token = first.json["metadata"]["continue"]
        self.assert_failure(await site.get(f"{MAPS}?limit=2&continue={token}"), 410, "Expired")
        self.assertEqual(len(names(await site.get(MAPS))), 3)

    async def test_exact_version(self) -> None:
        """
        A list as it was at exactly one version is had from the cache only if that is its version.
        """
        site = await self.site_with(*[config_map(f"m{number}") for number in range(3)])
        version = (await site.get(MAPS)).json["metadata"]["resourceVersion"]
        await site.offline()
        exact = f"{MAPS}?resourceVersionMatch=Exact&resourceVersion="
        self.assertEqual(len(names(await site.get(exact + version))), 3)
        self.assert_failure(await site.get(f"{exact}1"), 503, "ServiceUnavailable")


class FormTests(HubCase):
    """
    Tables, metadata only, and other encodings.
    """

    async def test_forms_apart(self) -> None:
        """
        A Table and a PartialObjectMetadataList are kept beside the objects, each is answered as it was.
        """
        site = await self.site_with(config_map("a"), config_map("b"))
        online = {accept: (await site.get(MAPS, accept=accept)).json for accept in (TABLE, PARTIAL)}
        await site.offline()
        self.assert_failure(await site.get(MAPS, accept="application/json"), 503, "ServiceUnavailable")
        self.assert_failure(await site.get(f"{MAPS}/a", accept="application/json"), 503, "ServiceUnavailable")
        await site.online()
        await site.get(MAPS, accept="application/json")
        await site.offline()
        table = (await site.get(MAPS, accept=TABLE)).json
        self.assertEqual(table["kind"], "Table")
        for field in ("columnDefinitions", "rows", "apiVersion"):
            self.assertEqual(table[field], online[TABLE][field])
        partial = (await site.get(MAPS, accept=PARTIAL)).json
        self.assertEqual(partial["kind"], "PartialObjectMetadataList")
        self.assertEqual([item["metadata"] for item in partial["items"]], [item["metadata"] for item in online[PARTIAL]["items"]])
        self.assertNotIn("data", partial["items"][0])
        plain = (await site.get(MAPS, accept="application/json")).json
        self.assertEqual((plain["kind"], plain["items"][0]["data"]), ("ConfigMapList", {"key": "a"}))

    def test_ages(self) -> None:
        """
        The ages in a Table go on without the cloud: of a list, of one object, and of the state that a watch begins with.
        """
        site = MemorySite(self)
        site.online()
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(site.wall() - 5))
        metadata = {"name": "a", "namespace": "default", "resourceVersion": "5", "creationTimestamp": created}
        row = {"cells": ["a", "5s"], "object": {"kind": "PartialObjectMetadata", "metadata": metadata}}
        columns = [{"name": "Name", "type": "string"}, {"name": "Age", "type": "date"}]
        head: dict[str, Any] = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "9"}}
        table = {**head, "columnDefinitions": columns, "rows": [row]}
        for path in (MAPS, f"{MAPS}/a"):
            site.ask("GET", path, accept=TABLE)
            site.arriving(path).answer(200, table)
        site.offline()
        site.run(7200 - 5)
        for path in (MAPS, f"{MAPS}/a"):
            self.assertEqual(site.fetch("GET", path, accept=TABLE).json["rows"][0]["cells"], ["a", "120m"])
        watch = site.ask("GET", f"{MAPS}?watch=true", accept=TABLE)
        site.run(0.1)
        self.assertEqual(watch.events[0]["object"]["rows"][0]["cells"], ["a", "120m"])

    async def test_table_from_objects(self) -> None:
        """
        Who prefers a Table but takes plain JSON gets the objects when the cache has no Table.
        """
        site = await self.site_with(config_map("a"))
        await site.get(MAPS)
        await site.offline()
        self.assertEqual((await site.get(MAPS, accept=TABLE)).json["kind"], "ConfigMapList")

    async def test_single_forms(self) -> None:
        """
        A single object as Table and as metadata only.
        """
        site = await self.site_with(config_map("a"))
        online = {accept: (await site.get(f"{MAPS}/a", accept=accept)).json for accept in (TABLE, ONE_PARTIAL)}
        await site.offline()
        partial = (await site.get(f"{MAPS}/a", accept=ONE_PARTIAL)).json
        self.assertEqual(partial, online[ONE_PARTIAL])
        table = (await site.get(f"{MAPS}/a", accept=TABLE)).json
        self.assertEqual((table["kind"], table["rows"]), ("Table", online[TABLE]["rows"]))

    async def test_protobuf_first(self) -> None:
        """
        Who asks for protobuf first and for JSON second gets JSON, so that one form is stored; the cloud is asked for it only.
        """
        site = await self.site_with(config_map("a"))
        reply = await site.get(f"{MAPS}/a", accept=f"{PROTOBUF},application/json")
        self.assertEqual(header(reply, "content-type"), "application/json")
        self.assertEqual(site.api.seen[-1].accept, "application/json")
        await site.offline()
        self.assert_from(await site.get(f"{MAPS}/a", accept=f"{PROTOBUF}, */*"), "cache")

    async def test_protobuf_only(self) -> None:
        """
        Who takes nothing but protobuf is passed through untouched and uncached, and told so offline.
        """
        site = await self.site_with()
        body = b"k8s\x00\x0a\x0d\x0a\x02v1\x12\x09ConfigMap"
        site.api.scripted[f"{MAPS}/a"] = (200, PROTOBUF, body)
        reply = await site.get(f"{MAPS}/a", accept=PROTOBUF)
        self.assert_from(reply, "cloud")
        self.assertEqual((reply.body, site.api.seen[-1].accept), (body, PROTOBUF))
        self.assertEqual(await site.views("/v1/configmaps"), [])
        await site.offline()
        self.assert_failure(await site.get(f"{MAPS}/a", accept=PROTOBUF), 503, "ServiceUnavailable")

    async def test_gzip(self) -> None:
        """
        A list that travels compressed reaches the client as it came, and the cache readable.
        """
        many = [config_map(f"m{number}", data={"text": "x" * 2000}) for number in range(100)]
        site = await self.site_with(*many)
        online = await site.get(MAPS, accept_encoding="gzip")
        self.assertEqual(header(online, "content-encoding"), "gzip")
        self.assertEqual(len(json.loads(gzip.decompress(online.body))["items"]), 100)
        await site.offline()
        offline = await site.get(MAPS, accept_encoding="gzip")
        self.assertEqual((source(offline), header(offline, "content-encoding")), ("cache", ""))
        self.assertEqual(offline.json["items"][7], {"kind": "ConfigMap", "apiVersion": "v1", **_item(online, 7)})

    async def test_too_many_at_once(self) -> None:
        """
        All answers under way together may not hold more than the bound for the cache, and give their room back.
        """
        self.patch(delivery, "MAX_KEPT_TOTAL", 250_000)
        documents = [config_map(f"m{number}", data={"text": "x" * 2000}) for number in range(50)]
        site = await self.site_with(*documents)
        for _ in range(5):
            await site.get(MAPS)
        self.assertEqual((site.hub.kept_bytes, [line for line in site.log if "not cached" in line]), (0, []))
        site.hub.kept_bytes = 200_000
        self.assertEqual(len(names(await site.get(MAPS, agent="coredns"))), 50)
        self.assertEqual(site.hub.kept_bytes, 200_000)
        self.assertTrue([line for line in site.log if "not cached" in line])
        self.assertEqual([view["component"] for view in await site.views("/v1/configmaps")], ["kubelet"])

    async def test_unknown_encoding(self) -> None:
        """
        What comes in an encoding that the hub cannot undo passes, and is not stored: no document either.
        """
        site = await self.site_with(config_map("a"))
        site.api.scripted_headers = {"content-encoding": "br"}
        for path in (MAPS, "/version"):
            site.api.scripted[path] = (200, "application/json", b"\x0b\x02\x80{}\x03")
            self.assert_from(await site.get(path, accept_encoding="br"), "cloud")
        await site.offline()
        for path in (MAPS, "/version"):
            self.assert_failure(await site.get(path), 503, "ServiceUnavailable")

    async def test_too_large(self) -> None:
        """
        A list larger than what is kept passes whole, uncached, and a word in the log says so.
        """
        self.patch(delivery, "MAX_KEPT_BODY", 50_000)
        site = await self.site_with(*[config_map(f"m{number}", data={"text": "x" * 2000}) for number in range(60)])
        reply = await site.get(MAPS)
        self.assertEqual(len(names(reply)), 60)
        self.assertTrue([line for line in site.log if "not cached" in line])
        self.assertEqual(await site.views("/v1/configmaps"), [])

    async def test_too_large_compressed(self) -> None:
        """
        The limit holds for what comes out of the compression.
        """
        self.patch(delivery, "MAX_KEPT_BODY", 50_000)
        self.patch(hub_module, "MAX_KEPT_BODY", 50_000)
        site = await self.site_with(*[config_map(f"m{number}", data={"text": "x" * 2000}) for number in range(70)])
        reply = await site.get(MAPS, accept_encoding="gzip")
        self.assertEqual(len(json.loads(gzip.decompress(reply.body))["items"]), 70)
        self.assertEqual(await site.views("/v1/configmaps"), [])
        self.assertTrue([line for line in site.log if "not cached" in line])


def _item(reply: Reply, place: int) -> dict[str, Any]:
    item: dict[str, Any] = json.loads(gzip.decompress(reply.body))["items"][place]
    return item


class ScopeTests(HubCase):
    """
    Resources outside namespaces.
    """

    async def test_cluster_scope(self) -> None:
        """
        Nodes and namespaces by name and as lists, present and absent.
        """
        site = await self.site_with({"metadata": {"name": "n1", "labels": {"a": "b"}}}, resource="nodes")
        for path in ("/api/v1/nodes", "/api/v1/namespaces"):
            self.assert_from(await site.get(path), "cloud")
        self.assert_from(await site.get("/api/v1/nodes/n1?resourceVersion=0"), "cloud")
        await site.offline()
        for path, items in {
            "/api/v1/nodes": ["n1"],
            "/api/v1/nodes?labelSelector=a": ["n1"],
            "/api/v1/nodes?fieldSelector=metadata.name%3Dn1": ["n1"],
            "/api/v1/nodes?fieldSelector=metadata.name%3Dn2": [],
            "/api/v1/namespaces?fieldSelector=metadata.name%3Ddefault": ["default"],
        }.items():
            reply = await site.get(path)
            self.assert_from(reply, "cache")
            self.assertEqual(names(reply), items, path)
        for path in ("/api/v1/nodes/n1", "/api/v1/namespaces/default", "/api/v1/namespaces/default/"):
            self.assert_from(await site.get(path), "cache")
        self.assert_failure(await site.get("/api/v1/nodes/n2"), 404, "NotFound", 'nodes "n2" not found', source="cache")
        self.assert_failure(await site.get("/api/v1/namespaces/x"), 404, "NotFound", 'namespaces "x" not found', source="cache")


class ErrorStatusTests(HubCase):
    """
    Answers of the cloud that are no objects.
    """

    async def test_pass_through(self) -> None:
        """
        400, 401, 403, 404, 409, 429 and 500 reach the client as they are although the cache has the object, and are never
        stored.
        """
        site = await self.site_with(config_map("a"))
        online = await site.get(f"{MAPS}/a")
        for code in (400, 401, 403, 409, 410, 429, 500):
            failure: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code}
            body = json.dumps(failure).encode()
            site.api.scripted[f"{MAPS}/a"] = (code, "application/json", body)
            reply = await site.get(f"{MAPS}/a")
            self.assert_from(reply, "cloud", code)
            self.assertEqual(reply.body, body)
        await site.offline()
        self.assertEqual((await site.get(f"{MAPS}/a")).body, online.body.strip())

    async def test_status_with_200(self) -> None:
        """
        A Status body is never stored as an object, whatever the code that brought it.
        """
        site = await self.site_with(config_map("a"))
        await site.get(MAPS)
        body = b'{"kind":"Status","apiVersion":"v1","metadata":{"name":"a","namespace":"default"},"status":"Success"}'
        for path in (f"{MAPS}/a", MAPS):
            site.api.scripted[path] = (200, "application/json", body)
            self.assertEqual((await site.get(path)).body, body)
        await site.offline()
        self.assertEqual((await site.get(f"{MAPS}/a")).json["kind"], "ConfigMap")
        self.assertEqual(names(await site.get(MAPS)), ["a"])

    async def test_garbage(self) -> None:
        """
        An answer that is no Kubernetes object passes and is not stored.
        """
        site = await self.site_with(config_map("a"))
        await site.get(MAPS)
        for body in (b"", b"<html>", b"{", b"[]", b'{"kind": 7}', b'{"kind":"ConfigMapList","items":[1]}', b"null"):
            site.api.scripted[MAPS] = (200, "application/json", body)
            reply = await site.get(MAPS)
            self.assertEqual((reply.status, reply.body), (200, body))
        await site.offline()
        self.assertEqual(names(await site.get(MAPS)), ["a"])

    async def test_gone(self) -> None:
        """
        After the API server said 404, and not some proxy before it, the object is not read from the cache any more.
        """
        site = await self.site_with(config_map("a"))
        await site.get(MAPS)
        await site.get(f"{MAPS}/a")
        site.api.scripted[f"{MAPS}/a"] = (404, "text/html", b"<html>some proxy's page")
        self.assert_from(await site.get(f"{MAPS}/a"), "cloud", 404)
        for words in (status_body(404, "Other", "a status of somebody else"), b'{"reason":"NotFound"}', b"[]"):
            site.api.scripted[f"{MAPS}/a"] = (404, "application/json", words)
            self.assert_from(await site.get(f"{MAPS}/a"), "cloud", 404)
        site.api.scripted[f"{MAPS}/a/status"] = (404, "application/json", status_body(404, "NotFound", "no such subresource"))
        self.assert_from(await site.get(f"{MAPS}/a/status"), "cloud", 404)
        del site.api.scripted[f"{MAPS}/a"]
        await site.offline()
        self.assert_from(await site.get(f"{MAPS}/a"), "cache")
        await site.online()
        site.api.remove("configmaps", "a")
        self.assert_from(await site.get(f"{MAPS}/a"), "cloud", 404)
        await site.offline()
        self.assert_failure(await site.get(f"{MAPS}/a"), 404, "NotFound", source="cache")

    async def test_load_balancer(self) -> None:
        """
        502, 503 and 504 never turn into an error for a read that the cache can answer; others see them as they are.
        """
        site = await self.site_with(config_map("a"))
        await site.get(f"{MAPS}/a")
        for code in (502, 503, 504):
            await site.online()
            site.api.failure = code
            self.assert_from(await site.get(f"{MAPS}/a"), "cache")
        await site.online()
        site.api.scripted[f"{MAPS}/b"] = (503, "text/html", b"<html>")
        reply = await site.get(f"{MAPS}/b")
        self.assertEqual((reply.status, reply.body, source(reply)), (503, b"<html>", "cloud"))


class TwoServersTests(SynchronousTestCase):
    """
    One of two servers has a load balancer's error, or knows less than what was asked for.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self, servers=2)
        self.site.online()
        self.site.store_list(MAPS, [memory_config_map("a", 5)], "10")

    def test_other_server(self) -> None:
        """
        The other one is asked before the cache, and before the client gets the error.
        """
        for target in (MAPS, f"{MAPS}/a", "/version"):
            request = self.site.ask("GET", target)
            self.site.arriving(target).answer(503, b"no server", [(b"Content-Type", b"text/html")])
            self.site.arriving(target).answer(200, memory_config_map("a", 7))
            self.assertEqual((request.status, request.header("x-yurt-source")), (200, "cloud"), target)

    def test_other_server_for_what_is_not_cached(self) -> None:
        """
        Readers whose answers are not cached get the other server's, too.
        """
        for target in (MAPS, "/api/v1/namespaces/default/pods/a/log"):
            request = self.site.ask("GET", target, agent="kubectl")
            self.site.arriving(target).answer(503, b"no server", [(b"Content-Type", b"text/html")])
            self.site.arriving(target).answer(200, {"kind": "ConfigMapList"})
            self.assertEqual((request.status, request.header("x-yurt-source")), (200, "cloud"), target)

    def test_writes_stay(self) -> None:
        """
        A write is not repeated: whether the server behind the load balancer carried it out is not known.
        """
        request = self.site.ask("POST", MAPS, memory_config_map("new", 0), agent="kubectl", content_type="application/json")
        self.site.arriving(MAPS).answer(503, b"no server", [(b"Content-Type", b"text/html")])
        self.assertEqual((request.status, request.data), (503, b"no server"))

    def test_both(self) -> None:
        """
        The cache answers when both have an error; what it does not know is the last server's error.
        """
        for target, status, origin in ((f"{MAPS}/a", 200, "cache"), ("/api/v1/namespaces/other/configmaps", 502, "cloud")):
            request = self.site.ask("GET", target)
            for code in (503, 502):
                self.site.arriving(target).answer(code, b"no server", [(b"Content-Type", b"text/html")])
            self.assertEqual((request.status, request.header("x-yurt-source")), (status, origin))

    def test_too_large_resource_version(self) -> None:
        """
        Who asks for a state newer than what the server has learns that, and gets nothing older from the cache.
        """
        causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
        refusal = status_body(504, "Timeout", "Too large resource version: 99, current: 10", details={"causes": causes})
        for target in (MAPS, f"{MAPS}/a"):
            request = self.site.ask("GET", f"{target}?resourceVersion=99")
            self.site.arriving(target).answer(504, refusal)
            self.assertEqual((request.status, request.data), (504, refusal))

    def test_list_overtaken_by_events(self) -> None:
        """
        A list that comes after events newer than it takes nothing back, in one piece or in pages.
        """
        key = ViewKey(Caller(NODE, "kubelet"), "/v1/configmaps", "", "default")
        for first, version in (("", 10), ("?limit=1", 12)):
            pages = [self.site.ask("GET", MAPS + first)]
            late = self.site.arriving(MAPS)
            if first:
                late.answer(200, {**EMPTY, "metadata": {"resourceVersion": str(version), "continue": "more"}})
                pages.append(self.site.ask("GET", f"{MAPS}?limit=1&continue=more"))
                late = self.site.arriving(MAPS)
            new = memory_config_map(f"b{version}", version + 2)
            self.site.hub.views.apply_event(key, read_event(memory_event("ADDED", new)))
            late.answer(200, {**EMPTY, "metadata": {"resourceVersion": str(version)}})
            self.assertEqual([page.status for page in pages], [200] * len(pages))
        self.site.offline()
        kept = self.site.fetch("GET", MAPS)
        self.assertEqual(sorted(item["metadata"]["name"] for item in kept.json["items"]), ["a", "b10", "b12"])


class StrangePathTests(SynchronousTestCase):
    """
    Paths that name nothing.
    """

    def test_star_for_a_namespace(self) -> None:
        """
        A list or watch of the namespace ``*``, which API servers answer with nothing, leaves what single reads brought alone.
        """
        site = MemorySite(self)
        site.online()
        site.ask("GET", f"{MAPS}/a")
        site.arriving(f"{MAPS}/a").answer(200, memory_config_map("a", 5))
        site.store_list("/api/v1/namespaces/*/configmaps", [], "10")
        site.ask("GET", "/api/v1/namespaces/*/configmaps?watch=true&resourceVersion=10")
        site.arriving("/api/v1/namespaces/*/configmaps").begin()
        site.offline()
        self.assertEqual(site.fetch("GET", f"{MAPS}/a").status, 200)
        self.assertEqual(site.fetch("GET", "/api/v1/namespaces/*/configmaps").status, 503)


class LossTests(HubCase):
    """
    The ways in which a cloud goes away.
    """

    def count_requests(self, site: Site) -> list[bytes]:
        """
        The targets of what is sent to the cloud from now on, without the probes.
        """
        sent: list[bytes] = []
        for server in site.service.cloud.servers:
            for upstream in (server.upstream, server.bare):
                self.spy(upstream, sent)
        return sent

    def spy(self, upstream: Any, sent: list[bytes]) -> None:
        """
        Note what ``upstream`` sends, and have it sent.
        """
        send = upstream.send

        def noting(head: RequestHead, *args: Any, **options: Any) -> Any:
            if head.target != b"/readyz":
                sent.append(head.target)
            return send(head, *args, **options)

        self.patch(upstream, "send", noting)

    def half_answers(self, site: Site, *, closing: bool) -> HalfAnswers:
        """
        Put a server in the place of the cloud that begins an answer and breaks off, or falls silent, in the middle of it.
        """
        cloud = HalfAnswers(
            b'{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"900"},"items":[]}', closing
        )
        port = reactor.listenTCP(0, cloud, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        site.service.cloud.servers[0].upstream = HTTPUpstream(reactor, f"http://127.0.0.1:{port.getHost().port}", None)
        return cloud

    async def test_refused(self) -> None:
        """
        The first read after the cloud's death is answered from the cache; once it is known none is sent any more.
        """
        site = await self.site_with(config_map("a"))
        await site.get(f"{MAPS}/a")
        await site.api.refuse()
        self.assert_from(await site.get(f"{MAPS}/a"), "cache")
        await site.notice_loss()
        sent = self.count_requests(site)
        for _ in range(20):
            self.assert_from(await site.get(f"{MAPS}/a"), "cache")
        self.assertEqual(sent, [])

    async def test_reset(self) -> None:
        """
        A connection that breaks while the answer is awaited is no error either; the cloud that lives is asked again.
        """
        site = await self.site_with(config_map("a"))
        await site.get(f"{MAPS}/a")
        site.api.delay = 30.0
        answer = ensureDeferred(site.get(f"{MAPS}/a"))
        await until(lambda: site.hub.in_flight == 1)
        site.api.reset_connections()
        site.api.delay = 0.0
        self.assertEqual((await answer).status, 200)

    async def test_silence(self) -> None:
        """
        Packets vanish: a cached read is answered while the cloud is silent, and soon, as patience and probe add up to less
        than two seconds.
        """
        self.assertLess(patience.PATIENCE + patience.PATIENCE_TICK + health.SUSPECT_TIMEOUT, 2.0)
        site = await self.site_with(config_map("a"))
        await site.get(f"{MAPS}/a")
        await site.get(MAPS)
        site.api.cut()
        self.assert_from(await site.get(f"{MAPS}/a"), "cache")
        self.assertFalse(site.service.cloud.reachable)
        sent = self.count_requests(site)
        self.assert_from(await site.get(MAPS), "cache")
        self.assert_failure(await site.get(f"{MAPS}/none?x=y", agent="kube-proxy"), 503, "ServiceUnavailable")
        self.assertEqual(sent, [])

    async def test_silence_in_the_middle(self) -> None:
        """
        Packets vanish in the middle of an answer: the client is not left to wait for a heartbeat; the cache answers, and who is
        not cached is cut off.
        """
        site = await self.site_with(config_map("a"), heartbeat_interval=3600.0)
        await site.get(MAPS)
        cloud = self.half_answers(site, closing=False)
        cut = self.assertFailure(ensureDeferred(site.get(MAPS, agent="curl")), ResponseFailed)
        reply = await site.get(MAPS)
        await cut
        self.assertGreater(cloud.asked, 1)
        self.assert_from(reply, "cache")
        self.assertEqual(names(reply), ["a"])

    async def test_slow_cloud(self) -> None:
        """
        A cloud that is slow with an answer but alive is waited for.
        """
        site = await self.site_with(config_map("a"))
        await site.get(f"{MAPS}/a")
        site.api.delay = patience.PATIENCE + 4 * patience.PATIENCE_TICK
        answer = ensureDeferred(site.get(f"{MAPS}/a"))
        await until(lambda: site.hub.in_flight == 1)
        site.api.delay = 0.0
        self.assert_from(await answer, "cloud")

    async def test_wrong_authority(self) -> None:
        """
        A server that another CA vouches for is no cloud: the cache answers, and readiness stays calm about it.
        """
        site = await self.site_with(config_map("a"))
        await site.get(f"{MAPS}/a")
        await site.stop()
        (site.folder / "ca.pem").write_bytes(make_ca("somebody else").cert_pem)
        await site.restart()
        await until(lambda: site.service.cloud.known)
        self.assertFalse(site.service.cloud.reachable)
        self.assertIn("certificate", site.service.cloud.reason)
        self.assert_from(await site.get(f"{MAPS}/a"), "cache")
        self.assertEqual([seen for seen in site.api.seen if seen.user == USER and seen.path == f"{MAPS}/a"][1:], [])

    async def test_broken_off(self) -> None:
        """
        An answer that breaks off in the middle is not stored; the cache answers in its place, and who is not cached sees that it
        is not whole.
        """
        site = await self.site_with(config_map("a"))
        await site.get(MAPS)
        server = site.service.cloud.servers[0]
        upstream = server.upstream
        cloud = self.half_answers(site, closing=True)
        await self.assertFailure(ensureDeferred(site.get(MAPS, agent="curl")), ResponseFailed)
        self.assert_from(await site.get(MAPS), "cache")
        self.assertTrue(cloud.asked)
        server.upstream = upstream
        await site.offline()
        self.assertEqual(names(await site.get(MAPS)), ["a"])

    async def test_return(self) -> None:
        """
        When the cloud is back, reads come from it again.
        """
        site = await self.site_with(config_map("a"))
        await site.get(f"{MAPS}/a")
        await site.offline()
        self.assert_from(await site.get(f"{MAPS}/a"), "cache")
        await site.online()
        self.assert_from(await site.get(f"{MAPS}/a"), "cloud")


class HalfAnswers(Factory):
    """
    A server that begins an answer and goes no further than the middle of its body.
    """

    noisy = False

    def __init__(self, body: bytes, closing: bool) -> None:
        self.body = body
        self.closing = closing
        self.asked = 0

    def buildProtocol(self, addr: Any) -> Protocol:
        return HalfAnswer(self)


class HalfAnswer(Protocol):
    """
    One of its connections.
    """

    def __init__(self, server: HalfAnswers) -> None:
        self.server = server

    def dataReceived(self, data: bytes) -> None:
        self.server.asked += 1
        body = self.server.body
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (len(body) + 10)
        assert self.transport is not None
        self.transport.write(head + body)
        if self.server.closing:
            self.transport.loseConnection()


class NeverCachedTests(HubCase):
    """
    What is not kept.
    """

    async def test_subresources_and_reviews(self) -> None:
        """
        Subresources other than status, reviews, CSRs and tokens leave no trace in the cache.
        """
        site = await self.site_with()
        body = json.dumps({"kind": "Thing", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "default"}}).encode()
        paths = [f"{PODS}/a/{sub}" for sub in ("log", "exec", "attach", "portforward", "proxy", "eviction", "binding")]
        paths += [
            "/apis/apps/v1/namespaces/default/deployments/a/scale",
            "/apis/certificates.k8s.io/v1/certificatesigningrequests/a",
            "/apis/certificates.k8s.io/v1/certificatesigningrequests",
            "/apis/authentication.k8s.io/v1/tokenreviews/a",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews/a",
            "/api/v1/namespaces/default/serviceaccounts/a/token",
        ]
        for path in paths:
            site.api.scripted[path] = (200, "application/json", body)
            self.assert_from(await site.get(path), "cloud")
        self.assertEqual((await site.status())["views"], [])
        await site.offline()
        for path in paths:
            self.assert_from(await site.get(path), "hub", 503)

    async def test_status_subresource(self) -> None:
        """
        The status subresource is the object.
        """
        site = await self.site_with(pod("a"), resource="pods")
        self.assert_from(await site.get(f"{PODS}/a/status"), "cloud")
        await site.offline()
        self.assertEqual((await site.get(f"{PODS}/a/status")).json["metadata"]["name"], "a")
        self.assert_from(await site.get(f"{PODS}/a"), "cache")

    async def test_other_agents(self) -> None:
        """
        A component that is not cached finds nothing, and leaves nothing.
        """
        site = await self.site_with(config_map("a"))
        self.assert_from(await site.get(MAPS, agent="kubectl"), "cloud")
        self.assert_from(await site.get(MAPS, agent=""), "cloud")
        self.assertEqual((await site.status())["views"], [])
        await site.offline()
        for agent in ("kubectl", ""):
            self.assert_failure(await site.get(MAPS, agent=agent), 503, "ServiceUnavailable")

    async def test_components_apart(self) -> None:
        """
        What one component read is not another's.
        """
        site = await self.site_with(config_map("a"))
        await site.get(MAPS, agent="kubelet")
        await site.offline()
        self.assert_from(await site.get(MAPS, agent="kubelet"), "cache")
        for path in (MAPS, f"{MAPS}/a"):
            self.assert_failure(await site.get(path, agent="kube-proxy"), 503, "ServiceUnavailable")
