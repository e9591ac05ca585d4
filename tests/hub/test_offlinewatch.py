"""
Tests for ``yurt.hub.offlinewatch``: watches that begin without the cloud, on a clock.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MAPS, HandExchange, MemorySite, config_map, event


class StartTests(SynchronousTestCase):
    """
    Tests of watches that begin without the cloud.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()
        self.site.store_list(MAPS, [config_map("a", 3), config_map("b", 7, labels={"app": "x"})], "10")
        self.site.offline()

    def resumed(self, version: str) -> HandExchange:
        """
        The watch goes on with the cloud, from that version.
        """
        self.site.online()
        exchange = self.site.arriving(MAPS)
        self.assertEqual(exchange.query.get("resourceVersion"), version)
        self.assertNotIn("sendInitialEvents", exchange.query)
        exchange.begin()
        return exchange

    def test_from_a_version(self) -> None:
        """
        A watch from a version on gets nothing until the cloud is back, and then all after that version.
        """
        request = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=8")
        self.assertEqual((request.status, request.header("x-yurt-source"), request.data), (200, "cache", b""))
        self.assertTrue(request.header("age").isdigit())
        self.assertTrue(request.header("warning").startswith("110 "))
        self.resumed("8").send(event("ADDED", config_map("c", 9)))
        self.assertEqual(request.told, [("ADDED", "9")])

    def test_from_the_present_state(self) -> None:
        """
        Without a version, or from 0, the state of the cache comes first; then what changed after it.
        """
        for version in ("", "&resourceVersion=", "&resourceVersion=0"):
            request = self.site.ask("GET", f"{MAPS}?watch=true{version}")
            self.assertEqual(request.told, [("ADDED", "3"), ("ADDED", "7")])
            self.assertEqual(request.events[0]["object"]["kind"], "ConfigMap")
            request.hang_up()
        request = self.site.ask("GET", f"{MAPS}?watch=true&labelSelector=app%3Dx")
        self.assertEqual(request.told, [("ADDED", "7")])
        self.resumed("10").send(event("DELETED", config_map("b", 12)))
        self.assertEqual(request.told, [("ADDED", "7"), ("DELETED", "12")])

    def test_initial_events(self) -> None:
        """
        sendInitialEvents brings the state and the bookmark that ends it, but for a client that wants no bookmarks.
        """
        query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        request = self.site.ask("GET", f"{MAPS}?{query}&allowWatchBookmarks=true")
        self.assertEqual(request.told, [("ADDED", "3"), ("ADDED", "7"), ("BOOKMARK", "10")])
        self.assertEqual(request.events[2]["object"]["metadata"]["annotations"], {"k8s.io/initial-events-end": "true"})
        self.resumed("10")
        self.site.offline()
        other = self.site.ask("GET", f"{MAPS}?{query}")
        self.assertEqual(other.told, [("ADDED", "3"), ("ADDED", "7")])

    def test_malformed(self) -> None:
        """
        What every API server refuses is refused without the cloud, too, by lists and watches; with it, the cloud says so.
        """
        self.site.online()
        self.site.store_list(MAPS, [config_map("a", 7)], "10")
        request = self.site.ask("GET", f"{MAPS}?watch=true&timeoutSeconds=abc&resourceVersion=10")
        exchange = self.site.arriving(MAPS)
        self.assertEqual(exchange.query["timeoutSeconds"], "abc")
        exchange.answer(400, b'{"kind":"Status","code":400}')
        self.assertEqual(request.status, 400)
        self.site.offline()
        for query, code in (
            ("timeoutSeconds=abc", 400),
            (f"timeoutSeconds={'9' * 5000}", 400),
            ("resourceVersion=abc", 400),
            ("resourceVersionMatch=Exact", 422),
            ("resourceVersionMatch=Exact&resourceVersion=0", 422),
        ):
            for verb in ("", "&watch=true"):
                reply = self.site.fetch("GET", f"{MAPS}?{query}{verb}")
                self.assertEqual((reply.status, reply.json["code"]), (code, code), query + verb)
        self.assertEqual(self.site.fetch("GET", f"{MAPS}?sendInitialEvents=true").status, 422)

    def test_from_now(self) -> None:
        """
        sendInitialEvents=false means no state, only what changes after the cache's.
        """
        request = self.site.ask("GET", f"{MAPS}?watch=true&sendInitialEvents=false&resourceVersionMatch=NotOlderThan")
        self.assertEqual((request.status, request.data), (200, b""))
        self.resumed("10")

    def test_never_seen(self) -> None:
        """
        What the cache never saw has no state to begin with: 503, with a reason; from a version on the watch waits.
        """
        request = self.site.ask("GET", "/api/v1/services?watch=true")
        self.assertEqual((request.status, request.json["reason"], request.finished), (503, "ServiceUnavailable", True))
        self.assertEqual((request.header("x-yurt-source"), request.header("retry-after")), ("hub", "1"))
        waiting = self.site.ask("GET", "/api/v1/services?watch=true&resourceVersion=4")
        self.assertEqual(waiting.status, 200)

    def test_bad_selector(self) -> None:
        """
        A selector that Kubernetes would refuse is refused, from whatever version on.
        """
        for query in ("labelSelector=a%3D%3D%3Db", "fieldSelector=bad", "labelSelector=a%3D%3D%3Db&resourceVersion=8"):
            request = self.site.ask("GET", f"{MAPS}?watch=true&{query}")
            self.assertEqual((request.status, request.finished), (400, True), query)
            self.assertEqual((request.json["reason"], request.header("x-yurt-source")), ("BadRequest", "hub"))
        self.assertEqual(len(self.site.hub.watches), 0)

    def test_by_path(self) -> None:
        """
        The old way to watch one object, by its name in the path, tells of that object only.
        """
        request = self.site.ask("GET", "/api/v1/watch/namespaces/default/configmaps/b")
        self.assertEqual([one["object"]["metadata"]["name"] for one in request.events], ["b"])
        every = self.site.ask("GET", "/api/v1/watch/namespaces/default/configmaps")
        self.assertEqual(len(every.events), 2)

    def test_another_form(self) -> None:
        """
        A client that likes Tables better, but takes objects, gets the objects that the cache has.
        """
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        request = self.site.ask("GET", f"{MAPS}?watch=true", accept=accept)
        self.assertEqual(request.told, [("ADDED", "3"), ("ADDED", "7")])

    def test_protobuf_only(self) -> None:
        """
        The cache has JSON only, and says so.
        """
        request = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10", accept="application/vnd.kubernetes.protobuf")
        self.assertEqual(request.status, 503)

    def test_begun_in_json_goes_on_in_json(self) -> None:
        """
        A watch of an uncached client that was begun in JSON asks the cloud for JSON when it is back.
        """
        accept = "application/vnd.kubernetes.protobuf,application/json"
        request = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10", agent="stranger", accept=accept)
        self.assertEqual(request.status, 200)
        exchange = self.resumed("10")
        self.assertEqual([value for name, value in exchange.head.headers if name.lower() == b"accept"], [b"application/json"])
