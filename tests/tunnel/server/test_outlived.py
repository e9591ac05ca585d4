"""
Tests of :mod:`yurt.tunnel.server.outlived`.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.tunnel.server.fakes import FakeCarrier
from yurt.tunnel.server.nodes import Nodes
from yurt.tunnel.server.outlived import EXPIRED, LOOK, REMOVED, Outlived
from yurt.tunnel.server.registry import Agent, Registry

PATIENCE = 30.0


class OutlivedTests(SynchronousTestCase):
    """
    Tests of Outlived.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.registry = Registry()
        self.nodes = Nodes()
        outlived = Outlived(self.clock, self.registry, self.nodes, PATIENCE, now=self.clock.seconds)
        outlived.startService()
        self.addCleanup(outlived.stopService)

    def connect(self, node: str = "edge-1", *, streams: int = 0, valid_until: float = 1e9) -> FakeCarrier:
        """
        A link of a node that there is.
        """
        link = FakeCarrier(streams=streams)
        self.registry.add(Agent(node, link, valid_until=valid_until))
        self.nodes.learn(node)
        return link

    def remove(self, node: str = "edge-1") -> None:
        """
        The cluster loses the node.
        """
        self.nodes.forget(node)
        self.patch(Nodes, "of_cluster", True)

    def test_expired(self) -> None:
        """
        A link ends soon after its certificate has expired, and no other one does.
        """
        link, other = self.connect(valid_until=100), self.connect("edge-2", valid_until=1000)
        self.clock.pump([LOOK] * 6)
        self.assertEqual((link.closing, link.aborted), (False, []))
        self.clock.advance(LOOK)
        self.assertEqual((link.closing, link.aborted), (True, [EXPIRED]))
        self.assertEqual((other.closing, other.aborted), (False, []))

    def test_followed(self) -> None:
        """
        What runs on a link goes on when a newer one shows a certificate that holds, as long as that does.
        """
        link = self.connect(streams=1, valid_until=10)
        newer = self.connect(valid_until=200)
        self.clock.pump([LOOK] * 10)
        self.assertEqual((link.closing, newer.closing), (False, False))
        self.clock.pump([LOOK] * 10)
        self.assertEqual((link.closing, newer.closing, link.aborted), (True, True, [EXPIRED]))

    def test_streams_end(self) -> None:
        """
        What runs on it may go on for a while.
        """
        link = self.connect(streams=1, valid_until=10)
        self.clock.advance(LOOK)
        self.assertEqual((link.closing, link.aborted), (True, []))
        self.clock.advance(PATIENCE)
        self.assertEqual(link.aborted, [EXPIRED])

    def test_removed(self) -> None:
        """
        A link ends soon after its Node has been deleted, and no other one does.
        """
        link, other = self.connect(), self.connect("edge-2")
        self.remove()
        self.clock.advance(LOOK)
        self.assertFalse(link.closing)
        self.clock.advance(LOOK)
        self.assertEqual((link.closing, link.aborted), (True, [REMOVED]))
        self.assertFalse(other.closing)

    def test_registered_anew(self) -> None:
        """
        A Node that was deleted and made anew at once keeps its link.
        """
        link = self.connect()
        self.remove()
        self.clock.advance(LOOK)
        self.patch(Nodes, "of_cluster", False)
        self.nodes.learn("edge-1")
        self.clock.pump([LOOK] * 4)
        self.assertFalse(link.closing)

    def test_cluster_away(self) -> None:
        """
        While the API server is away nobody knows what it deleted, and nothing ends.
        """
        link = self.connect()
        self.remove()
        self.patch(Nodes, "problem", "nodes: connection refused")
        self.clock.pump([LOOK] * 4)
        self.assertFalse(link.closing)
