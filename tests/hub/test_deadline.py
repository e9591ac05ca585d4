"""
Tests for ``yurt.hub.deadline``: the timeoutSeconds of watches, on a clock.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MAPS, MemorySite, config_map, event, open_watch
from yurt.hub.deadline import TIMEOUT_SLACK


class DeadlineTests(SynchronousTestCase):
    """
    Tests of when a watch's time is over.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()

    def test_timeout_while_the_state_is_told(self) -> None:
        """
        The cloud ends a watch at its timeoutSeconds in good order, and so does the hub, however short the state was told before.
        """
        request, exchange = open_watch(self.site, "resourceVersion=0&timeoutSeconds=1")
        self.site.run(0.5)
        exchange.send(event("ADDED", config_map("a", 5)))
        self.site.run(0.5)
        exchange.end()
        self.assertEqual((request.finished, request.aborted), (True, False))

    def test_timeout_while_held(self) -> None:
        """
        timeoutSeconds ends a held watch in good order, to the second.
        """
        request, _ = open_watch(self.site, "resourceVersion=10&timeoutSeconds=100")
        self.site.run(20)
        self.site.offline()
        self.site.run(75)
        self.assertFalse(request.finished)
        self.site.run(6)
        self.assertTrue(request.finished)

    def test_timeout_while_attached(self) -> None:
        """
        The cloud gets the time that is left, and its end is the client's; if it does not come the hub ends the watch.
        """
        request, exchange = open_watch(self.site, "resourceVersion=10&timeoutSeconds=100")
        self.assertEqual(exchange.query["timeoutSeconds"], "100")
        self.site.run(40)
        exchange.fail()
        again = self.site.arriving(MAPS)
        again.begin()
        self.assertIn(again.query["timeoutSeconds"], ("58", "59", "60"))
        self.site.run(58)
        self.assertFalse(request.finished)
        again.end()
        self.assertTrue(request.finished)
        late, _ = open_watch(self.site, "resourceVersion=10&timeoutSeconds=10")
        self.site.run(10 + TIMEOUT_SLACK + 1)
        self.assertTrue(late.finished)

    def test_timeout_before_any_answer(self) -> None:
        """
        A cloud that lives, but does not answer before the client's time is over: 504.
        """
        request = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10&timeoutSeconds=2")
        self.site.run(2 + TIMEOUT_SLACK + 1)
        self.assertEqual((request.status, request.finished, request.json["reason"]), (504, True, "Timeout"))
        self.assertEqual(self.site.at_cloud(MAPS), [])
