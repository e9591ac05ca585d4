"""
Tests of what watches leave in the cache.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import (
    MAPS,
    MemorySite,
    bookmark,
    config_map,
    event,
    open_watch,
)
from yurt.hub.cache.views import Caller, ViewKey
from yurt.hub.holding import BOOKMARK_INTERVAL
from yurt.hub.progress import STATE_SETTLES


class ViewTests(SynchronousTestCase):
    """
    Tests of what watches leave in the cache.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()

    def listed(self, target: str = MAPS, **options: Any) -> tuple[str, dict[str, str]]:
        """
        Version and items (with their versions) of a list without the cloud.
        """
        self.site.offline()
        reply = self.site.fetch("GET", target, **options)
        self.assertEqual((reply.status, reply.header("x-yurt-source")), (200, "cache"), reply.data)
        rows = [item.get("object", item)["metadata"] for item in reply.json.get("items") or reply.json.get("rows") or []]
        return reply.json["metadata"]["resourceVersion"], {row["name"]: row["resourceVersion"] for row in rows}

    def test_events_and_bookmarks(self) -> None:
        """
        ADDED, MODIFIED and DELETED change the list, older versions do not, and a bookmark moves its version.
        """
        self.site.store_list(MAPS, [config_map("a", 3), config_map("b", 4)], "10")
        _, exchange = open_watch(self.site)
        exchange.send(event("MODIFIED", config_map("a", 11)) + event("DELETED", config_map("b", 12)))
        exchange.send(event("ADDED", config_map("c", 13)) + event("MODIFIED", config_map("a", 9)) + bookmark(50))
        self.assertEqual(self.listed(), ("50", {"a": "11", "c": "13"}))

    def test_initial_events(self) -> None:
        """
        A watch with sendInitialEvents fills the view, once all of them are there; what was removed vanishes.
        """
        self.site.store_list(MAPS, [config_map("gone", 3), config_map("b", 4)], "10")
        query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        request, exchange = open_watch(self.site, query)
        exchange.send(event("ADDED", config_map("b", 4)) + event("ADDED", config_map("c", 20)) + bookmark(30, end=True))
        self.assertEqual(request.told, [("ADDED", "4"), ("ADDED", "20"), ("BOOKMARK", "30")])
        self.assertEqual(self.listed(), ("30", {"b": "4", "c": "20"}))

    def test_broken_initial_events(self) -> None:
        """
        Half of the initial state is none: the client must begin anew, and the view stays what it was.
        """
        self.site.store_list(MAPS, [config_map("a", 3), config_map("b", 4)], "10")
        request, exchange = open_watch(
            self.site, "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        )
        exchange.send(event("ADDED", config_map("b", 4)))
        exchange.fail()
        self.assertTrue(request.aborted)
        self.assertEqual(self.listed(), ("10", {"a": "3", "b": "4"}))

    def test_watch_without_a_version(self) -> None:
        """
        The state that begins a watch without a version is a whole one at its first bookmark, as with sendInitialEvents.
        """
        self.site.store_list(MAPS, [config_map("gone", 3), config_map("b", 4)], "10")
        request, exchange = open_watch(self.site, "")
        exchange.send(event("ADDED", config_map("b", 4)) + event("ADDED", config_map("c", 20)))
        self.site.clock.advance(STATE_SETTLES)
        self.assertEqual(self.listed(), ("10", {"gone": "3", "b": "4", "c": "20"}))
        self.site.online()
        again = self.site.arriving(MAPS)
        self.assertEqual(again.query["resourceVersion"], "10", "the view misses what happened since then")
        again.begin()
        again.send(event("DELETED", config_map("gone", 15)) + event("ADDED", config_map("c", 20)) + bookmark(30))
        self.assertEqual(request.told, [("ADDED", "4"), ("ADDED", "20")])
        self.assertEqual(self.listed(), ("30", {"b": "4", "c": "20"}))

    def test_first_bookmark_ends_the_state(self) -> None:
        """
        As above, with nothing in between: what was not told by the first bookmark is gone.
        """
        self.site.store_list(MAPS, [config_map("gone", 3), config_map("b", 4)], "10")
        _, exchange = open_watch(self.site, "resourceVersion=0")
        exchange.send(event("ADDED", config_map("b", 4)) + bookmark(30))
        self.assertEqual(self.listed(), ("30", {"b": "4"}))

    def test_break_in_the_state_of_a_watch_without_a_version(self) -> None:
        """
        A break in the first state, within an event or right after one, leaves a hole that no version tells: the client begins
        anew.
        """
        for rest in (event("ADDED", config_map("b", 20))[:20], b""):
            with self.subTest(rest=rest):
                request, exchange = open_watch(self.site, "")
                exchange.send(event("ADDED", config_map("a", 40)) + rest)
                exchange.fail()
                self.assertTrue(request.aborted)

    def test_client_ahead_of_the_disk(self) -> None:
        """
        After a restart the client may know more than the disk: the cloud repeats the difference for the view, and the client
        hears nothing of it twice.
        """
        self.site.store_list(MAPS, [config_map("a", 3), config_map("b", 4)], "10")
        for starts_offline in (False, True):
            with self.subTest(starts_offline=starts_offline):
                self.site.reboot()
                if starts_offline:
                    self.site.offline()
                    request = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=15&allowWatchBookmarks=true")
                    self.site.online()
                    exchange = self.site.arriving(MAPS)
                    exchange.begin()
                else:
                    self.site.online()
                    request, exchange = open_watch(self.site, "resourceVersion=15&allowWatchBookmarks=true")
                self.assertEqual(exchange.query["resourceVersion"], "10")
                exchange.send(event("DELETED", config_map("b", 12)) + bookmark(13) + event("ADDED", config_map("c", 14)))
                self.assertEqual(request.data, b"")
                exchange.send(event("ADDED", config_map("d", 16)))
                self.assertEqual(request.told, [("ADDED", "16")])
                self.assertEqual(self.listed(), ("16", {"a": "3", "c": "14", "d": "16"}))
                self.site.online()
                request.hang_up()
                self.site.store_list(MAPS, [config_map("a", 3), config_map("b", 4)], "10")

    def test_gap_that_cannot_be_closed(self) -> None:
        """
        When the cloud cannot repeat it any more (410, as a status or an event), the watch goes on where the client is, and
        the view no longer claims to be whole.
        """
        self.site.store_list(MAPS, [config_map("a", 3)], "10")
        request = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=15")
        self.site.arriving(MAPS).answer(410, {"kind": "Status", "code": 410})
        second = self.site.arriving(MAPS)
        self.assertEqual(second.query["resourceVersion"], "15")
        second.begin()
        second.send(event("ADDED", config_map("d", 16)))
        self.assertEqual((request.status, request.told), (200, [("ADDED", "16")]))
        self.site.offline()
        self.assertEqual(self.site.fetch("GET", MAPS).status, 503)

    def test_bookmark_in_a_gap_is_the_clients(self) -> None:
        """
        A bookmark of a held watch is never older than what its client knows.
        """
        self.site.store_list(MAPS, [config_map("a", 3)], "10")
        request, exchange = open_watch(self.site, "resourceVersion=15&allowWatchBookmarks=true")
        exchange.send(event("MODIFIED", config_map("a", 12)))
        self.site.offline()
        self.site.run(BOOKMARK_INTERVAL + 1)
        self.assertEqual(request.told, [("BOOKMARK", "15")])

    def test_table(self) -> None:
        """
        A watch of Tables keeps rows, apart from the objects.
        """
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        columns = [{"name": "Name", "type": "string"}]

        def table(version: int, *names: str) -> dict[str, Any]:
            rows = [{"cells": [name], "object": {"metadata": config_map(name, version)["metadata"]}} for name in names]
            metadata = {"resourceVersion": str(version)}
            return {
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "columnDefinitions": columns,
                "rows": rows,
            }

        self.site.store_list(MAPS, [config_map("object", 3)], "10")
        listing = self.site.ask("GET", MAPS, accept=accept)
        self.site.arriving(MAPS).answer(200, table(10, "a"))
        self.assertEqual(listing.status, 200)
        request, exchange = open_watch(self.site, accept=accept)
        exchange.send(event("ADDED", table(12, "b")))
        exchange.fail()
        self.assertEqual(self.site.arriving(MAPS).query["resourceVersion"], "12")
        self.assertEqual(len(request.events), 1)
        self.assertEqual(self.listed(accept=accept), ("12", {"a": "10", "b": "12"}))
        self.assertEqual(self.listed(), ("10", {"object": "3"}))


class FrozenTests(SynchronousTestCase):
    """
    A view that went back to the disk's state, because the disk took no writes for long.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()
        self.site.store_list(MAPS, [config_map("a", 3), config_map("b", 4)], "10")
        self.site.run(5)
        self.request, self.exchange = open_watch(self.site)
        self.exchange.send(event("DELETED", config_map("a", 11)))
        self.site.store._drop_pending()
        self.exchange.send(event("ADDED", config_map("c", 12)))
        self.assertEqual(self.known(), ("10", 2))

    def known(self) -> tuple[str, int]:
        """
        Version and size of the view.
        """
        info = self.site.hub.views.view(ViewKey(Caller("node", "kubelet"), "/v1/configmaps", "", "default"))
        assert info is not None
        return info.resource_version, info.members

    def test_thaws_with_the_next_watch(self) -> None:
        """
        The next watch is told again what the view missed, and the client only what is new to it.
        """
        self.exchange.end()
        self.request.hang_up()
        request, exchange = open_watch(self.site, "resourceVersion=12")
        self.assertEqual(exchange.query["resourceVersion"], "10")
        repeated = event("DELETED", config_map("a", 11)) + event("ADDED", config_map("c", 12))
        exchange.send(repeated + event("ADDED", config_map("d", 13)))
        self.assertEqual(request.told, [("ADDED", "13")])
        self.assertEqual(self.known(), ("13", 3))

    def test_stays_frozen(self) -> None:
        """
        Not beside another watch of the same, which is further on already, and not while the disk is broken.
        """
        self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=12")
        exchange = self.site.at_cloud(MAPS)[1]
        self.assertEqual(exchange.query["resourceVersion"], "12")
        exchange.begin()
        exchange.send(event("ADDED", config_map("d", 13)))
        self.assertEqual(self.known(), ("10", 2))
        self.exchange.end()
        self.request.hang_up()
        exchange.end()
        self.site.store.problem = "no space left on device"
        again = self.site.arriving(MAPS)
        self.assertEqual(again.query["resourceVersion"], "13")
        again.begin()
        again.send(event("ADDED", config_map("e", 14)))
        self.assertEqual(self.known(), ("10", 2))
