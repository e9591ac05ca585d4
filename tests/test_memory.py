"""
Tests of the return of memory.
"""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from yurt.memory import TRIM_INTERVAL, ReturnMemory, be_frugal, trim


class ReturnMemoryTests(SynchronousTestCase):
    """
    Tests of ReturnMemory.
    """

    def test_now_and_then(self) -> None:
        """
        Memory is returned once an interval while the service runs.
        """
        clock = Clock()
        calls: list[str] = []
        service = ReturnMemory(clock, lambda: calls.append("trim"))
        service.startService()
        self.assertEqual(calls, [])
        clock.pump([TRIM_INTERVAL] * 3)
        self.assertEqual(calls, ["trim"] * 3)
        service.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_this_c_library(self) -> None:
        """
        Whatever the C library offers, the calls work.
        """
        be_frugal()
        trim()
