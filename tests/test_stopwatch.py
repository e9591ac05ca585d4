"""
Tests of the stopwatch that promises of seconds are held against.
"""

import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests import stopwatch
from tests.stopwatch import Stopwatch


class StopwatchTests(SynchronousTestCase):
    """
    Tests with times and pressures made here.
    """

    def setUp(self) -> None:
        self.now = 1000.0
        self.pressure = Path(self.mktemp())
        self.pressure.parent.mkdir(parents=True, exist_ok=True)
        self.patch(stopwatch, "PRESSURE", self.pressure)
        self.patch(time, "monotonic", lambda: self.now)
        self.press(7.0)

    def press(self, seconds: float) -> None:
        """
        Tasks have waited for so long since the machine started.
        """
        some = f"some avg10=1.00 avg60=0.50 avg300=0.25 total={int(seconds * 1e6)}"
        self.pressure.write_text(f"{some}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")

    def test_quiet(self) -> None:
        """
        On a quiet machine all time counts.
        """
        watch = Stopwatch()
        self.now += 3.0
        self.assertEqual((watch.elapsed, watch.net(), watch.net(2.0), watch.part), (3.0, 3.0, 2.0, 1.0))

    def test_busy(self) -> None:
        """
        Time in which tasks waited for a processor does not count, but a quarter always does.
        """
        watch = Stopwatch()
        self.now += 4.0
        self.press(8.0)
        self.assertEqual((watch.elapsed, watch.net(), watch.part), (4.0, 3.0, 0.75))
        self.assertEqual(str(watch), "4.00 s, of which 3.00 s count")
        self.press(11.0)
        self.assertEqual((watch.net(), watch.net(2.0)), (1.0, 0.5))

    def test_kernel_does_not_tell(self) -> None:
        """
        Where the kernel tells of no pressure all time counts.
        """
        self.pressure.unlink()
        watch = Stopwatch()
        self.now += 3.0
        self.assertEqual(watch.net(), 3.0)
