"""
Tests of the registry of agents.
"""

from twisted.trial.unittest import SynchronousTestCase

from tests.tunnel.server.fakes import FakeCarrier, agent
from yurt.tunnel.server.registry import MAX_REMEMBERED_NODES, Departure, Registry


class RegistryTests(SynchronousTestCase):
    """
    Tests of Registry.
    """

    def setUp(self) -> None:
        self.registry = Registry()
        self.told: list[tuple[str, bool]] = []
        self.registry.subscribe(lambda node, connected: self.told.append((node, connected)))

    def test_newest_first(self) -> None:
        """
        A newer connection of a node takes its new streams; the older ones are handed to the caller and stay listed.
        """
        first, second = agent("edge-1"), agent("edge-1")
        self.assertEqual(self.registry.add(first), [])
        self.assertEqual(self.registry.add(second), [first])
        self.assertIs(self.registry.newest("edge-1"), second)
        self.assertEqual(list(self.registry.agents()), [second, first])
        self.assertEqual((len(self.registry), self.registry.nodes()), (1, ["edge-1"]))

    def test_leaving_agents_get_no_streams(self) -> None:
        """
        A connection that either side is about to end is passed over for one that goes on.
        """
        for leaving in (FakeCarrier(closing=True), FakeCarrier(peer_going_away=True)):
            registry = Registry()
            staying = agent("edge-1")
            registry.add(staying)
            registry.add(agent("edge-1", leaving))
            self.assertIs(registry.newest("edge-1"), staying)
            registry.remove(staying, 1.0, "lost")
            self.assertIsNone(registry.newest("edge-1"))
            self.assertTrue(registry.connected("edge-1"))

    def test_departure(self) -> None:
        """
        Only the end of the last connection makes a node absent, and when and why is remembered until it is back.
        """
        first, second = agent("edge-1"), agent("edge-1")
        self.registry.add(first)
        self.registry.add(second)
        self.registry.remove(first, 1.0, "replaced")
        self.assertIsNone(self.registry.last_seen("edge-1"))
        self.registry.remove(second, 2.0, "no sign of life for 15 s")
        self.assertEqual(self.registry.last_seen("edge-1"), Departure(2.0, "no sign of life for 15 s"))
        self.registry.add(agent("edge-1"))
        self.assertIsNone(self.registry.last_seen("edge-1"))

    def test_subscribers(self) -> None:
        """
        Subscribers hear of the first connection of a node and of the end of its last, and of nothing between.
        """
        first, second = agent("edge-1"), agent("edge-1")
        self.registry.add(first)
        self.registry.add(second)
        self.registry.remove(first, 1.0, "")
        self.assertEqual(self.told, [("edge-1", True)])
        self.registry.remove(second, 1.0, "")
        self.registry.remove(second, 1.0, "")
        self.assertEqual(self.told, [("edge-1", True), ("edge-1", False)])

    def test_memory_is_bounded(self) -> None:
        """
        Of more absent nodes than the bound the oldest departures are forgotten.
        """
        for number in range(MAX_REMEMBERED_NODES + 1):
            one = agent(f"edge-{number}")
            self.registry.add(one)
            self.registry.remove(one, float(number), "lost")
        self.assertIsNone(self.registry.last_seen("edge-0"))
        self.assertEqual(self.registry.last_seen("edge-1"), Departure(1.0, "lost"))
