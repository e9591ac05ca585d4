"""
Tests of a watch's promise against a cloud whose connections break anywhere.
"""

from __future__ import annotations

import json
import random

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import (
    MAPS,
    HandExchange,
    MemorySite,
    bookmark,
    config_map,
    event,
)

SEEDS, ROUNDS = 10, 20
"""Random clouds, and rounds of trouble with each."""


class HistoryCloud:
    """
    A cloud with a history of numbered changes, whose connections break at random bytes.
    """

    def __init__(self, site: MemorySite, draw: random.Random) -> None:
        self.site = site
        self.draw = draw
        self.version = 10
        self.history: list[tuple[int, bytes]] = []
        self.streams: dict[HandExchange, int] = {}
        """The open watches, and the version up to which each was sent."""
        site.upstream.on_request = self.take

    def take(self, exchange: HandExchange) -> None:
        """
        A watch begins.
        """
        exchange.begin()
        self.streams[exchange] = int(exchange.query["resourceVersion"])
        self.deliver()

    def change(self) -> None:
        """
        Something happens in the cluster.
        """
        self.version += self.draw.randint(1, 3)
        kind = self.draw.choice(["ADDED", "MODIFIED", "DELETED"])
        name = f"map-{self.draw.randint(0, 5)}"
        filler = "x" * self.draw.choice([0, 10, 500])
        self.history.append((self.version, event(kind, config_map(name, self.version, data={"n": filler}))))

    def deliver(self) -> None:
        """
        Send what each watch lacks, in pieces as they come.
        """
        for exchange in list(self.streams):
            if not exchange.is_open:
                del self.streams[exchange]
                continue
            data = b"".join(line for version, line in self.history if version > self.streams[exchange])
            self.streams[exchange] = self.version
            if self.draw.random() < 0.3:
                data += bookmark(self.version)
            while data:
                size = self.draw.randint(1, len(data))
                exchange.send(data[:size])
                data = data[size:]

    def cut(self) -> None:
        """
        Break every connection somewhere in the middle of what it was about to bring.
        """
        for exchange, reached in list(self.streams.items()):
            data = b"".join(line for version, line in self.history if version > reached)
            if data and exchange.is_open:
                exchange.send(data[: self.draw.randint(0, len(data))])
            if exchange.is_open:
                self.draw.choice([HandExchange.fail, HandExchange.end])(exchange)
        self.streams.clear()


class HistoryTests(SynchronousTestCase):
    """
    Tests of the promise: no event lost, none doubled, all in order.
    """

    def test_random_cuts(self) -> None:
        """
        Whatever breaks where, for however long: each client hears each change exactly once, in order, and the cache ends up
        as the cluster did.
        """
        for seed in range(SEEDS):
            draw = random.Random(seed)
            site = MemorySite(self)
            site.online()
            site.store_list(MAPS, [], "10")
            cloud = HistoryCloud(site, draw)
            clients = [site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10", agent=agent) for agent in ("kubelet", "stranger")]
            for _ in range(ROUNDS):
                self.one_round(site, cloud, draw)
            site.online()
            site.run(20)
            cloud.deliver()
            told = b"".join(line for _, line in cloud.history)
            for client in clients:
                self.assertEqual(client.data, told, f"seed {seed}")
                self.assertFalse(client.finished or client.aborted)
            self.check_cache(site, cloud)

    def test_random_cuts_and_crashes(self) -> None:
        """
        The same when the hub dies now and then, and its clients come back with the version that they have reached.
        """
        for seed in range(SEEDS):
            draw = random.Random(seed)
            site = MemorySite(self)
            site.online()
            site.store_list(MAPS, [], "10")
            site.run(2)
            cloud = HistoryCloud(site, draw)
            told, version = b"", 10
            client = site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10")
            for _ in range(ROUNDS):
                self.one_round(site, cloud, draw)
                if draw.random() < 0.5:
                    cloud.streams.clear()
                    site.crash()
                    told += client.data
                    version = max([version, *(int(reached) for _, reached in client.told)])
                    draw.choice([site.online, site.offline])()
                    client = site.ask("GET", f"{MAPS}?watch=true&resourceVersion={version}")
            site.online()
            site.run(20)
            cloud.deliver()
            self.assertEqual(told + client.data, b"".join(line for _, line in cloud.history), f"seed {seed}")
            self.check_cache(site, cloud)

    def one_round(self, site: MemorySite, cloud: HistoryCloud, draw: random.Random) -> None:
        """
        Changes, one kind of trouble, changes.
        """
        for _ in range(draw.randint(0, 4)):
            cloud.change()
        if draw.random() < 0.5:
            cloud.deliver()
        for _ in range(draw.randint(0, 3)):
            cloud.change()
        if draw.random() < 0.4:
            cloud.cut()
            site.run(draw.choice([0.05, 0.5, 3]))
        else:
            cloud.cut()
            site.offline()
            site.run(draw.choice([0.05, 2, 30]))
            for _ in range(draw.randint(0, 3)):
                cloud.change()
            site.online()
            site.run(draw.choice([0.05, 0.5, 3]))

    def check_cache(self, site: MemorySite, cloud: HistoryCloud) -> None:
        """
        What is listed without the cloud is what the history amounts to.
        """
        state: dict[str, str] = {}
        for _, line in cloud.history:
            parsed = json.loads(line)
            metadata = parsed["object"]["metadata"]
            if parsed["type"] == "DELETED":
                state.pop(metadata["name"], None)
            else:
                state[metadata["name"]] = metadata["resourceVersion"]
        site.offline()
        listed = site.fetch("GET", MAPS)
        self.assertEqual((listed.status, listed.header("x-yurt-source")), (200, "cache"))
        self.assertEqual(listed.json["metadata"]["resourceVersion"], str(cloud.version))
        items = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in listed.json["items"]}
        self.assertEqual(items, state)
