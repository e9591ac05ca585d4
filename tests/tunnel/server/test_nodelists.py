"""
Tests of how servers tell each other their nodes.
"""

from __future__ import annotations

import json

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.tunnel.server.fakes import agent
from yurt.tunnel.server import nodelists
from yurt.tunnel.server.nodelists import MAX_LINE_BYTES, NodeListReader, NodeListWriter
from yurt.tunnel.server.registry import Registry


class WriterTests(SynchronousTestCase):
    """
    Tests of NodeListWriter.
    """

    def setUp(self) -> None:
        self.registry = Registry()
        self.transport = StringTransport()
        self.writer = NodeListWriter(self.registry)

    def lines(self) -> list[dict[str, list[str]]]:
        """
        What was written since the last look.
        """
        text = self.transport.value().rpartition(b"\r\n\r\n")[2]
        self.transport.clear()
        return [json.loads(line) for line in text.splitlines()]

    def test_all_and_then_changes(self) -> None:
        """
        The first line has all nodes, the next ones what changed.
        """
        first = agent("edge-1")
        self.registry.add(first)
        self.writer.makeConnection(self.transport)
        self.assertEqual(self.lines(), [{"nodes": ["edge-1"]}])
        self.registry.add(agent("edge-2"))
        self.registry.remove(first, 0.0, "")
        self.assertEqual(self.lines(), [{"added": ["edge-2"]}, {"removed": ["edge-1"]}])

    def test_reader_that_stops(self) -> None:
        """
        While the other side does not read only the last state of each node is kept, and told when it reads again.
        """
        self.writer.makeConnection(self.transport)
        self.lines()
        self.writer.pauseProducing()
        for _ in range(100):
            one = agent("edge-1")
            self.registry.add(one)
            self.registry.remove(one, 0.0, "")
        self.registry.add(agent("edge-2"))
        self.assertEqual(self.lines(), [])
        self.writer.resumeProducing()
        self.assertEqual(self.lines(), [{"added": ["edge-2"], "removed": ["edge-1"]}])

    def test_many_nodes(self) -> None:
        """
        More nodes than go into a line are told in several.
        """
        self.patch(nodelists, "MAX_NAMES", 2)
        for number in range(5):
            self.registry.add(agent(f"edge-{number}"))
        self.writer.makeConnection(self.transport)
        self.assertEqual(self.lines(), [{"nodes": ["edge-0", "edge-1"]}, {"added": ["edge-2", "edge-3"]}, {"added": ["edge-4"]}])

    def test_stream_lost(self) -> None:
        """
        After the end of the stream nothing more is written or kept.
        """
        self.writer.makeConnection(self.transport)
        self.lines()
        self.writer.connectionLost()
        self.registry.add(agent("edge-1"))
        self.assertEqual(self.lines(), [])


class ReaderTests(SynchronousTestCase):
    """
    Tests of NodeListReader.
    """

    def setUp(self) -> None:
        self.nodes = {"old"}
        self.transport = StringTransport()
        self.reader = NodeListReader(self.nodes)
        self.reader.makeConnection(self.transport)

    def test_lines_in_pieces(self) -> None:
        """
        Lines count when they are whole, however they come.
        """
        text = b'{"nodes": ["a", "b"]}\n{"added": ["c"], "removed": ["a"], "later": 1}\n'
        for position in range(len(text)):
            self.reader.dataReceived(text[position : position + 1])
        self.assertEqual(self.nodes, {"b", "c"})

    def test_nonsense(self) -> None:
        """
        A line that makes no sense ends the stream, and nothing is believed any more.
        """
        for nonsense in (b"{}[\n", b'{"nodes": 5}\n', b'{"nodes": ["\xff"]}\n', b"x" * (MAX_LINE_BYTES + 1)):
            self.setUp()
            self.reader.dataReceived(nonsense)
            self.assertTrue(self.transport.disconnecting, nonsense[:20])
            self.assertEqual(self.nodes, set())

    def test_bound(self) -> None:
        """
        No server has more nodes than the bound.
        """
        self.patch(nodelists, "MAX_NODES", 2)
        self.reader.dataReceived(b'{"nodes": ["a", "b", "c"]}\n')
        self.assertTrue(self.transport.disconnecting)

    def test_stream_lost(self) -> None:
        """
        With the stream goes what it told.
        """
        self.reader.connectionLost()
        self.assertEqual(self.nodes, set())
