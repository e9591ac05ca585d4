"""
Tests for ``yurt.hub.filtered``: GET and LIST through filters, on a clock.
"""

from __future__ import annotations

import gzip
import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.filters.cluster import SLICES_PATH, Cluster, filtering_site, slice_list
from tests.hub.filters.fixtures import endpoint_slice, nodes_of, service
from tests.hub.memory_site import JSON, HandExchange, MemoryRequest, MemorySite
from yurt.hub.cache.views import LIST_STEP
from yurt.hub.filters.discardcloudservice import DISCARD

HOST = "kubernetes.io/hostname"
SERVICES = "/api/v1/services"
CLOUD_ONLY = service("cloud", annotations={DISCARD: "true"}, type="LoadBalancer")
OPEN = service("open", type="ClusterIP")


def service_list(*items: dict[str, Any], version: int = 50, **metadata: Any) -> dict[str, Any]:
    """
    A ServiceList.
    """
    return {
        "kind": "ServiceList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": str(version), **metadata},
        "items": list(items),
    }


def names(request: MemoryRequest) -> list[str]:
    """
    The names of the items that a client got.
    """
    return [item["metadata"]["name"] for item in request.json["items"]]


def of_client(site: MemorySite, path: str) -> HandExchange:
    """
    The request of a client that arrives at the cloud.
    """

    def found() -> list[HandExchange]:
        return [one for one in site.at_cloud(path) if b"yurthub/" not in dict(one.head.headers)[b"User-Agent"]]

    site.run_until(found)
    return found()[0]


