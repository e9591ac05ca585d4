"""
Tests for ``yurt.hub.holding``: watches of which nothing comes from the cloud, on a clock.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MAPS, HandExchange, MemorySite, config_map, event, open_watch
from yurt.hub.holding import BOOKMARK_INTERVAL


class HoldingTests(SynchronousTestCase):
    """
    Tests of what clients see meanwhile, and of the cloud's return.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()

    def test_stays_open_without_the_cloud(self) -> None:
        """
        An hour without the cloud does not end a watch, and its return resumes it.
        """
        request, _ = open_watch(self.site)
        self.site.offline()
        self.site.run(3600)
        self.assertFalse(request.finished or request.aborted)
        self.assertEqual(request.data, b"")
        self.site.online()
        exchange = self.site.arriving(MAPS)
        exchange.begin()
        exchange.send(event("ADDED", config_map("a", 11)))
        self.assertEqual(request.told, [("ADDED", "11")])

    def test_bookmarks_without_the_cloud(self) -> None:
        """
        While a watch is held, a client that asked for bookmarks gets one each minute; no other does.
        """
        request, exchange = open_watch(self.site, "resourceVersion=10&allowWatchBookmarks=true")
        silent, other = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10"), self.site.at_cloud(MAPS)[1]
        other.begin()
        for one in (exchange, other):
            one.send(event("ADDED", config_map("a", 11)))
        self.site.offline()
        self.site.run(2 * BOOKMARK_INTERVAL + 1)
        self.assertEqual(request.told, [("ADDED", "11"), ("BOOKMARK", "11"), ("BOOKMARK", "11")])
        self.assertEqual(request.events[1]["object"]["kind"], "ConfigMap")
        self.assertEqual(silent.told, [("ADDED", "11")])

    def test_bookmarks_of_a_quiet_watch(self) -> None:
        """
        A watch without any event before the cut knows from the list before it what it is about.
        """
        self.site.store_list(MAPS, [config_map("a", 3)], "10")
        request, _ = open_watch(self.site, "resourceVersion=10&allowWatchBookmarks=true")
        self.site.offline()
        self.site.run(BOOKMARK_INTERVAL + 1)
        self.assertEqual(request.told, [("BOOKMARK", "10")])
        self.assertEqual(request.events[0]["object"]["kind"], "ConfigMap")

    def test_no_bookmark_to_who_does_not_read(self) -> None:
        """
        Bookmarks do not pile up for a client that stopped reading.
        """
        request, exchange = open_watch(self.site, "resourceVersion=10&allowWatchBookmarks=true")
        exchange.send(event("ADDED", config_map("a", 11)))
        before = request.data
        request.stop_reading()
        self.assertTrue(exchange.paused)
        self.site.offline()
        self.site.run(5 * BOOKMARK_INTERVAL)
        self.assertEqual(request.data, before)

    def test_no_storm(self) -> None:
        """
        A hundred watches resume within seconds of the cloud's return, each at a moment of its own, each once, and none lists.
        """
        site = MemorySite(self)
        site.online()
        requests = [site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10", agent=f"agent-{index}") for index in range(100)]
        site.run(0.05)
        for exchange in site.at_cloud(MAPS):
            exchange.begin()
        site.offline()
        site.run(10)
        site.upstream.seen.clear()
        moments: list[float] = []

        def arrived(exchange: HandExchange) -> None:
            moments.append(site.clock.seconds())
            exchange.begin()

        site.upstream.on_request = arrived
        site.online()
        site.run(5)
        self.assertEqual(len(moments), 100)
        self.assertTrue(all("watch" in exchange.query for exchange in site.upstream.seen))
        self.assertLess(max(moments.count(moment) for moment in moments), 15)
        self.assertGreater(max(moments) - min(moments), 0.5)
        self.assertFalse(any(request.finished or request.aborted for request in requests))
