"""
Tests for ``yurt.hub.attachment``: attempts of a watch that have no luck, on a clock.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MAPS, MemorySite, config_map, event, open_watch
from yurt.hub.attachment import REFUSAL_TIMEOUT
from yurt.hub.attempt import ANEW_AFTER
from yurt.hub.resumption import REFUSED_FOR


class FailoverTests(SynchronousTestCase):
    """
    Tests of the first attempt, when it has no luck.
    """

    def test_load_balancer(self) -> None:
        """
        502, 503 and 504 in answer to a new watch are no answer: it is held, and tried again.
        """
        site = MemorySite(self)
        site.online()
        for status in (502, 503, 504):
            request = site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10")
            site.arriving(MAPS).answer(status, b"<html>")
            self.assertEqual((request.status, request.header("x-yurt-source")), (200, "cache"))
            again = site.arriving(MAPS)
            again.begin()
            again.send(event("ADDED", config_map("a", 11)))
            self.assertEqual(request.told, [("ADDED", "11")])
            request.hang_up()

    def test_refusal_without_end(self) -> None:
        """
        The body of a refusal that the client need not see does not hold it up, neither at the beginning nor later.
        """
        site = MemorySite(self)
        site.online()
        request = site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10")
        for _ in range(2):
            refusal = site.arriving(MAPS)
            refusal.begin(503)
            refusal.send(b"<html>")
            site.run(REFUSAL_TIMEOUT + 0.1)
            self.assertEqual((request.status, refusal.cancelled), (200, True))
        again = site.arriving(MAPS)
        again.begin()
        site.run(REFUSAL_TIMEOUT + 0.1)
        self.assertTrue(again.is_open)
        request.hang_up()

    def test_other_server(self) -> None:
        """
        A server that fails is not the end: the other one is asked, each once, then the watch is held.
        """
        site = MemorySite(self, servers=2)
        site.run(1)
        request = site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10")
        first = site.arriving(MAPS)
        first.fail("refused", sent=False)
        second = site.arriving(MAPS)
        self.assertIsNot(first.upstream, second.upstream)
        second.fail("refused", sent=False)
        self.assertEqual((request.status, request.header("x-yurt-source")), (200, "cache"))
        site.arriving(MAPS).begin()

    def test_silence(self) -> None:
        """
        A cloud that swallows the request is found out, and the watch begins without it, within 2 s.
        """
        site = MemorySite(self)
        site.online()
        request = site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10")
        site.arriving(MAPS)
        site.upstream.alive = False
        site.run(2)
        self.assertEqual((request.status, request.header("x-yurt-source")), (200, "cache"))


class RefusalTests(SynchronousTestCase):
    """
    Tests of what the cloud answers instead of events, or does not answer.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()

    def test_first_answer_is_passed_on(self) -> None:
        """
        An error that answers the first attempt is the client's, as it came.
        """
        request = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10")
        self.site.arriving(MAPS).answer(403, b'{"kind":"Status","code":403}')
        self.assertEqual((request.status, request.data, request.finished), (403, b'{"kind":"Status","code":403}', True))
        self.assertEqual(len(self.site.hub.watches), 0)

    def test_other_errors_are_tried_again(self) -> None:
        """
        Other errors in answer to resuming are not the end, however long they last, but for refusals.
        """
        request, exchange = open_watch(self.site)
        exchange.fail()
        for status in (500, 503, 429, 504, 403, 500, 401) * 2:
            self.site.arriving(MAPS).answer(status, {"kind": "Status", "code": status})
        again = self.site.arriving(MAPS)
        again.begin()
        again.send(event("ADDED", config_map("a", 11)))
        self.assertEqual(request.told, [("ADDED", "11")])

    def test_lasting_refusal(self) -> None:
        """
        A refusal that lasts ends the watch.
        """
        for status in (403, 400):
            request, exchange = open_watch(self.site)
            exchange.fail()
            self.site.upstream.on_request = lambda one, status=status: one.answer(status, {"kind": "Status", "code": status})
            self.site.run(REFUSED_FOR - 1)
            self.assertFalse(request.finished)
            self.site.run(30)
            self.assertTrue(request.finished)
            self.site.upstream.on_request = None

    def test_no_answer(self) -> None:
        """
        A watch that is not even begun is asked for over a new connection, once; then it waits, as it would without the hub, and
        few probes are made meanwhile.
        """
        request = self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10")
        deaf = self.site.arriving(MAPS)
        probes: list[object] = []
        self.patch(self.site.hub, "suspect", lambda server, reason: probes.append(reason))
        self.site.run(ANEW_AFTER + 1)
        self.assertTrue(deaf.cancelled)
        again = self.site.arriving(MAPS)
        self.assertEqual((deaf.fresh, again.fresh, again.query["resourceVersion"]), (False, True, "10"))
        self.site.run(100)
        self.assertLess(len(probes), 25)
        self.assertFalse(self.site.upstream.retired)
        again.begin()
        self.assertTrue(self.site.upstream.retired)
        again.send(event("MODIFIED", config_map("a", 11)))
        self.assertEqual(request.told, [("MODIFIED", "11")])
