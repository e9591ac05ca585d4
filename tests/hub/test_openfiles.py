"""
Tests of how open files are shared out.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from yurt.hub.openfiles import KEPT_FILES, MAX_CONNECTIONS, MAX_POD_CONNECTIONS, Shares, share_files


class ShareTests(SynchronousTestCase):
    """
    Tests of share_files.
    """

    def test_plenty(self) -> None:
        """
        Where files abound each door has its full measure, that of pods a smaller one.
        """
        self.assertEqual(share_files(65536, 1, 2), Shares(MAX_CONNECTIONS, MAX_POD_CONNECTIONS))
        self.assertLess(MAX_POD_CONNECTIONS, MAX_CONNECTIONS)

    def test_never_more_than_there_are(self) -> None:
        """
        All doors full, and a connection to the cloud for each client: still files are left, and pods have the smaller part.
        """
        for files in (1024, 4096, 8192):
            for loopback in (1, 2, 5):
                for pods in (0, 1, 2):
                    shares = share_files(files, loopback, pods)
                    clients = shares.loopback * loopback + shares.pods * pods
                    self.assertLessEqual(2 * clients, files - KEPT_FILES)
                    self.assertLess(shares.pods * pods, shares.loopback * loopback)

    def test_next_to_none(self) -> None:
        """
        Even with hardly any files somebody can connect.
        """
        self.assertEqual(share_files(64, 1, 1), Shares(1, 1))
