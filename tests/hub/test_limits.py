"""
Tests of the hub's limits: requests in flight, and what a burst or a slow client may do to others.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults

from tests.hub.raw import connect
from tests.hub.site import NODE, Reply, Site, config_map, header, names, until
from tests.hub.test_reads import MAPS, PODS, HubCase
from yurt.http.limits import LARGE_HEAD_BYTES
from yurt.hub.config import HubConfig

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE}"


class InFlightTests(HubCase):
    """
    --max-requests-in-flight.
    """

    def many(self, site: Site, number: int) -> list[Deferred[Reply]]:
        """
        So many requests at once, which the cloud does not answer yet.
        """
        return [ensureDeferred(site.get(f"{MAPS}/m{place}", agent="curl")) for place in range(number)]

    async def test_too_many(self) -> None:
        """
        One request more than the limit is 429 with ``Retry-After: 1``; kubelet's Lease and watches are not concerned, and
        everything is as before when the burst is over.
        """
        site = await self.site_with(config_map("a"), max_requests_in_flight=20)
        site.api.delay = 3600.0
        waiting = self.many(site, 20)
        await until(lambda: site.hub.in_flight == 20)
        reply = await site.get(MAPS)
        self.assert_failure(reply, 429, "TooManyRequests", "--max-requests-in-flight")
        self.assertEqual(header(reply, "retry-after"), "1")
        self.assert_from(await site.get(LEASE), "hub", 404)
        site.api.delay = 0.0
        stream = await site.watch(f"{MAPS}?watch=true")
        event: Any = await stream.next()
        self.assertEqual(event["object"]["metadata"]["name"], "a")
        await site.api.refuse()
        replies = await gatherResults(waiting)
        self.assertEqual({reply.status for reply in replies}, {503})
        self.assertEqual(site.hub.in_flight, 0)
        await site.online()
        self.assert_from(await site.get(MAPS), "cloud")
        self.assertIn("rejected_requests_counter 1.0", (await site.admin("/metrics")).body.decode())
        stream.close()

    async def test_watches_apart(self) -> None:
        """
        More watches than the limit leave room for requests.
        """
        site = await self.site_with(config_map("a"), max_requests_in_flight=5)
        streams = [await site.watch(f"{MAPS}?watch=true") for _ in range(10)]
        self.assert_from(await site.get(MAPS), "cloud")
        self.assertEqual(site.hub.in_flight, 0)
        self.assertEqual(len(streams), len(site.hub.watches))
        await site.hang_up()
        await until(lambda: not site.hub.watches)

    async def test_long_requests_apart(self) -> None:
        """
        exec, attach, port-forward, proxy and logs may last, and are not counted either.
        """
        site = await self.site_with(max_requests_in_flight=1)
        site.api.delay = 3600.0
        for subresource in ("log", "proxy", "exec", "attach", "portforward"):
            ensureDeferred(site.get(f"{PODS}/a/{subresource}", agent="kubectl")).addErrback(lambda _: None)
        await until(lambda: sum(one.open_connections for one in self.upstreams(site)) >= 5)
        self.assertEqual(site.hub.in_flight, 0)
        site.api.delay = 0.0
        self.assert_from(await site.get(MAPS), "cloud")
        await site.hang_up()

    def upstreams(self, site: Site) -> list[Any]:
        """
        The ways to the cloud.
        """
        return [server.upstream for server in site.service.cloud.servers]

    async def test_hang_up(self) -> None:
        """
        A client that hangs up gives its place back, and frees the connection to the cloud.
        """
        site = await self.site_with()
        site.api.delay = 3600.0
        waiting = self.many(site, 30)
        for one in waiting:
            one.addErrback(lambda _: None)
        await until(lambda: site.hub.in_flight == 30)
        await site.hang_up()
        await until(lambda: site.hub.in_flight == 0)
        await until(lambda: sum(one.open_connections for one in self.upstreams(site)) <= 1)

    async def test_default(self) -> None:
        """
        250, unless the operator says otherwise.
        """
        self.assertEqual(HubConfig.max_requests_in_flight, 250)

    async def test_offline_burst(self) -> None:
        """
        Cached reads without the cloud take no place for longer than an instant: a burst is answered whole.
        """
        site = await self.site_with(config_map("a"), max_requests_in_flight=3)
        await site.get(MAPS)
        await site.offline()
        replies = await gatherResults([ensureDeferred(site.get(MAPS)) for _ in range(50)])
        self.assertEqual({reply.status for reply in replies}, {200})
        self.assertEqual(site.hub.in_flight, 0)


class HonestRefusalTests(HubCase):
    """
    What the HTTP layer refuses by itself.
    """

    async def test_malformed(self) -> None:
        """
        A malformed request is 400 with the hub as its origin, the connection is closed, and others go on.
        """
        site = await self.site_with(config_map("a"))
        for request in (
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"NONSENSE\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * LARGE_HEAD_BYTES + b"\r\n\r\n",
        ):
            client = connect(site, request)
            await client.lost
            self.assertTrue(client.received.startswith(b"HTTP/1.1 4"), client.received[:100])
            self.assertIn(b"\r\nx-yurt-source: hub\r\n", client.received.lower())
        self.assert_from(await site.get(MAPS), "cloud")

    async def test_slow_reader(self) -> None:
        """
        A client that does not read its answer stops that one upstream, and nobody else; what is held for it is bounded.
        """
        site = await self.site_with(config_map("a"))
        slow = connect(site, b"GET /bulk/50000000 HTTP/1.1\r\nHost: x\r\nUser-Agent: curl\r\n\r\n", reading=False)
        await until(lambda: site.hub.in_flight == 1)
        self.assert_from(await site.get(MAPS), "cloud")
        self.assertEqual(names(await site.get(MAPS)), ["a"])
        self.assertEqual(site.hub.in_flight, 1)
        slow.read_on()
        await until(lambda: len(slow.received) > 50_000_000)
        await until(lambda: site.hub.in_flight == 0)
        await slow.hang_up()
