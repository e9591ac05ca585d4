"""
Many clients, much data, and signals.
"""

from __future__ import annotations

import socket
from collections import Counter

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool

from .case import KUBELET, NODE, HubProcessCase, resident_megabytes

CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
WATCHERS = 100
GIBIBYTE = 1024**3
GROWTH_ALLOWED = 20
"""Megabytes by which the hub may grow while much data streams through it."""


class _Measure(Protocol):
    """
    Counts a body, and looks at something every now and then.
    """

    EVERY = 64 * 1024 * 1024

    def __init__(self, look: object) -> None:
        self.size = 0
        self.done: Deferred[int] = Deferred()
        self._look = look
        self._next = self.EVERY

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)
        if self.size >= self._next and callable(self._look):
            self._next += self.EVERY
            self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.done.callback(self.size)


class ManyClientsTests(HubProcessCase):
    """
    A hundred watches and the cloud's return.
    """

    async def test_no_relist_storm(self) -> None:
        """
        Watches of a hundred clients live through a cut: each goes on in the same response with the events it missed, once and in
        order; each is resumed by one request, and nobody lists again.
        """
        await self.start_hub("--cache-agents", "client-*", "--namespace=")  # the hub itself watches no ConfigMap
        version = 0
        for number in range(3):
            version = self.api.put("configmaps", {"metadata": {"name": f"old-{number}"}}).version
        streams = []
        for number in range(WATCHERS):
            agent = f"client-{number}/1.0"
            await self.client.ask("GET", CONFIGMAPS, user_agent=agent)
            streams.append(await self.client.watch(f"{CONFIGMAPS}?watch=true&resourceVersion={version}", user_agent=agent))
        self.api.put("configmaps", {"metadata": {"name": "before"}})
        for stream in streams:
            event = await stream.next()
            self.assertEqual(event and event["object"]["metadata"]["name"], "before")
        self.api.cut()
        await self.until("notice of the cut", self.unreachable)
        for name in ("during-1", "during-2"):
            self.api.put("configmaps", {"metadata": {"name": name}})
        self.api.remove("configmaps", "old-0")
        counted = Counter(self.api.counts)
        self.api.reset_connections()  # what was under way is lost, as after minutes without an answer
        self.api.heal()
        await self.until("notice of the return", self.reachable)
        self.api.put("configmaps", {"metadata": {"name": "after"}})
        for stream in streams:
            events = [await stream.next() for _ in range(4)]
            seen = [(event["type"], event["object"]["metadata"]["name"]) for event in events if event]
            self.assertEqual(seen, [("ADDED", "during-1"), ("ADDED", "during-2"), ("DELETED", "old-0"), ("ADDED", "after")])
        self.assertEqual([stream.waiting for stream in streams], [0] * WATCHERS)
        asked = self.api.counts - counted
        self.assertEqual((asked["list", "configmaps"], asked["get", "configmaps"]), (0, 0))
        self.assertEqual(asked["watch", "configmaps"], WATCHERS)


class QuotaTests(HubProcessCase):
    """
    More than may be kept.
    """

    async def kubelet_reads(self) -> list[tuple[str, int]]:
        """
        What kubelet's reads that the node lives on are answered with: by whom, and how many objects.
        """
        found = []
        for resource in ("pods", "secrets", "configmaps"):
            answer = await self.client.ask("GET", f"/api/v1/namespaces/vital/{resource}", user_agent=KUBELET)
            self.assertEqual(answer.status, 200, answer.body)
            found.append(((answer.headers.getRawHeaders("x-yurt-source") or [""])[0], len(answer.json["items"])))
        return found

    async def others_read(self, number: int) -> tuple[int, int]:
        """
        How another component's list of 900 kB is answered.
        """
        path, agent = f"/api/v1/namespaces/n{number}/configmaps", f"client-{number}/1"
        answer = await self.client.ask("GET", path, user_agent=agent)
        return answer.status, len(answer.json.get("items", ()))

    async def test_vital_last(self) -> None:
        """
        Of 27 MB that many components read at once 4 MiB are kept, within seconds: kubelet's pods, Secrets and ConfigMaps, though
        they are the oldest.  All are answered meanwhile; after a restart without the cloud these are there, and what came last.
        """
        options = ("--cache-quota=4Mi,*=2Mi", "--cache-agents=*")
        hub = await self.start_hub(*options)
        await self.until("cloud", self.reachable)
        for resource in ("pods", "secrets", "configmaps"):
            for number in range(10):
                self.api.put(resource, {"metadata": {"name": f"v{number}", "namespace": "vital"}, "data": {"a": "x" * 40_000}})
        self.assertEqual(await self.kubelet_reads(), [("cloud", 10)] * 3)
        for number in range(30):
            for name in range(20):
                metadata = {"name": f"m{name}", "namespace": f"n{number}"}
                self.api.put("configmaps", {"metadata": metadata, "data": {"a": "x" * 45_000}})
            self.assertEqual(await self.others_read(number), (200, 20))

        async def is_kept() -> bool:
            cache = (await self.admin.ask("GET", "/v1/status")).json["cache"]
            return bool(cache["bytes"] <= 4 << 20)

        await self.until("quota that is kept", is_kept)
        self.assertEqual(await self.kubelet_reads(), [("cloud", 10)] * 3)
        self.api.cut()
        await self.until("notice of the cut", self.unreachable)
        await self.end(hub, "TERM")
        await self.start_hub(*options)
        self.assertEqual(await self.kubelet_reads(), [("cache", 10)] * 3)
        self.assertTrue(await is_kept())
        self.assertEqual([await self.others_read(number) for number in (0, 29)], [(503, 0), (200, 20)])


