"""
Tests of the ways to nodes.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.internet.defer import CancelledError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.tunnel.server.fakes import FakeCarrier, FakeStreams, agent
from yurt.tunnel.connect import ConnectRefused
from yurt.tunnel.server.metrics import ServerMetrics
from yurt.tunnel.server.refusals import Refusals
from yurt.tunnel.server.registry import Carrier, Registry
from yurt.tunnel.server.ways import DOUBT_AFTER, NoWay, Ways


class FakePeers:
    """
    Other servers, by the nodes that are connected to them.
    """

    def __init__(self) -> None:
        self.links: dict[str, Carrier] = {}

    def with_node(self, node: str, but: Carrier | None = None) -> Carrier | None:
        """
        See :class:`yurt.tunnel.server.ways.Peers`.
        """
        link = self.links.get(node)
        return None if link is but else link


class WaysTests(SynchronousTestCase):
    """
    Tests of Ways and Way.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.registry = Registry()
        self.streams = FakeStreams()
        self.peers = FakePeers()
        self.scraped = CollectorRegistry()
        self.cluster: dict[str, bool] = {}
        self.ways = Ways(
            self.clock,
            self.registry,
            self.streams,
            Refusals(self.clock, ServerMetrics(self.scraped, "1")),
            peers=self.peers,
            is_node=self.cluster.get,
            now=self.clock.seconds,
        )

    def value(self, name: str, **labels: str) -> float | None:
        """
        A sample of the metrics, its name without prefix.
        """
        return self.scraped.get_sample_value(f"yurttunnel_server_{name}", labels)

    def no_way(self, node: str, *, local_only: bool = False) -> NoWay:
        """
        Why there is no way to a node.
        """
        error = self.assertRaises(NoWay, self.ways.way_to, node, "10.0.0.8", 10250, local_only=local_only)
        assert isinstance(error, NoWay)
        return error

    def test_through_the_agent(self) -> None:
        """
        A node with an agent here is dialled through its connection, without further headers.
        """
        carrier = FakeCarrier()
        self.registry.add(agent("edge-1", carrier))
        way = self.ways.way_to("edge-1", "10.0.0.8", 10250, early=True)
        self.successResultOf(way.connect(Factory.forProtocol(Protocol)))
        self.assertEqual(self.streams.asked, [(carrier, "10.0.0.8", 10250, [], True)])

    def test_through_another_server(self) -> None:
        """
        A node whose agent is elsewhere is dialled through the server that has it, which is told the node's name; but not for a
        stream that came from a server itself.
        """
        link = FakeCarrier()
        self.peers.links["edge-2"] = link
        way = self.ways.way_to("edge-2", "10.0.0.9", 10250)
        self.successResultOf(way.connect(Factory.forProtocol(Protocol)))
        self.assertEqual(self.streams.asked, [(link, "10.0.0.9", 10250, [(b"Yurt-Node", b"edge-2")], False)])
        self.assertEqual(self.no_way("edge-2", local_only=True).word, "unknown-node")

    def test_another_way(self) -> None:
        """
        A link that breaks before the answer, or whose other side has left or is about to, is not the end while another one leads
        to the node: that one is tried, once, and what it says counts.
        """
        mine, theirs = FakeCarrier(), FakeCarrier()
        self.registry.add(agent("edge-1", mine))
        self.peers.links["edge-1"] = theirs
        way = self.ways.way_to("edge-1", "10.0.0.8", 10250)
        self.streams.errors[mine] = ConnectRefused(502, "BadGateway", "not-connected", "the stream was lost before an answer")
        self.successResultOf(way.connect(Factory.forProtocol(Protocol)))
        self.assertEqual([words[0] for words in self.streams.asked], [mine, theirs])
        self.assertIsNone(self.value("refused_total", reason="not-connected"))
        self.streams.errors[theirs] = ConnectRefused(503, "ServiceUnavailable", "draining", "the agent is about to stop")
        error = self.failureResultOf(way.connect(Factory.forProtocol(Protocol)), ConnectRefused).value
        self.assertEqual(error.word, "draining")
        self.assertEqual(len(self.streams.asked), 4)
        self.assertEqual(self.value("refused_total", reason="draining"), 1)

    def test_silent_link(self) -> None:
        """
        A link that owes a sign of life is taken when there is no other one, or when that does no better.
        """
        mine, theirs = FakeCarrier(), FakeCarrier()
        self.registry.add(agent("edge-1", mine))
        way = self.ways.way_to("edge-1", "10.0.0.8", 10250)
        chosen = []
        for self.peers.links["edge-1"], mine.silent_for, theirs.silent_for in (
            (theirs, 0.5, 0.0), (theirs, 2.5, 0.0), (theirs, 2.5, 2.5), (mine, 2.5, 0.0),
        ):  # fmt: skip
            chosen.append(way.find()[0])
        self.assertEqual(chosen, [mine, theirs, mine, mine])

    def test_silence_meanwhile(self) -> None:
        """
        A stream that gets no answer, by a link from which nothing comes any more, is given up for another way; one that only
        takes its time is not.
        """
        mine, theirs = FakeCarrier(), FakeCarrier()
        self.registry.add(agent("edge-1", mine))
        self.peers.links["edge-1"] = theirs
        self.streams.unanswered.append(mine)
        way = self.ways.way_to("edge-1", "10.0.0.8", 10250)
        slow = way.connect(Factory.forProtocol(Protocol))
        self.clock.advance(DOUBT_AFTER)
        self.assertNoResult(slow)
        waiting = way.connect(Factory.forProtocol(Protocol))
        mine.silent_for = 2.5
        self.clock.advance(DOUBT_AFTER)
        self.successResultOf(waiting)
        self.assertEqual([words[0] for words in self.streams.asked], [mine, mine, theirs])
        slow.cancel()
        self.failureResultOf(slow, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_early(self) -> None:
        """
        What is written before the answer is lost with the link, so nothing is where that may be cut; without another link there
        is nothing to wait for.
        """
        mine, theirs = FakeCarrier(), FakeCarrier()
        self.registry.add(agent("edge-1", mine))
        way = self.ways.way_to("edge-1", "10.0.0.8", 10250, early=True)
        for theirs_is_there, mine.heard_at in ((False, 0.0), (True, 999.0), (True, 990.0)):
            if theirs_is_there:
                self.peers.links["edge-1"] = theirs
            self.successResultOf(way.connect(Factory.forProtocol(Protocol)))
        self.assertEqual(
            [(carrier, early) for carrier, *_, early in self.streams.asked], [(mine, True), (mine, True), (mine, False)]
        )
        self.streams.unanswered.append(mine)
        waiting = way.connect(Factory.forProtocol(Protocol))
        mine.silent_for = 2.5
        self.clock.advance(DOUBT_AFTER)
        self.successResultOf(waiting)
        self.assertIs(self.streams.asked[-1][0], theirs)

    def test_no_other_way(self) -> None:
        """
        What the node itself refuses no other link would give, and without another link the first refusal counts.
        """
        mine, theirs = FakeCarrier(), FakeCarrier()
        self.registry.add(agent("edge-1", mine))
        self.peers.links["edge-1"] = theirs
        way = self.ways.way_to("edge-1", "10.0.0.8", 10250)
        self.streams.errors[mine] = ConnectRefused(502, "BadGateway", "refused", "connection refused")
        self.failureResultOf(way.connect(Factory.forProtocol(Protocol)), ConnectRefused)
        self.peers.links.clear()
        self.streams.errors[mine] = ConnectRefused(502, "BadGateway", "not-connected", "the stream was lost")
        error = self.failureResultOf(way.connect(Factory.forProtocol(Protocol)), ConnectRefused).value
        self.assertEqual(error.message, "the stream was lost")
        self.assertEqual([words[0] for words in self.streams.asked], [mine, mine])

    def test_kept_way_finds_the_newest_connection(self) -> None:
        """
        A way that is kept, as pools of connections do, follows its node from one connection to the next, and fails while
        there is none.
        """
        first, second = agent("edge-1"), agent("edge-1")
        self.registry.add(first)
        way = self.ways.way_to("edge-1", "10.0.0.8", 10250)
        self.registry.remove(first, self.clock.seconds(), "connection reset")
        error = self.failureResultOf(way.connect(Factory.forProtocol(Protocol)), NoWay).value
        self.assertEqual((error.status, error.reason, error.word), (503, "ServiceUnavailable", "not-connected"))
        self.registry.add(second)
        self.successResultOf(way.connect(Factory.forProtocol(Protocol)))
        self.assertIs(self.streams.asked[0][0], second.mux)

    def test_not_connected_says_since_when_and_why(self) -> None:
        """
        The message for an absent node tells when its connection ended and why.
        """
        one = agent("edge-1")
        self.registry.add(one)
        self.registry.remove(one, self.clock.seconds(), "no sign of life for 15 s")
        self.clock.advance(42)
        error = self.no_way("edge-1")
        self.assertEqual((error.status, error.word), (503, "not-connected"))
        self.assertEqual(
            error.message,
            "node edge-1 is not connected: its agent's connection ended 42 s ago (no sign of life for 15 s)",
        )

    def test_node_of_the_cluster_that_never_came(self) -> None:
        """
        A Node of the cluster whose agent was never here is not connected, rather than unknown.
        """
        self.cluster["edge-1"] = True
        self.clock.advance(200)
        error = self.no_way("edge-1")
        self.assertEqual((error.status, error.word), (503, "not-connected"))
        self.assertIn("has not been here since this server started 3 min ago", error.message)
        self.assertNotIn("labels", error.message)
        self.ways.wants_agent = lambda node: node != "edge-1"
        self.assertIn("; by its labels it needs none: it is to be reached directly", self.no_way("edge-1").message)

    def test_unknown_node(self) -> None:
        """
        A name that is no Node's is unknown, and so is one that never came when the cluster cannot be asked.
        """
        self.cluster["edge-9"] = False
        for name in ("edge-9", "edge-10"):
            error = self.no_way(name)
            self.assertEqual((error.status, error.reason, error.word), (404, "NotFound", "unknown-node"))
            self.assertIn(name, error.message)

    def test_leaving_agent(self) -> None:
        """
        A node whose only connection is on its way out cannot be reached, and the message says so.
        """
        self.registry.add(agent("edge-1", FakeCarrier(peer_going_away=True)))
        self.assertIn("leaving", self.no_way("edge-1").message)

    def test_measured(self) -> None:
        """
        A dial, its first byte and a refusal each leave their mark; the protocol gets every byte itself.
        """
        self.registry.add(agent("edge-1"))
        received: list[bytes] = []

        class Receiver(Protocol):
            def dataReceived(self, data: bytes) -> None:
                received.append(data)

        way = self.ways.way_to("edge-1", "10.0.0.8", 10250)
        protocol = self.successResultOf(way.connect(Factory.forProtocol(Receiver)))
        self.clock.advance(0.3)
        protocol.dataReceived(b"one")
        protocol.dataReceived(b"two")
        self.assertEqual(received, [b"one", b"two"])
        self.assertEqual((self.value("dial_duration_seconds_count"), self.value("first_byte_seconds_count")), (1, 1))
        self.assertAlmostEqual(self.value("first_byte_seconds_sum") or 0.0, 0.3)
        self.streams.error = NoWay(504, "Timeout", "timeout", "no answer")
        self.failureResultOf(way.connect(Factory.forProtocol(Receiver)), NoWay)
        self.assertEqual(self.value("refused_total", reason="timeout"), 1)
