"""
Tests of :mod:`yurt.hub.wait`: how long requests wait for a cloud that shows life and does not answer.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MAPS, PODS, HandExchange, MemoryRequest, MemorySite, config_map
from yurt.http.interfaces import RequestHead
from yurt.hub.patience import ANSWER_WITHIN, DOUBT_EVERY, PATIENCE
from yurt.hub.wait import ANEW_AFTER, SILENT_FOR


class LostAnswerTests(SynchronousTestCase):
    """
    A cloud that shows life, but whose answer never comes: large packets vanish where a link has become narrower.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()
        self.site.store_list(MAPS, [config_map("a", 5)], "10")

    def test_bounded(self) -> None:
        """
        It is not waited for longer than an API server takes: the cache answers, and what only the cloud can do is 503 or 504.
        """
        read = self.site.ask("GET", MAPS)
        unseen = self.site.ask("GET", PODS)
        write = self.site.ask("POST", MAPS, config_map("b", 0), agent="kubectl")
        self.site.run(ANSWER_WITHIN - 2)
        self.assertEqual((read.status, unseen.status, write.status), (0, 0, 0))
        self.site.run(12)
        self.assertEqual((read.status, unseen.status, write.status), (200, 503, 504))
        self.assertEqual(read.header("x-yurt-source"), "cache")
        self.assertIn("no answer within", unseen.json["message"])
        self.assertTrue(self.site.cloud.reachable)

    def test_few_probes(self) -> None:
        """
        The wait costs a handful of connections: links are metered.
        """
        sent = []
        upstream = self.site.upstreams[0]
        send = upstream.send

        def noted(head: RequestHead, *arguments: Any, **options: Any) -> Any:
            sent.append(head.target)
            return send(head, *arguments, **options)

        self.patch(upstream, "send", noted)
        read = self.site.ask("GET", MAPS)
        self.site.run(ANSWER_WITHIN + 10)
        self.assertEqual(read.status, 200)
        self.assertLess(sent.count(b"/readyz"), 20)

    def test_what_may_take_longer(self) -> None:
        """
        What API servers do not bound is waited for.
        """
        request = self.site.ask("GET", "/debug/pprof/profile?seconds=120")
        self.site.run(ANSWER_WITHIN + 5)
        self.site.arriving("/debug/pprof/profile").answer(200, {})
        self.assertEqual(request.status, 200)

    def test_connection(self) -> None:
        """
        It may be the connection that is dead, and not the server: a read is asked for once more over a new one, a write is not.
        What the new one brings speaks against all others of the time before.
        """
        reads = [self.site.ask("GET", path, agent="kubectl") for path in (MAPS, PODS, "/apis")]
        write = self.site.ask("POST", "/api/v1/namespaces/default/secrets", {}, agent="kubectl")
        self.site.run(ANEW_AFTER + 2)
        for path in (MAPS, PODS, "/apis"):
            (again,) = self.site.at_cloud(path)
            self.assertTrue(again.fresh)
            again.answer(200, {"kind": "List", "items": []})
        (posted,) = self.site.at_cloud("/api/v1/namespaces/default/secrets")
        self.assertFalse(posted.fresh)
        posted.answer(201, {})
        self.assertEqual([one.status for one in (*reads, write)], [200, 200, 200, 201])
        self.assertTrue(self.site.upstream.retired)

    def half(self, path: str, **options: Any) -> tuple[MemoryRequest, HandExchange]:
        """
        A read of which half an answer has come.
        """
        request = self.site.ask("GET", path, **options)
        exchange = self.site.arriving(path)
        exchange.begin()
        exchange.send(b'{"kind":')
        return request, exchange

    def test_rest(self) -> None:
        """
        Neither is the rest of an answer that has begun: the cache gives the whole one, and who has seen the first half is cut.
        """
        read, passed = self.half(MAPS)[0], self.half(PODS, agent="kubectl")[0]
        self.site.run(SILENT_FOR - 2)
        self.assertEqual((read.status, passed.data, passed.aborted), (0, b'{"kind":', False))
        self.site.run(4)
        self.assertEqual((read.status, read.header("x-yurt-source"), passed.aborted), (200, "cache", True))
        self.assertTrue(self.site.cloud.reachable)
        self.assertEqual((self.site.at_cloud(MAPS), self.site.at_cloud(PODS), self.site.hub.in_flight), ([], [], 0))

    def test_rest_comes_slowly(self) -> None:
        """
        What comes on, however slowly, is not lost, nor is what the client itself does not read yet.
        """
        request, exchange = self.half(PODS, agent="kubectl")
        for _ in range(5):
            self.site.run(SILENT_FOR - 5)
            exchange.send(b" ")
        request.stop_reading()
        self.site.run(SILENT_FOR + 10)
        request.read_on()
        self.site.run(SILENT_FOR - 5)
        exchange.send(b"}")
        exchange.end()
        self.assertEqual((request.finished, request.aborted), (True, False))

    def test_silence_in_the_middle(self) -> None:
        """
        A cloud that is lost while an answer pauses is found out about as soon as ever.
        """
        read, passed = self.half(MAPS)[0], self.half(PODS, agent="kubectl")[0]
        self.site.run(4)
        self.site.upstream.alive, self.site.upstream.frozen = False, True
        self.site.run(DOUBT_EVERY * PATIENCE + 2)
        self.assertEqual((read.status, read.header("x-yurt-source"), passed.aborted), (200, "cache", True))

    def test_rest_that_may_take_longer(self) -> None:
        """
        Logs, and what is no resource, come when they come.
        """
        for path in ("/api/v1/namespaces/default/pods/a/log", "/debug/pprof/trace"):
            request, exchange = self.half(path, agent="kubectl")
            self.site.run(ANSWER_WITHIN + SILENT_FOR)
            exchange.send(b"...")
            self.assertEqual((request.data, request.aborted), (b'{"kind":...', False))