class ListTests(SynchronousTestCase):
    """
    Tests of lists.
    """

    def setUp(self) -> None:
        self.site, self.cluster = filtering_site(self)

    def list(self, path: str, body: Any, *, agent: str = "kube-proxy", headers: Any = JSON, **options: str) -> MemoryRequest:
        """
        What a client gets when the cloud answers.
        """
        request = self.site.ask("GET", path, agent=agent, **options)
        exchange = of_client(self.site, path.partition("?")[0])
        exchange.answer(200, body, headers)
        self.site.run(0.1)
        self.assertTrue(request.finished)
        read: Any = exchange.receiver
        self.assertIsNone(read.delivery.kept)  # a request that is over holds nothing of its answer
        return request

    def test_hidden(self) -> None:
        """
        A hidden object is not in the list; the list says all else of itself that the cloud said.
        """
        metadata: dict[str, Any] = {"continue": "token", "remainingItemCount": "7"}
        request = self.list(SERVICES, service_list(CLOUD_ONLY, OPEN, **metadata))
        self.assertEqual(names(request), ["open"])
        self.assertEqual(request.json["metadata"], {"resourceVersion": "50", **metadata})
        self.assertEqual((request.json["kind"], request.json["apiVersion"]), ("ServiceList", "v1"))
        self.assertEqual(request.header("X-Yurt-Source"), "cloud")
        self.assertEqual(request.header("Warning"), "")

    def test_bytes_are_kept(self) -> None:
        """
        Items that no filter changes keep their bytes, and so does a list in which nothing is changed.
        """
        odd = b'{"metadata": {"name":"odd",  "namespace":"default"}, "spec":{"unknown": 1.0e3}}'
        body = json.dumps(service_list(CLOUD_ONLY)).encode()[:-2] + b", " + odd + b"]}"
        self.assertIn(odd, self.list(SERVICES, body).data)
        body = b'{"kind":"ServiceList", "apiVersion":"v1", "metadata":{"resourceVersion":"51"},  "items":[' + odd + b"]}"
        self.assertEqual(self.list(SERVICES, body).data, body)

    def test_other_components(self) -> None:
        """
        Others see everything as it is.
        """
        for agent in ("kubelet", "coredns", "curl"):
            request = self.list(SERVICES, service_list(CLOUD_ONLY, OPEN), agent=agent)
            self.assertEqual(names(request), ["cloud", "open"])

    def test_cache_holds_the_truth(self) -> None:
        """
        The cache keeps what the cloud said, and its answers are filtered like the cloud's.
        """
        self.list(SERVICES, service_list(CLOUD_ONLY, OPEN))
        (key,) = [key for key, _ in self.site.hub.views.views() if key.caller.component == "kube-proxy"]
        found = self.site.hub.views.read_list(key)
        assert found is not None
        self.assertEqual(found.items, 2)
        self.site.offline()
        request = self.site.fetch("GET", SERVICES, agent="kube-proxy")
        self.assertEqual((names(request), request.header("X-Yurt-Source")), (["open"], "cache"))

    def test_long_list_without_the_cloud(self) -> None:
        """
        A long list of the cache is filtered in several turns of the reactor, or at once when somebody else must see the cache; a
        client that hangs up meanwhile gets nothing.
        """
        many = [service(f"s{number}", annotations={DISCARD: "true"}, type="LoadBalancer") for number in range(2 * LIST_STEP)]
        self.list(SERVICES, service_list(*many, OPEN))
        self.site.offline()
        first, request = (self.site.ask("GET", SERVICES, agent="kube-proxy") for _ in range(2))
        self.assertEqual((first.finished, request.finished), (True, False))
        other = self.site.ask("GET", SERVICES, agent="kube-proxy")
        self.assertEqual((names(request), request.header("X-Yurt-Source")), (["open"], "cache"))
        other.hang_up()
        self.site.run(0.1)
        self.assertEqual((other.status, other.data), (0, b""))

    def test_json_is_asked_for(self) -> None:
        """
        The cloud is asked for JSON; a component that is not among the cached ones gets it and is kept, too.
        """
        self.cluster.service("web", HOST)
        self.site.run(0.5)
        accept = "application/vnd.kubernetes.protobuf,application/json"
        agent = "nginx-ingress-controller"
        request = self.site.ask("GET", SLICES_PATH, agent=agent, accept=accept)
        exchange = of_client(self.site, SLICES_PATH)
        self.assertEqual(dict(exchange.head.headers)[b"Accept"], b"application/json")
        exchange.answer(200, slice_list([endpoint_slice("web", "n1", "n2")], 60))
        self.site.run(0.1)
        self.assertEqual(nodes_of(request.json["items"][0]), ["n1"])
        self.site.offline()
        request = self.site.fetch("GET", SLICES_PATH, agent=agent, accept=accept)
        self.assertEqual(nodes_of(request.json["items"][0]), ["n1"])

    def test_protobuf_only(self) -> None:
        """
        Who takes protobuf only gets what the cloud says.
        """
        headers = [(b"Content-Type", b"application/vnd.kubernetes.protobuf")]
        request = self.list(SERVICES, b"k8s\0...", headers=headers, accept="application/vnd.kubernetes.protobuf")
        warning = '199 yurthub "filter discardcloudservice is not applied: the client takes no JSON"'
        self.assertEqual(request.header("Warning"), warning)
        self.assertEqual(request.data, b"k8s\0...")

    def test_gzip(self) -> None:
        """
        A compressed answer is filtered, and goes out plain.
        """
        body = gzip.compress(json.dumps(service_list(CLOUD_ONLY, OPEN)).encode())
        headers = [*JSON, (b"Content-Encoding", b"gzip"), (b"Content-Length", b"%d" % len(body))]
        request = self.list(SERVICES, body, headers=headers, accept_encoding="gzip")
        self.assertEqual(names(request), ["open"])
        self.assertEqual((request.header("Content-Encoding"), request.header("Content-Length")), ("", ""))

    def test_other_encodings(self) -> None:
        """
        What cannot be read is passed on as it is.
        """
        headers = [*JSON, (b"Content-Encoding", b"br")]
        request = self.list(SERVICES, b"\x01\x02", headers=headers)
        self.assertEqual((request.data, request.header("Content-Encoding")), (b"\x01\x02", "br"))

    def test_tables(self) -> None:
        """
        Who prefers Tables and takes plain objects gets these, filtered; Tables and metadata that a client insists on are passed
        on as they are, and say so.
        """
        table, metadata = (f"application/json;as={kind};v=v1;g=meta.k8s.io" for kind in ("Table", "PartialObjectMetadataList"))
        request = self.list(SERVICES, service_list(CLOUD_ONLY, OPEN), accept=f"{table},{metadata},application/json")
        self.assertEqual((names(request), request.header("Warning")), (["open"], ""))
        for kind, rows, accept in (("Table", "rows", table), ("PartialObjectMetadataList", "items", metadata)):
            item = {"object": CLOUD_ONLY} if kind == "Table" else CLOUD_ONLY
            body = {"kind": kind, "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "5"}, rows: [item]}
            request = self.list(SERVICES, body, accept=accept)
            self.assertEqual(request.json, body)
            self.assertIn('"filter discardcloudservice is not applied: the client takes', request.header("Warning"))

    def test_refusals(self) -> None:
        """
        What is no list is passed on: an error, or a document of another kind.
        """
        request = self.site.ask("GET", SERVICES, agent="kube-proxy")
        of_client(self.site, SERVICES).answer(403, {"kind": "Status", "code": 403})
        self.assertEqual((request.status, request.json["code"]), (403, 403))
        for body in (b"[]", b"{", b'{"kind":"Status"}', b""):
            self.assertEqual(self.list(SERVICES, body).data, body)

    def test_broken_off(self) -> None:
        """
        Half an answer is none: the cache answers, when it can.
        """
        self.list(SERVICES, service_list(OPEN))
        request = self.site.ask("GET", SERVICES, agent="kube-proxy")
        exchange = of_client(self.site, SERVICES)
        exchange.begin()
        exchange.send(b'{"kind":"ServiceList","items":[')
        self.site.run(0.1)
        self.assertEqual(request.status, 0)
        exchange.fail()
        self.site.run_until(lambda: request.finished)
        self.assertEqual((names(request), request.header("X-Yurt-Source")), (["open"], "cache"))
        self.assertEqual(self.site.hub.kept_bytes, 0)

    def test_too_large(self) -> None:
        """
        What is too large to be held is passed on unfiltered, whole.
        """
        body = json.dumps(service_list(CLOUD_ONLY, OPEN)).encode()
        request = self.site.ask("GET", SERVICES, agent="kube-proxy")
        exchange = of_client(self.site, SERVICES)
        exchange.begin()
        exchange.send(body[:20])
        self.site.hub.kept_bytes += 64 * 1024 * 1024
        exchange.send(body[20:40])
        self.site.hub.kept_bytes -= 64 * 1024 * 1024
        exchange.send(body[40:])
        exchange.end()
        self.assertEqual(request.data, body)
        warning = '199 yurthub "filter discardcloudservice is not applied: the answer is too large"'
        self.assertEqual(request.header("Warning"), warning)

    def test_hung_up(self) -> None:
        """
        A client that hangs up while its list is held leaves nothing.
        """
        request = self.site.ask("GET", SERVICES, agent="kube-proxy")
        exchange = of_client(self.site, SERVICES)
        exchange.begin()
        exchange.send(b"{")
        request.hang_up()
        self.site.run(0.1)
        self.assertTrue(exchange.cancelled)
        self.assertEqual((self.site.hub.kept_bytes, self.site.hub.in_flight), (0, 0))

    def test_long_list(self) -> None:
        """
        A list of thousands is filtered in several turns, and whole in the end.
        """
        self.cluster.service("web", HOST)
        self.site.run(0.5)
        items = [endpoint_slice("web", "n1", "n2") for _ in range(1200)]
        for number, item in enumerate(items):
            item["metadata"]["name"] = f"web-{number:04}"
        request = self.list(SLICES_PATH, slice_list(items, 60))
        self.assertEqual(len(request.json["items"]), 1200)
        self.assertEqual({tuple(nodes_of(item)) for item in request.json["items"]}, {("n1",)})


class PageTests(SynchronousTestCase):
    """
    Tests of lists in pages.
    """

    def test_one_lens(self) -> None:
        """
        All pages are shown as the first one was, also when things change between them; the watch tells the difference.
        """
        site, cluster = filtering_site(self)
        cluster.service("web", HOST)
        site.run(0.5)
        first, second = endpoint_slice("web", "n1", "n2"), endpoint_slice("web", "n1", "n3")
        second["metadata"]["name"] = "web-2"
        answer = {"continue": "next"}
        pages = [("", slice_list([first], 60, **answer)), ("&continue=next", slice_list([second], 60))]
        shown = []
        for query, body in pages:
            request = site.ask("GET", f"{SLICES_PATH}?limit=1{query}", agent="kube-proxy")
            of_client(site, SLICES_PATH).answer(200, body)
            site.run(0.1)
            shown += [nodes_of(item) for item in request.json["items"]]
            cluster.service("web", None)
            site.run(0.5)
        self.assertEqual(shown, [["n1"], ["n1"]])
        watch = site.ask("GET", f"{SLICES_PATH}?watch=true&resourceVersion=60", agent="kube-proxy")
        of_client(site, SLICES_PATH).begin()
        site.run(0.5)
        told = {event["object"]["metadata"]["name"]: nodes_of(event["object"]) for event in watch.events}
        self.assertEqual(told, {"web-1": ["n1", "n2"], "web-2": ["n1", "n3"]})


class ObjectTests(SynchronousTestCase):
    """
    Tests of single objects.
    """

    def test_get(self) -> None:
        """
        A GET is filtered where the filter says so, from the cloud and from the cache; others are not.
        """
        site, _ = filtering_site(self)
        site.hub.filters.set_address("169.254.2.1", 10268)
        path = "/api/v1/namespaces/kube-system/configmaps/kube-proxy"
        metadata = {"name": "kube-proxy", "namespace": "kube-system", "resourceVersion": "9"}
        document = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": {"config.conf": "kubeconfig: /x"}}
        request = site.ask("GET", path)
        of_client(site, path).answer(200, document)
        site.run(0.1)
        self.assertEqual(request.json["data"]["config.conf"], "#kubeconfig: /x")
        site.offline()
        request = site.fetch("GET", path)
        self.assertEqual(request.json["data"]["config.conf"], "#kubeconfig: /x")
        site.hub.filters.set_address("", 0)
        request = site.fetch("GET", path)
        self.assertEqual(request.json["data"]["config.conf"], "kubeconfig: /x")

    def test_absent(self) -> None:
        """
        404 is passed on as it is.
        """
        site, _ = filtering_site(self)
        site.hub.filters.set_address("169.254.2.1", 10268)
        path = "/api/v1/namespaces/default/pods/p"
        request = site.ask("GET", path)
        of_client(site, path).answer(404, {"kind": "Status", "code": 404, "reason": "NotFound"})
        site.run(0.1)
        self.assertEqual((request.status, request.json["reason"]), (404, "NotFound"))


class MissingTests(SynchronousTestCase):
    """
    Tests of what filters depend on and is not there.
    """

    def site_without(self, *paths: str) -> tuple[MemorySite, Cluster]:
        """
        A hub that may not read these paths.
        """
        site = MemorySite(self)
        cluster = Cluster(site)
        cluster.refused = {path: 404 for path in paths}
        site.hub.start_filters()
        site.online()
        site.run(1.0)
        return site, cluster

    def test_unfiltered(self) -> None:
        """
        Nothing waits: what cannot be filtered is passed on with a Warning, a figure and one line in the log.
        """
        site, cluster = self.site_without(SERVICES)
        request = site.ask("GET", SLICES_PATH, agent="kube-proxy")
        of_client(site, SLICES_PATH).answer(200, slice_list([endpoint_slice("web", "n1", "n2")], 60))
        site.run(0.1)
        self.assertEqual(nodes_of(request.json["items"][0]), ["n1", "n2"])
        self.assertIn("servicetopology", request.header("Warning"))
        self.assertIn("Services", request.header("Warning"))
        self.assertEqual(site.hub.filters.unfiltered["servicetopology"], 1)
        self.assertEqual(site.hub.filters.degraded["servicetopology"], ["Services"])

    def test_others_work(self) -> None:
        """
        Filters that depend on nothing work all the same.
        """
        site, _ = self.site_without(SERVICES, "/apis/apps.openyurt.io/v1beta1/nodepools")
        request = site.ask("GET", SERVICES, agent="kube-proxy")
        of_client(site, SERVICES).answer(200, service_list(CLOUD_ONLY, OPEN))
        site.run(0.1)
        self.assertEqual(names(request), ["open"])
        self.assertIn("nodeportisolation", request.header("Warning"))
