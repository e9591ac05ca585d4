"""
Tests of a link whose every way there and back takes seconds, over real sockets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

from twisted.internet.interfaces import IDelayedCall
from twisted.protocols.portforward import ProxyClient, ProxyClientFactory, ProxyFactory, ProxyServer
from twisted.trial.unittest import TestCase

from tests.hub.site import NODE, Site, pause, reactor, source, until

THERE = 2.6
"""Seconds that bytes take for one way."""
STRATEGIC = "application/strategic-merge-patch+json"
NODE_PATH = f"/api/v1/nodes/{NODE}"


class _SlowClient(ProxyClient):
    def dataReceived(self, data: bytes) -> None:
        cast(_SlowServer, self.peer).link.later(self, super().dataReceived, data)


class _SlowClientFactory(ProxyClientFactory):
    protocol = _SlowClient
    noisy = False


class _SlowServer(ProxyServer):
    clientProtocolFactory = _SlowClientFactory

    @property
    def link(self) -> SlowLink:
        return cast(SlowLink, self.factory)

    def connectionMade(self) -> None:
        super().connectionMade()
        self.link.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.link.later(self, super().dataReceived, data)


class SlowLink(ProxyFactory):
    """
    The way to a server on this machine, by a satellite, or behind a queue of some seconds.
    """

    protocol = _SlowServer
    noisy = False

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self.under_way: deque[IDelayedCall] = deque()
        self.connections: list[Any] = []

    def later(self, connection: Any, arrive: Callable[[bytes], object], data: bytes) -> None:
        """
        Let bytes arrive when they have come all the way.
        """

        def arrived() -> None:
            self.under_way.popleft()
            if connection.peer is not None:
                arrive(data)

        self.under_way.append(reactor.callLater(THERE, arrived))

    def end(self) -> None:
        """
        Lose all that is under way.
        """
        for call in self.under_way:
            call.cancel()
        for connection in self.connections:
            for one in filter(None, (connection, connection.peer)):
                one.transport.abortConnection()


class SlowLinkTests(TestCase):
    """
    The hub at the end of such a link.
    """

    timeout = 90

    async def test_alive(self) -> None:
        """
        The cloud is found, though a TLS hand-shake alone takes longer than a probe of a quick one may, and answers kubelet in
        its time; nor is it taken for dead again because of that wait.
        """
        site = Site(self)
        site.api.put("nodes", {"metadata": {"name": NODE}})
        link = SlowLink(urlsplit(site.api.url).port or 0)
        self.addCleanup(pause, 0)
        self.addCleanup(link.end)
        port = reactor.listenTCP(0, link, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(site.stop)
        site.start(servers=(f"https://127.0.0.1:{port.getHost().port}",))
        await until(lambda: site.service.cloud.reachable, "the hub sees the cloud")
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        patched = await site.ask("PATCH", f"{NODE_PATH}/status?timeout=10s", ready, content_type=STRATEGIC)
        self.assertEqual((patched.status, source(patched)), (200, "cloud"))
        self.assertTrue(site.service.cloud.reachable)