class BulkTests(HubProcessCase):
    """
    Bodies that fit nowhere.
    """

    async def test_one_gibibyte(self) -> None:
        """
        A body of 1 GiB streams through the hub, which grows by less than 20 MB meanwhile.
        """
        hub = await self.start_hub()
        await self.client.ask("GET", "/version")
        idle = resident_megabytes(hub)
        peaks: list[float] = []
        measure = _Measure(lambda: peaks.append(resident_megabytes(hub)))
        pool = HTTPConnectionPool(reactor, persistent=False)
        agent = Agent(reactor, pool=pool)
        response = await agent.request(b"GET", f"http://127.0.0.1:{self.proxy_port}/bulk/{GIBIBYTE}".encode())
        response.deliverBody(measure)
        self.assertEqual(await measure.done, GIBIBYTE)
        self.assertLess(max(peaks) - idle, GROWTH_ALLOWED)

    async def test_client_that_does_not_read(self) -> None:
        """
        A client that stops reading stops its own stream, and neither the hub's memory nor anybody else.
        """
        hub = await self.start_hub()
        await self.client.ask("GET", "/version")
        idle = resident_megabytes(hub)
        with socket.create_connection(("127.0.0.1", self.proxy_port)) as lazy:
            lazy.sendall(f"GET /bulk/{GIBIBYTE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            lazy.setblocking(False)
            for _ in range(200):
                self.assertEqual((await self.client.ask("GET", "/api/v1/nodes")).status, 200)
            self.assertEqual(len((await self.client.ask("GET", "/bulk/50000000")).body), 50_000_000)
            self.assertLess(resident_megabytes(hub) - idle, GROWTH_ALLOWED)


class LifeTests(HubProcessCase):
    """
    Start, reload, end.
    """

    async def test_start_without_the_cloud(self) -> None:
        """
        What was read online is served after a restart without the cloud; a hub that never saw it says so.
        """
        self.api.put("configmaps", {"metadata": {"name": "one"}})
        first = await self.start_hub()
        online = await self.client.ask("GET", CONFIGMAPS, user_agent=KUBELET)
        await self.end(first, "TERM")
        await self.api.refuse()
        await self.start_hub()
        offline = await self.client.ask("GET", CONFIGMAPS, user_agent=KUBELET)
        self.assertEqual((offline.status, offline.headers.getRawHeaders("x-yurt-source")), (200, ["cache"]))
        self.assertEqual(
            [item["metadata"] for item in offline.json["items"]], [item["metadata"] for item in online.json["items"]]
        )
        self.assertEqual((await self.client.ask("GET", CONFIGMAPS, user_agent="kube-proxy/1")).status, 503)

    async def test_term(self) -> None:
        """
        SIGTERM ends it as an init system expects, also with watches open.
        """
        hub = await self.start_hub()
        stream = await self.client.watch(f"{CONFIGMAPS}?watch=true", user_agent=KUBELET)
        await self.end(hub, "TERM")
        self.assertIn(hub.status, (0, 143, -15))
        self.assertIs(await stream.next(), None)

    async def test_hangup(self) -> None:
        """
        SIGHUP makes it read its files again, and nobody notices.
        """
        hub = await self.start_hub()
        stream = await self.client.watch(f"{CONFIGMAPS}?watch=true&resourceVersion={self.api.store.version}", user_agent=KUBELET)
        self.api.write_kubeconfig(self.kubeconfig, f"system:node:{NODE}", "system:nodes", "another-group")
        transport = hub.transport
        assert transport is not None
        transport.signalProcess("HUP")
        self.assertEqual((await self.client.ask("GET", "/api/v1/nodes")).status, 200)
        self.api.put("configmaps", {"metadata": {"name": "one"}})
        event = await stream.next()
        self.assertEqual(event and event["object"]["metadata"]["name"], "one")
        self.assertIs(hub.status, None)

    async def test_port_in_use(self) -> None:
        """
        A port that is taken ends the start with a message and a status other than 0.
        """
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", self.proxy_port))
            taken.listen()
            hub = self.spawn_hub()
            await hub.ended
        self.assertNotIn(hub.status, (0, None))
        self.assertIn(str(self.proxy_port).encode(), hub.said)
