"""
Tests of :mod:`yurt.tunnel.agent.patience`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from yurt.tunnel.agent.patience import CONNECT_TIMEOUT, MAX_WAIT, MAX_WAIT_ANSWERED, wait_before

RECOVERY = 5.0
"""Seconds in which an agent is to be back."""


class WaitTests(SynchronousTestCase):
    """
    Tests of the time between attempts.
    """

    def test_first(self) -> None:
        """
        The first attempt comes within a second, whatever failed.
        """
        for answered in (False, True):
            self.assertEqual(wait_before(1, 1.0, answered=answered), 1.0)

    def test_full_jitter(self) -> None:
        """
        Each wait is drawn from nothing up to its limit.
        """
        for failures in range(1, 10):
            self.assertEqual(wait_before(failures, 0.0), 0.0)
            self.assertEqual(wait_before(failures, 0.5) * 2, wait_before(failures, 1.0))

    def test_grows(self) -> None:
        """
        The limit doubles up to its greatest, and stays there however long it lasts.
        """
        self.assertEqual([wait_before(failures, 1.0) for failures in (1, 2, 3, 4, 99, 10**6)], [1, 2, 4, 4, 4, 4])
        self.assertEqual([wait_before(failures, 1.0, answered=True) for failures in (3, 4, 5, 10**6)], [4, 8, 15, 15])

    def test_back_in_time(self) -> None:
        """
        A server that returns is tried in time, also when the attempt that met silence has just begun to end: the kernel's SYN
        of the third second finds a link that was healed before, and the next attempt one healed later.
        """
        self.assertLess(MAX_WAIT, RECOVERY)
        self.assertLess(CONNECT_TIMEOUT - 3.0 + MAX_WAIT, RECOVERY)

    def test_silence(self) -> None:
        """
        After an attempt whose connection was taken in silence the next one comes soon, however many there were.
        """
        self.assertLess(CONNECT_TIMEOUT + max(wait_before(failures, 1.0, silent=True) for failures in (1, 9)), RECOVERY)

    def test_retry_after(self) -> None:
        """
        Nobody comes sooner than the server asked, nor all together, nor later than the greatest wait of all.
        """
        for asked in (0.0, 1.0, 5.0, 10.0, 3600.0):
            first, last = (wait_before(3, chance, answered=True, retry_after=asked) for chance in (0.0, 1.0))
            self.assertGreaterEqual(first, min(asked, MAX_WAIT_ANSWERED / 2))
            self.assertGreaterEqual(last - first, 1.0)
            self.assertLessEqual(last, MAX_WAIT_ANSWERED)
