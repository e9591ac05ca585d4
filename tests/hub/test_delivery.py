"""
Tests of :mod:`yurt.hub.delivery`: what is held of an answer, and how it goes out.
"""

from __future__ import annotations

import json
from typing import Any

from tests.hub.memory_site import MAPS, HandExchange, HandUpstream, MemoryRequest, MemorySite, config_map
from tests.hub.test_failover import POD_LOG, FailoverCase
from yurt.hub.delivery import MAX_KEPT_TOTAL, STALLED_FOR

WHOLE = json.dumps(
    {"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "10"}, "items": [config_map("a", 7)]}
).encode()


class HalfAnswerTests(FailoverCase):
    """
    A server that dies in the middle of an answer.
    """

    def half(self, target: str, agent: str) -> tuple[MemoryRequest, HandUpstream]:
        """
        A read of which half an answer has come, and from where.
        """
        request = self.site.ask("GET", target, agent=agent)
        exchange = self.site.arriving(target.partition("?")[0])
        exchange.begin()
        exchange.send(WHOLE[:20])
        self.site.run(0.1)
        return request, exchange.upstream

    def assert_whole(self, request: MemoryRequest, target: str, upstream: HandUpstream) -> None:
        """
        The other server gives the whole answer, and the client hears of nothing else.
        """
        self.site.run_until(lambda: self.at(self.other(upstream), target), 2.0)
        (exchange,) = self.at(self.other(upstream), target)
        exchange.answer(200, WHOLE)
        self.assertEqual((request.status, request.data, request.finished, request.aborted), (200, WHOLE, True, False))
        self.assert_lets_go(exchange)
        self.assertEqual((self.site.hub.kept_bytes, self.site.hub.in_flight), (0, 0))

    def assert_lets_go(self, exchange: HandExchange) -> None:
        """
        A request that is over holds nothing of its answer, although it may be remembered until garbage is collected.
        """
        forward: Any = exchange.receiver
        self.assertEqual((forward.delivery.kept, forward.delivery.outflow), (None, None))

    def other(self, upstream: HandUpstream) -> HandUpstream:
        return self.second if upstream is self.first else self.first

    def test_killed(self) -> None:
        """
        Lists and objects, cached or not, come whole from the other server.
        """
        for agent in ("kubelet", "curl"):
            for target in (MAPS, f"{MAPS}/a"):
                request, upstream = self.half(target, agent)
                self.kill(upstream)
                self.assert_whole(request, target, upstream)
                upstream.alive = True
                self.site.run(30.0)

    def test_frozen(self) -> None:
        """
        As well when nothing more comes.
        """
        for agent in ("kubelet", "curl"):
            request, upstream = self.half(MAPS, agent)
            upstream.frozen = True
            self.assert_whole(request, MAPS, upstream)
            upstream.frozen = False
            self.site.run(30.0)

    def test_too_large(self) -> None:
        """
        What is too large to be held is passed on as it comes, and breaks off if its server does.
        """
        for agent in ("kubelet", "curl"):
            request, upstream = self.half(MAPS, agent)
            self.site.hub.kept_bytes += MAX_KEPT_TOTAL
            self.at(upstream)[0].send(WHOLE[20:30])
            self.site.hub.kept_bytes -= MAX_KEPT_TOTAL
            self.assertEqual((request.status, request.data), (200, WHOLE[:30]))
            self.at(upstream)[0].send(WHOLE[30:35])
            self.at(upstream)[0].fail()
            self.assertEqual((request.data, request.aborted), (WHOLE[:35], True))
            self.assertEqual((self.site.hub.kept_bytes, self.site.hub.in_flight), (0, 0))
            self.site.run(30.0)

    def test_slow_client(self) -> None:
        """
        What was held goes out at the pace of the client, whether all has come or it was too large; one that reads nothing is cut.
        """
        for is_whole, reads_on in ((True, True), (True, False), (False, True), (False, False)):
            request, upstream = self.half(MAPS, "curl")
            (exchange,) = self.at(upstream)
            request.full = True
            if is_whole:
                exchange.send(WHOLE[20:])
                exchange.end()
            else:
                self.site.hub.kept_bytes += MAX_KEPT_TOTAL
                exchange.send(WHOLE[20:30])
                self.site.hub.kept_bytes -= MAX_KEPT_TOTAL
                exchange.send(WHOLE[30:])
                self.assertTrue(exchange.paused)
            self.assertEqual((request.status, request.data, request.finished), (200, b"", False))
            if reads_on:
                request.read_on()
                if not is_whole:
                    self.assertFalse(exchange.paused)
                    exchange.end()
                self.assertEqual((request.data, request.finished), (WHOLE, True))
            else:
                self.site.run(STALLED_FOR + 1.0)
                self.assertTrue(request.aborted)
            self.assert_lets_go(exchange)
            self.assertEqual((self.site.hub.kept_bytes, self.site.hub.in_flight), (0, 0))

    def test_follows(self) -> None:
        """
        What may last is not held: the client reads a log as it is written.
        """
        request, _ = self.half(f"{POD_LOG}?follow=true", "kubectl")
        self.assertEqual(request.data, WHOLE[:20])

    def test_cache(self) -> None:
        """
        With one server only, the cache answers in its place.
        """
        site = MemorySite(self)
        site.online()
        request = site.ask("GET", MAPS)
        site.arriving(MAPS).answer(200, WHOLE)
        site.run(0.1)
        request = site.ask("GET", MAPS)
        exchange = site.arriving(MAPS)
        exchange.begin()
        exchange.send(WHOLE[:20])
        exchange.upstream.alive = False
        exchange.fail()
        site.run(1.0)
        self.assertEqual((request.status, request.header("x-yurt-source")), (200, "cache"))
        self.assertEqual([item["metadata"]["name"] for item in request.json["items"]], ["a"])
