"""
Tests for ``yurt.hub.deafness``: watches whose connection brings nothing any more, on a clock.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MAPS, MemorySite, bookmark, config_map, event, open_watch
from yurt.hub.deafness import LOOK_EVERY, QUIET_LOOKS


class DeafTests(SynchronousTestCase):
    """
    A connection that stands and brings nothing any more, as a load balancer keeps it whose API server has lost its power.
    """

    ENOUGH = LOOK_EVERY * (QUIET_LOOKS + 2)

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()

    def test_goes_on(self) -> None:
        """
        Without the bookmarks that had come the watch goes on by another connection, from where it was; its client sees nothing.
        """
        request, exchange = open_watch(self.site)
        exchange.send(event("MODIFIED", config_map("a", 11)) + bookmark(12))
        self.site.run(self.ENOUGH)
        self.assertTrue(exchange.cancelled)
        again = self.site.arriving(MAPS)
        self.assertEqual(again.query["resourceVersion"], "12")
        again.begin()
        again.send(event("MODIFIED", config_map("a", 13)))
        self.assertEqual(request.told, [("MODIFIED", "11"), ("MODIFIED", "13")])
        self.assertEqual((request.finished, request.aborted, self.site.cloud.reachable), (False, False, True))

    def test_bookmarks(self) -> None:
        """
        With them it stays where it is.
        """
        _, exchange = open_watch(self.site)
        for version in range(12, 20):
            exchange.send(bookmark(version))
            self.site.run(LOOK_EVERY * (QUIET_LOOKS - 1))
        self.assertFalse(exchange.cancelled)

    def test_no_bookmarks(self) -> None:
        """
        Where there are none, as of an API server that sends none, silence tells nothing.
        """
        _, exchange = open_watch(self.site)
        exchange.send(event("MODIFIED", config_map("a", 11)))
        _, streaming = open_watch(self.site, "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")
        streaming.send(bookmark(12, end=True))
        self.site.run(2 * self.ENOUGH)
        self.assertEqual((exchange.cancelled, streaming.cancelled), (False, False))

    def test_looks_end(self) -> None:
        """
        Where nobody watches nobody looks.
        """
        request, exchange = open_watch(self.site)
        exchange.send(bookmark(12))
        request.hang_up()
        self.site.run(2 * LOOK_EVERY)
        looks: list[object] = []
        self.patch(self.site.hub.deafness, "_look", lambda: looks.append(1))
        self.site.run(2 * LOOK_EVERY)
        self.assertEqual(looks, [])
