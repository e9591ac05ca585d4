"""
The switches of the miniature apiserver, which a real one does not have.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectionRefusedError
from twisted.trial.unittest import TestCase
from twisted.web.client import ResponseNeverReceived

from tests.contract.client import KubeClient, Stream
from tests.miniapi import MiniAPI

CLOCK: Any = reactor
MOMENT = 0.3
"""Seconds for which nothing must come."""


class SwitchTests(TestCase):
    """
    What the switches do to clients.
    """

    def setUp(self) -> None:
        self.api = MiniAPI(reactor)
        self.addCleanup(self.api.stop)
        self.api.start()
        self.client = KubeClient(reactor, self.api.url, self.api.ca.cert_pem, self.api.certificate("admin", "system:masters"))
        self.addCleanup(lambda: Deferred.fromCoroutine(self.client.close()))

    async def watch(self) -> Stream:
        return await self.client.watch(f"/api/v1/configmaps?watch=true&resourceVersion={self.api.store.version}")

    async def test_cut(self) -> None:
        """
        Cut, neither old nor new connections carry a byte, and none is closed; healed, they go on where they were.
        """
        stream = await self.watch()
        self.api.cut()
        asked = Deferred.fromCoroutine(self.client.ask("GET", "/version"))
        self.api.put("configmaps", {"metadata": {"name": "one"}})
        quiet: Deferred[None] = Deferred()
        CLOCK.callLater(MOMENT, quiet.callback, None)
        await quiet
        self.assertFalse(asked.called)
        self.assertEqual(stream.waiting, 0)
        self.api.heal()
        self.assertEqual((await asked).status, 200)
        event = await stream.next()
        self.assertEqual(event and event["object"]["metadata"]["name"], "one")

    async def test_refuse(self) -> None:
        """
        Refusing, it breaks what is open and takes nothing new; healed, it listens where it did.
        """
        stream = await self.watch()
        url = self.api.url
        await self.api.refuse()
        self.assertIs(await stream.next(), None)
        with self.assertRaises(ConnectionRefusedError):
            await self.client.ask("GET", "/version")
        self.api.heal()
        self.assertEqual(self.api.url, url)
        self.assertEqual((await self.client.ask("GET", "/version")).status, 200)

    async def test_reset(self) -> None:
        """
        Reset connections are broken, new ones are welcome.
        """
        stream = await self.watch()
        self.api.reset_connections()
        self.assertIs(await stream.next(), None)
        try:
            reply = await self.client.ask("GET", "/version")
        except ResponseNeverReceived:  # the client took a connection that was just broken
            reply = await self.client.ask("GET", "/version")
        self.assertEqual(reply.status, 200)

    async def test_load_balancer(self) -> None:
        """
        A failure is answered as a load balancer does: a page, not a Status.
        """
        self.api.failure = 503
        reply = await self.client.ask("GET", "/api/v1/pods")
        self.assertEqual((reply.status, reply.headers.getRawHeaders("content-type")), (503, ["text/html"]))
        self.assertEqual((await self.client.ask("GET", "/readyz")).status, 503)
        self.api.heal()
        self.assertEqual((await self.client.ask("GET", "/readyz")).status, 200)

    async def test_delay(self) -> None:
        """
        A delay comes before every answer.
        """
        self.api.delay = MOMENT
        begin = time.monotonic()
        await self.client.ask("GET", "/version")
        self.assertGreaterEqual(time.monotonic() - begin, MOMENT)

    async def test_unready(self) -> None:
        """
        Unready, it says so and works on.
        """
        self.api.ready = False
        self.assertEqual((await self.client.ask("GET", "/readyz")).status, 500)
        self.assertEqual((await self.client.ask("GET", "/livez")).status, 200)
        self.assertEqual((await self.client.ask("GET", "/api/v1/pods")).status, 200)

    async def test_counts(self) -> None:
        """
        Requests are counted by verb and resource, and remembered with their user.
        """
        for _ in range(3):
            await self.client.ask("GET", "/api/v1/pods?limit=5")
        await self.client.ask("PATCH", "/api/v1/nodes/x/status", {})
        self.assertEqual(
            (self.api.count("list", "pods"), self.api.count("patch", "nodes/status"), self.api.count("watch", "pods")), (3, 1, 0)
        )
        seen = self.api.seen[0]
        self.assertEqual((seen.user, seen.verb, seen.resource, seen.query), ("admin", "list", "pods", {"limit": "5"}))

    async def test_bookmarks_on_demand(self) -> None:
        """
        A test can ask for a bookmark to all that want them.
        """
        stream = await self.client.watch("/api/v1/configmaps?watch=true&allowWatchBookmarks=true&resourceVersion=1")
        self.api.bookmark()
        event = await stream.next()
        self.assertEqual(event and event["type"], "BOOKMARK")

    async def test_bulk(self) -> None:
        """
        A long body is served in pieces, to its end.
        """
        reply = await self.client.ask("GET", "/bulk/3000001")
        self.assertEqual((reply.status, len(reply.body)), (200, 3_000_001))

    async def test_kubeconfig(self) -> None:
        """
        A kubeconfig names server, authority and user, readable for its owner only.
        """
        path = self.mktemp()
        self.api.write_kubeconfig(path, "someone", "some-group")
        with open(path) as file:
            text = file.read()
        self.assertIn(self.api.url, text)
        self.assertIn("client-key-data", text)

    async def test_nothing_comes(self) -> None:
        """
        A watch of a quiet collection stays quiet.
        """
        stream = await self.watch()
        with self.assertRaises(TimeoutError):
            await stream.next(MOMENT)
        self.assertEqual(stream.waiting, 0)
