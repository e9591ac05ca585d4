"""
Tests of what a daemon measures of itself.
"""

from prometheus_client import CollectorRegistry, generate_latest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from yurt.metrics import LAG_INTERVAL, ReactorLag, new_registry


class ReactorLagTests(SynchronousTestCase):
    """
    Tests of ReactorLag.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.registry = CollectorRegistry()
        self.lag = ReactorLag(self.clock, self.registry, "sample")

    def value(self, name: str) -> float | None:
        """
        A sample of the registry.
        """
        return self.registry.get_sample_value(name)

    def test_punctual(self) -> None:
        """
        A reactor that is never late has no lag, counted once an interval.
        """
        self.lag.startService()
        self.clock.pump([LAG_INTERVAL] * 4)
        self.assertEqual(self.value("sample_reactor_lag_seconds_count"), 4)
        self.assertEqual(self.value("sample_reactor_lag_seconds_sum"), 0)
        self.lag.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late(self) -> None:
        """
        A reactor that was blocked for two seconds says so, the worst case once.
        """
        self.lag.startService()
        self.clock.advance(LAG_INTERVAL + 2)
        self.assertAlmostEqual(self.value("sample_reactor_lag_max_seconds") or 0, 2)
        self.assertEqual(self.value("sample_reactor_lag_max_seconds"), 0)
        self.assertAlmostEqual(self.value("sample_reactor_lag_seconds_sum") or 0, 2)


class RegistryTests(SynchronousTestCase):
    """
    Tests of new_registry.
    """

    def test_process(self) -> None:
        """
        Each registry is new and shows the process.
        """
        text = generate_latest(new_registry())
        self.assertIn(b"process_resident_memory_bytes ", text)
        self.assertIsNot(new_registry(), new_registry())
