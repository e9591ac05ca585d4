"""
Tests of writes over connections that have died without a word, while the cloud itself is well.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.portforward import ProxyFactory, ProxyServer
from twisted.trial.unittest import TestCase

from tests.hub.site import NODE, Site, config_map, pause, reactor, source, until
from yurt.http.limits import ClientLimits

STRATEGIC = "application/strategic-merge-patch+json"
NODE_PATH = f"/api/v1/nodes/{NODE}"
MAPS = "/api/v1/namespaces/default/configmaps"


class ForgetfulServer(ProxyServer):
    """
    One connection through the balancer, which takes whatever comes once it is forgotten, and passes nothing on.
    """

    factory: Forgetful

    def dataReceived(self, data: bytes) -> None:
        if self not in self.factory.forgotten:
            super().dataReceived(data)


class Forgetful(ProxyFactory):
    """
    A load balancer, or a router that rewrites addresses, which can forget where the connections of now lead to.
    """

    protocol = ForgetfulServer
    noisy = False

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self.all: set[Protocol] = set()
        self.forgotten: set[Protocol] = set()

    def buildProtocol(self, addr: Any) -> Any:
        connection: Any = Factory.buildProtocol(self, addr)
        connection.clientProtocolFactory.noisy = False
        self.all.add(connection)
        return connection

    def forget(self) -> None:
        """
        What comes over the connections of now goes nowhere.
        """
        self.forgotten |= self.all


class LostConnectionTests(TestCase):
    """
    The hub's idle connections lead nowhere any more.
    """

    timeout = 60

    async def start(self) -> tuple[Site, Forgetful]:
        """
        A hub that knows its cloud by the address of a balancer.
        """
        site = Site(self)
        site.api.put("nodes", {"metadata": {"name": NODE}})
        balancer = Forgetful(urlsplit(site.api.url).port or 0)
        port = reactor.listenTCP(0, balancer, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        await site.start_online(servers=(f"https://127.0.0.1:{port.getHost().port}",))
        return site, balancer

    async def test_writes(self) -> None:
        """
        A write is carried out all the same, once, whether it has a body or not; it does not hang until all hope is gone.
        """
        site, balancer = await self.start()
        maps = site.api.store.collection(site.api.catalogue.named("configmaps")).objects
        patch = {"data": {"b": "c"}}
        for method, path, body in (("POST", MAPS, config_map("a")), ("PATCH", f"{MAPS}/a", patch), ("DELETE", f"{MAPS}/a", None)):
            await site.get(MAPS, agent="kubectl")
            while balancer.all != balancer.forgotten:  # a probe may just have opened another one
                balancer.forget()
                await pause(ClientLimits().trusted_for + 0.1)
            before = site.api.store.version
            content_type = "application/merge-patch+json" if method == "PATCH" else "application/json"
            reply = await site.ask(method, path, body, agent="kubectl", content_type=content_type)
            self.assertEqual((reply.status, source(reply)), (201 if method == "POST" else 200, "cloud"), reply.body)
            self.assertEqual(site.api.store.version, before + 1)
        self.assertEqual(maps, {})

    async def test_status(self) -> None:
        """
        The status of the node, over a connection that was in use just now, is answered before kubelet gives up, and reaches the
        cloud once, over a new connection.
        """
        site, balancer = await self.start()
        await site.get(NODE_PATH)
        balancer.forget()
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        patched = site.ask("PATCH", f"{NODE_PATH}/status?timeout=2s", ready, content_type=STRATEGIC)
        reply = await Deferred.fromCoroutine(patched).addTimeout(2.0, reactor)
        self.assertEqual((reply.status, source(reply)), (200, "hub"), reply.body)
        await until(lambda: len(site.hub.journal) == 0)
        self.assertEqual(site.api.get("nodes", NODE, "")["status"], ready["status"])
        self.assertEqual(site.api.count("patch", "nodes/status"), 1)
