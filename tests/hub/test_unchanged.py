"""
Tests for ``yurt.hub.unchanged``: watches that go on at a server with less history, on a clock.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MAPS, HandExchange, MemoryRequest, MemorySite, config_map, error_event, event, open_watch

METADATA = b"application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
SELECTED = "labelSelector=a%3Db"


def map_list(version: int, *items: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """
    A list of that version.
    """
    meta = {"resourceVersion": str(version), **metadata}
    return {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": list(items)}


class UnchangedTests(SynchronousTestCase):
    """
    A watch from version 10 on, with one object of version 5.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()

    def watch(self, query: str = "", agent: str = "kubelet", *, as_event: bool = True) -> MemoryRequest:
        """
        A watch that breaks off, and is told when it is resumed that its version is too old.
        """
        request, exchange = open_watch(self.site, f"resourceVersion=10{query}", agent=agent)
        exchange.fail()
        again = self.site.arriving(MAPS)
        self.assertEqual(again.query["resourceVersion"], "10")
        if as_event:
            again.begin()
            again.send(error_event(410, "Expired"))
        else:
            again.answer(410, {"kind": "Status", "code": 410})
        return request

    def list_first(self) -> None:
        """
        The client has listed what it watches.
        """
        self.site.ask("GET", MAPS)
        whole = {"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "10"}}
        self.site.arriving(MAPS).answer(200, {**whole, "items": [config_map("a", 5)]})
        self.site.run(0.1)

    def asked(self, **query: str) -> HandExchange:
        """
        The list that the hub asks for, with that query.
        """
        self.site.run(0.001)
        exchange = next(one for one in self.site.at_cloud(MAPS) if "watch" not in one.query)
        self.assertEqual((exchange.query, dict(exchange.head.headers)[b"Accept"]), (query, METADATA))
        return exchange

    def assert_goes_on(self, request: MemoryRequest, told: list[tuple[str, str]]) -> None:
        """
        The watch is resumed at version 20, and its client has been told that much before what comes now.
        """
        again = self.site.arriving(MAPS)
        self.assertEqual((again.query["watch"], again.query["resourceVersion"]), ("true", "20"))
        again.begin()
        again.send(event("MODIFIED", config_map("a", 21)))
        self.assertEqual(request.told, [*told, ("MODIFIED", "21")])

    def assert_expired(self, request: MemoryRequest) -> None:
        """
        The client has to list anew.
        """
        self.site.run(0.1)
        self.assertEqual([one["object"]["code"] for one in request.events], [410])
        self.assertTrue(request.finished)

    def test_view(self) -> None:
        """
        What the cache holds of that version is compared with one list, however the server said that it is too old.
        """
        for as_event in (True, False):
            self.list_first()
            request = self.watch(as_event=as_event)
            self.asked().answer(200, map_list(20, config_map("a", 5)))
            self.assert_goes_on(request, [])
            request.hang_up()
            self.site.reboot()
            self.site.online()

    def test_two(self) -> None:
        """
        Two watches of one view go on both, and the view with them.
        """
        self.list_first()
        requests = [self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10") for _ in range(2)]
        for exchange in self.site.at_cloud(MAPS):
            exchange.begin()
            exchange.fail()
        self.site.run_until(lambda: len(self.site.at_cloud(MAPS)) == 2)
        for exchange in self.site.at_cloud(MAPS):
            exchange.answer(410, {"kind": "Status", "code": 410})
        for version in (20, 22):
            self.asked().answer(200, map_list(version, config_map("a", 5)))
        self.assertEqual([one.query["resourceVersion"] for one in self.site.at_cloud(MAPS)], ["20", "22"])
        self.assertEqual([request.data for request in requests], [b"", b""])
        self.site.run(0.1)
        (key,) = [key for key, _ in self.site.hub.views.views() if key.gvr == "/v1/configmaps"]
        view = self.site.hub.views.view(key)
        assert view is not None
        self.assertEqual((view.complete, view.resource_version), (True, "22"))

    def test_known_otherwise(self) -> None:
        """
        An object of which the cache has heard through another view proves nothing of this one.
        """
        self.list_first()
        request, exchange = open_watch(self.site)
        read = self.site.ask("GET", f"{MAPS}/a", agent="coredns")
        self.site.arriving(f"{MAPS}/a").answer(200, config_map("a", 15))
        self.site.run_until(lambda: read.finished)
        exchange.fail()
        self.site.arriving(MAPS).answer(410, {"kind": "Status", "code": 410})
        self.asked(resourceVersion="10", resourceVersionMatch="Exact").answer(200, map_list(10, config_map("a", 5)))
        self.asked().answer(200, map_list(20, config_map("a", 15)))
        self.assert_expired(request)

    def test_bookmark(self) -> None:
        """
        A client that takes bookmarks gets one, and so goes on from the newer version when it comes back.
        """
        self.list_first()
        request = self.watch("&allowWatchBookmarks=true")
        self.asked().answer(200, map_list(20, config_map("a", 5)))
        self.assert_goes_on(request, [("BOOKMARK", "20")])

    def test_always_too_old(self) -> None:
        """
        A server that finds the newer version too old, too, is not asked again and again.
        """
        self.list_first()
        request = self.watch()
        self.asked().answer(200, map_list(20, config_map("a", 5)))
        self.site.arriving(MAPS).answer(410, {"kind": "Status", "code": 410})
        self.assert_expired(request)
        self.assertEqual(self.site.at_cloud(MAPS), [])

    def test_history(self) -> None:
        """
        Of what is not cached the server is asked for the list of that version, too, with the selectors of the watch.
        """
        request = self.watch(f"&{SELECTED}", "curl")
        exact = {"labelSelector": "a%3Db", "resourceVersion": "10", "resourceVersionMatch": "Exact"}
        self.asked(**exact).answer(200, map_list(10, config_map("a", 5)))
        self.asked(labelSelector="a%3Db").answer(200, map_list(20, config_map("a", 5)))
        self.assert_goes_on(request, [])

    def test_no_history(self) -> None:
        """
        When that is no longer to be had, the client lists anew.
        """
        request = self.watch(agent="curl")
        self.site.arriving(MAPS).answer(410, {"kind": "Status", "code": 410})
        self.assert_expired(request)

    def test_another_history(self) -> None:
        """
        Nor does a list of another version than was asked for tell anything.
        """
        request = self.watch(agent="curl")
        self.site.arriving(MAPS).answer(200, map_list(20, config_map("a", 5)))
        self.assert_expired(request)

    def test_changed(self) -> None:
        """
        When anything came, went or changed, it lists anew.
        """
        for items in ([], [config_map("a", 6)], [config_map("a", 5), config_map("b", 4)]):
            self.list_first()
            request = self.watch()
            self.asked().answer(200, map_list(20, *items))
            self.assert_expired(request)

    def test_refused(self) -> None:
        """
        As well when the list is refused, is no list, or is not whole.
        """
        page = map_list(20, config_map("a", 5), **{"continue": "x"})
        for status, body in ((403, {"kind": "Status"}), (200, b"{"), (200, page)):
            self.list_first()
            request = self.watch()
            self.asked().answer(status, body)
            self.assert_expired(request)

    def test_too_slow(self) -> None:
        """
        Or when it does not come in time.
        """
        self.list_first()
        request = self.watch()
        self.asked()
        self.site.run(20.0)
        self.assert_expired(request)

    def test_broken(self) -> None:
        """
        When the server goes away meanwhile, the watch is held, and resumed when there is one.
        """
        self.list_first()
        request = self.watch()
        self.asked().fail()
        self.site.run(2.0)
        self.assertEqual((request.events, request.finished), ([], False))
        again = self.site.arriving(MAPS)
        self.assertEqual(again.query["resourceVersion"], "10")

    def test_hung_up(self) -> None:
        """
        A client that hangs up meanwhile leaves nothing.
        """
        self.list_first()
        request = self.watch()
        exchange = self.asked()
        request.hang_up()
        self.assertTrue(exchange.cancelled)
        self.assertEqual(self.site.hub.watches, set())
