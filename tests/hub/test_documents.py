"""
Tests of the documents that are cached for everyone: discovery, OpenAPI, /version, the issuer's keys.
"""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import JSON, HandExchange, MemorySite
from tests.hub.site import POD_ADDRESS, header, source
from tests.hub.test_identity import Rows
from tests.hub.test_reads import HubCase
from yurt.http.interfaces import Headers
from yurt.hub import documents as documents_module
from yurt.hub.documents import Documents, is_document
from yurt.kube.requestinfo import parse_request

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
KUBECTL = f"{AGGREGATED},application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
OPENAPI_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
EVERYONE = (
    "/version",
    "/api",
    "/api/v1",
    "/apis",
    "/apis/discovery.k8s.io",
    "/apis/discovery.k8s.io/v1",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/apis/apps/v1?hash=AB",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
)


class IsDocumentTests(SynchronousTestCase):
    """
    Tests of is_document.
    """

    def test_paths(self) -> None:
        """
        Discovery of every kind, OpenAPI, version and keys; no health, metrics, log, or resource.
        """
        for path in (*EVERYONE, "/api/", "/apis/", "/api/v1?timeout=32s"):
            self.assertTrue(is_document(parse_request(b"GET", path.encode())), path)
        for path in (
            "/",
            "/healthz",
            "/readyz",
            "/metrics",
            "/logs/x",
            "/api/v1/pods",
            "/apis/apps/v1/deployments",
            "/openapiv2",
            "/versions",
        ):
            self.assertFalse(is_document(parse_request(b"GET", path.encode())), path)
        for method in (b"POST", b"PUT", b"DELETE"):
            self.assertFalse(is_document(parse_request(method, b"/version")))


