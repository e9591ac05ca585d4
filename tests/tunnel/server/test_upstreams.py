"""
Promises about the pools of connections to nodes.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.http.memory import Recorder
from tests.tunnel.server.fakes import FakeStreams, agent
from yurt.http.interfaces import RequestHead
from yurt.tls import Credentials
from yurt.tunnel.server import upstreams
from yurt.tunnel.server.metrics import ServerMetrics
from yurt.tunnel.server.refusals import Refusals
from yurt.tunnel.server.registry import Registry
from yurt.tunnel.server.routing import Route
from yurt.tunnel.server.upstreams import Upstreams
from yurt.tunnel.server.ways import NoWay, Ways

GET = RequestHead(b"GET", b"/metrics")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def plain(node: str, port: int = 10255, host: str = "10.0.0.8") -> Route:
    """
    A route to a port of plain HTTP.
    """
    return Route(node, "http", "10.0.0.8", port, host)


class UpstreamsTests(SynchronousTestCase):
    """
    Tests of Upstreams.
    """

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.registry, self.streams = Registry(), FakeStreams()
        refusals = Refusals(self.reactor, ServerMetrics(CollectorRegistry(), "1"))
        ways = Ways(self.reactor, self.registry, self.streams, refusals, now=self.reactor.seconds)
        self.upstreams = Upstreams(self.reactor, ways, Credentials())
        self.registry.add(agent("edge-1"))

    def ask(self, route: Route) -> Recorder:
        """
        Send a request, and answer if it is carried.
        """
        receiver, before = Recorder(), len(self.streams.protocols)
        self.upstreams.upstream(route).send(GET, receiver)
        if len(self.streams.protocols) > before:
            self.streams.protocols[-1].dataReceived(OK)
        self.reactor.advance(0)
        return receiver

    def test_apart(self) -> None:
        """
        Each node, port and address has a pool of its own, and always the same one.
        """
        self.registry.add(agent("edge-2"))
        routes = [plain("edge-1"), plain("edge-2"), plain("edge-1", 9100), plain("edge-1", host="127.0.0.1")]
        for route in routes:
            self.assertEqual(self.ask(route).body, b"ok")
        self.assertEqual([asked[1:3] for asked in self.streams.asked], [(route.host, route.port) for route in routes])
        for route in routes:
            self.upstreams.upstream(route).send(GET, Recorder())
        self.assertEqual((len(self.streams.asked), len(self.upstreams.pools())), (4, 4))

    def test_looks_for_the_link_each_time(self) -> None:
        """
        A node whose agent is gone is told by the dial, and reached again when the agent is back.
        """
        gone = next(iter(self.registry.agents()))
        self.registry.remove(gone, 0.0, "drained")
        error = self.ask(plain("edge-1")).error
        assert error is not None
        self.assertIsInstance(error.__cause__, NoWay)
        self.registry.add(agent("edge-1"))
        self.assertEqual(self.ask(plain("edge-1")).body, b"ok")

    def test_drop_idle(self) -> None:
        """
        A node's idle connections are closed when they hold up its agent, those of other nodes are not.
        """
        self.registry.add(agent("edge-2"))
        for node in ("edge-1", "edge-2"):
            self.ask(plain(node))
        self.upstreams.drop_idle("edge-1")
        self.assertEqual([pool.open_connections for pool in self.upstreams.pools()], [0, 1])

    def test_bound(self) -> None:
        """
        Beyond the bound the pool used longest ago is forgotten with its idle connections, but none that carries something.
        """
        self.patch(upstreams, "MAX_UPSTREAMS", 2)
        busy, idle, newest = (plain("edge-1", port) for port in (1, 2, 3))
        pools = [self.upstreams.upstream(route) for route in (busy, idle)]
        pools[0].send(GET, Recorder())
        self.ask(idle)
        self.upstreams.upstream(newest)
        self.assertEqual(pools[1].open_connections, 0)
        self.assertEqual(self.upstreams.pools(), [pools[0], self.upstreams.upstream(newest)])

    def test_close(self) -> None:
        """
        At the stop every connection is closed.
        """
        self.ask(plain("edge-1"))
        pools = self.upstreams.pools()
        self.upstreams.close()
        self.assertEqual([pool.open_connections for pool in pools], [0])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
