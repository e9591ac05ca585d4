"""
Reads while the cloud comes and goes in every way: none that the cache can answer may fail.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred

from tests.hub.site import Reply, Site, config_map, names, pause, pod, source, until
from tests.hub.test_reads import MAPS, PODS, HubCase

ROUNDS = 6
READS = 40
SEED = 20261123


class ChaosTests(HubCase):
    """
    Many reads, many outages.
    """

    timeout = 180

    def outages(self, site: Site) -> list[Callable[[], Any]]:
        """
        What may happen to the cloud.
        """

        def answers(code: int) -> None:
            site.api.failure = code

        return [
            site.api.cut,
            site.api.refuse,
            site.api.heal,
            site.api.heal,
            site.api.reset_connections,
            lambda: answers(502),
            lambda: answers(503),
            lambda: answers(504),
        ]

    def read(self, site: Site, dice: random.Random, token: str) -> Deferred[Reply]:
        """
        One read that the cache can answer.
        """
        path = dice.choice([MAPS, f"{MAPS}/a", f"{MAPS}?labelSelector=x%3Dy", PODS, "/version", "/api/v1/nodes", "/apis"])
        options = dice.choice([{}, {}, {"token": token}])
        return ensureDeferred(site.get(path, **options))

    async def warm(self, site: Site, token: str) -> None:
        """
        Let everybody read everything once.
        """
        for path in (MAPS, PODS, "/version", "/api/v1/nodes", "/apis"):
            for options in ({}, {"token": token}):
                self.assert_from(await site.get(path, **options), "cloud")

    async def test_no_read_fails(self) -> None:
        """
        Whatever the cloud does before and during a read, the read is answered with 200, by the cloud or by the cache; nothing is
        left behind: no request in flight, no exception in the log.
        """
        dice = random.Random(SEED)
        site = await self.site_with(config_map("a", labels={"x": "y"}), config_map("b"))
        site.api.put("pods", pod("p"))
        site.api.put("nodes", {"metadata": {"name": "n1"}})
        token = site.api.token("reader")
        await self.warm(site, token)
        sources = set()
        for _ in range(ROUNDS):
            await site.online()
            waiting = [self.read(site, dice, token)]
            for _ in range(READS):
                if dice.random() < 0.15:
                    await maybeDeferred(dice.choice(self.outages(site)))
                waiting.append(self.read(site, dice, token))
                if dice.random() < 0.3:
                    await pause(dice.random() * 0.02)
            for one in waiting:
                reply = await one
                self.assertEqual(reply.status, 200, (source(reply), reply.body))
                sources.add(source(reply))
        self.assertEqual(sources, {"cloud", "cache"})
        self.assertEqual(site.hub.in_flight, 0)
        self.assertEqual(self.flushLoggedErrors(), [])
        await site.online()
        await until(lambda: site.service.cloud.reachable)
        site.api.put("configmaps", config_map("c"))
        self.assertEqual(names(await site.get(MAPS)), ["a", "b", "c"])