class DocumentsTests(SynchronousTestCase):
    """
    Tests of Documents.
    """

    def setUp(self) -> None:
        self.rows = Rows()
        self.documents = Documents(self.rows)  # type: ignore[arg-type]

    def put(self, target: str, accept: str, content_type: str, body: bytes, at: float = 0.0) -> None:
        """
        Keep a document.
        """
        self.documents.put(parse_request(b"GET", target.encode()), accept.encode(), content_type, at, body)

    def find(self, target: str, accept: str) -> bytes | None:
        """
        The document found.
        """
        found = self.documents.find(parse_request(b"GET", target.encode()), accept.encode())
        return None if found is None else found[2]

    def test_variants(self) -> None:
        """
        Each Accept finds its own variant, else one that it takes, and never one that it does not.
        """
        self.put("/apis", KUBECTL, AGGREGATED, b"aggregated")
        self.assertEqual(self.find("/apis", KUBECTL), b"aggregated")
        self.assertEqual(self.find("/apis", AGGREGATED), b"aggregated")
        self.assertIsNone(self.find("/apis", "application/json"))
        self.assertIsNone(self.find("/apis", "application/json, */*;q=0"))
        self.put("/apis", "application/json, */*", "application/json", b"plain")
        for accept in ("application/json", "*/*", "application/*", "text/html, application/json;q=0.8", "application/json;q=0.9"):
            self.assertEqual(self.find("/apis", accept), b"plain", accept)
        self.assertEqual(self.find("/apis", KUBECTL), b"aggregated")
        self.assertIsNone(self.find("/apis", "text/html"))

    def test_wildcard(self) -> None:
        """
        Who takes anything expects plain JSON, and cannot read another form.
        """
        self.put("/openapi/v2", OPENAPI_PROTOBUF, OPENAPI_PROTOBUF, b"protobuf")
        self.put("/openapi/v2", AGGREGATED, AGGREGATED, b"aggregated")
        self.assertIsNone(self.find("/openapi/v2", "application/json, */*"))
        self.put("/openapi/v2", "application/json", "application/json; charset=utf-8", b"plain")
        self.assertEqual(self.find("/openapi/v2", "*/*"), b"plain")

    def test_new_kubectl_of_old_documents(self) -> None:
        """
        A client that prefers a variant which was never seen gets the plain one that it takes too.
        """
        self.put("/apis", "application/json, */*", "application/json", b"plain")
        self.assertEqual(self.find("/apis", KUBECTL), b"plain")

    def test_query(self) -> None:
        """
        No parameter makes another document: neither those that mean nothing, nor the hash of the state that a client knows of.
        """
        self.put("/apis?timeout=32s", "application/json", "application/json", b"groups")
        for target in ("/apis", "/apis?timeout=5s", "/apis/", "/apis/?timeout=1"):
            self.assertEqual(self.find(target, "application/json"), b"groups", target)
        for state in ("A", "B"):
            self.put(f"/openapi/v3/api/v1?hash={state}&x=1", "*/*", "application/json", state.encode())
        self.assertEqual(self.find("/openapi/v3/api/v1?x=2&hash=A&timeout=9s", "*/*"), b"B")
        self.assertEqual(len(self.rows), 2)

    def test_unchanged(self) -> None:
        """
        The same document again writes nothing; a new one takes the place of the old.
        """
        self.put("/api", "*/*", "application/json", b"one")
        before = dict(self.rows)
        self.put("/api", "*/*", "application/json", b"one")
        self.assertEqual(self.rows, before)
        self.put("/api", "*/*", "application/json", b"two")
        self.assertEqual((len(self.rows), self.find("/api", "*/*")), (1, b"two"))

    def test_bounded(self) -> None:
        """
        No more documents are kept than the bound says: what the cloud gave longest ago goes, before and after a restart.
        """
        self.patch(documents_module, "MAX_DOCUMENTS", 5)
        for number in range(20):
            self.put("/version", "*/*", "application/json", b"v")
            self.put(f"/apis/g{number}", "*/*", "application/json", b"x", number)
        self.assertEqual((len(self.rows), self.find("/apis/g19", "*/*"), self.find("/version", "*/*")), (5, b"x", b"v"))
        self.documents = Documents(self.rows)  # type: ignore[arg-type]
        self.put("/version", "*/*", "application/json", b"v", 30)
        for number in (20, 21):
            self.put(f"/apis/g{number}", "*/*", "application/json", b"x", number)
        self.assertEqual((len(self.rows), self.find("/apis/g17", "*/*"), self.find("/version", "*/*")), (5, None, b"v"))

    def test_bytes_bounded(self) -> None:
        """
        All documents together stay within a number of bytes.
        """
        self.patch(documents_module, "MAX_DOCUMENT_BYTES", 1000)
        for number in range(10):
            self.put(f"/apis/g{number}", "*/*", "application/json", b"x" * 300)
        self.assertEqual(len(self.rows), 3)

    def test_invented_variants(self) -> None:
        """
        Whoever asks for the same path in ever new ways pushes out no other path.
        """
        self.put("/version", "*/*", "application/json", b"v")
        for number in range(100):
            self.put(f"/api?x={number}", f"application/json;v={number}", "application/json", b"x")
        self.assertEqual((len(self.rows), self.find("/version", "*/*")), (documents_module.MAX_VARIANTS + 1, b"v"))

    def test_keys(self) -> None:
        """
        The issuer's keys are found whatever Accept brought them, and none without.
        """
        self.assertIsNone(self.documents.jwks())
        self.put("/openid/v1/jwks", "application/jwk-set+json", "application/jwk-set+json", b"keys")
        self.assertEqual(self.documents.jwks(), b"keys")

    def test_newest_keys(self) -> None:
        """
        Of the keys that came for several Accepts the newest count, also where the cloud went back to older ones.
        """
        for at, accept, keys in ((0, "*/*", b"old"), (1, "application/json", b"new")):
            self.put("/openid/v1/jwks", accept, "application/jwk-set+json", keys, at)
        self.assertEqual(self.documents.jwks(), b"new")
        self.put("/openid/v1/jwks", "*/*", "application/jwk-set+json", b"old", documents_module.REDATED_AFTER)
        self.assertEqual(self.documents.jwks(), b"old")


class OfflineDocumentTests(HubCase):
    """
    The documents through a whole hub.
    """

    async def test_for_everyone(self) -> None:
        """
        What any client read, any client reads without the cloud: other components, and identities that count.
        """
        site = await self.site_with()
        for path in EVERYONE:
            if path.startswith("/openapi/v3"):
                site.api.scripted[path.partition("?")[0]] = (200, "application/json", b'{"paths":{}}')
        for path in EVERYONE:
            self.assert_from(await site.get(path, agent="kubectl"), "cloud")
        token = site.api.token("a")
        await site.get("/version", token=token)
        await site.offline()
        for path in EVERYONE:
            for options in ({"agent": "anything"}, {"agent": ""}, {"agent": "coredns", "token": token, "address": POD_ADDRESS}):
                reply = await site.get(path, **options)
                self.assert_from(reply, "cache")
                self.assertTrue(header(reply, "age").isdigit())
                self.assertTrue(json.loads(reply.body))

    async def test_openapi_protobuf(self) -> None:
        """
        kubectl's OpenAPI in protobuf comes back with its type, byte for byte.
        """
        site = await self.site_with()
        site.api.scripted["/openapi/v2"] = (200, OPENAPI_PROTOBUF, b"\x00\x01protobuf")
        await site.get("/openapi/v2?timeout=32s", agent="kubectl", accept=OPENAPI_PROTOBUF)
        await site.offline()
        reply = await site.get("/openapi/v2?timeout=10s", agent="kubectl", accept=OPENAPI_PROTOBUF)
        self.assertEqual(
            (reply.body, header(reply, "content-type"), source(reply)), (b"\x00\x01protobuf", OPENAPI_PROTOBUF, "cache")
        )

    async def test_miss(self) -> None:
        """
        A document that was never seen is 503, so that nobody takes the group for gone.
        """
        site = await self.site_with(offline_miss=404)
        await site.offline()
        self.assert_failure(await site.get("/apis/apps/v1"), 503, "ServiceUnavailable")

    async def test_errors_are_not_kept(self) -> None:
        """
        An error of the cloud is passed on and does not take the place of the document.
        """
        site = await self.site_with()
        await site.get("/apis")
        for code in (403, 404, 500):
            site.api.scripted["/apis"] = (code, "application/json", b"{}")
            self.assert_from(await site.get("/apis"), "cloud", code)
        site.api.scripted["/apis"] = (503, "text/html", b"<html>")
        reply = await site.get("/apis")
        self.assert_from(reply, "cache")
        self.assertEqual(reply.json["kind"], "APIGroupList")

    async def test_health_is_not_cached(self) -> None:
        """
        Nobody is told that the API server is healthy when it is not there.
        """
        site = await self.site_with()
        for path in ("/healthz", "/readyz", "/metrics"):
            await site.get(path)
        await site.offline()
        for path in ("/healthz", "/readyz", "/metrics"):
            self.assert_failure(await site.get(path), 503, "ServiceUnavailable")


class ConditionTests(SynchronousTestCase):
    """
    Documents on a clock.
    """

    PATH = "/openapi/v2"

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()

    def exchange(self, headers: Headers, status: int = 200, **options: str) -> HandExchange:
        """
        A read that the cloud answers.
        """
        self.site.ask("GET", self.PATH, agent="curl", **options)
        arrived = self.site.arriving(self.PATH)
        arrived.answer(status, b'{"swagger":"2.0"}', headers)
        return arrived

    def test_plain_text(self) -> None:
        """
        OpenAPI in JSON is text/plain from an old API server, and kept; text of anybody else is not.
        """
        text = (b"Content-Type", b"text/plain; charset=utf-8")
        self.exchange([text])
        self.site.offline()
        self.assertEqual(self.site.fetch("GET", self.PATH, agent="curl").status, 503)
        self.site.online()
        self.exchange([text, (b"Audit-Id", b"1")])
        self.site.offline()
        for accept in ("*/*", "application/json", "application/json, */*"):
            kept = self.site.fetch("GET", self.PATH, agent="curl", accept=accept)
            self.assertEqual((kept.status, kept.data), (200, b'{"swagger":"2.0"}'), accept)
        self.assertEqual(self.site.fetch("GET", self.PATH, agent="curl", accept=OPENAPI_PROTOBUF).status, 503)

    def test_conditional(self) -> None:
        """
        A client that has the document is given it anew while the cache has none; after that its condition counts.
        """
        condition = (b"if-none-match", b'"1"')
        for known in (False, True):
            arrived = self.exchange(JSON, if_none_match='"1"')
            self.assertEqual(condition in [(name.lower(), value) for name, value in arrived.head.headers], known)
        self.site.offline()
        self.assertEqual(self.site.fetch("GET", self.PATH, agent="curl", if_none_match='"1"').status, 200)
