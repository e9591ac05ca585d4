"""
A real disk that is full, or cannot be written.
"""

from __future__ import annotations

import os
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.cache.fixtures import CONFIG_MAPS, KUBELET, Cache, item, listed, names
from yurt.hub.cache import ViewKey
from yurt.hub.cache.store import COMMIT_INTERVAL, REOPEN_INTERVAL

VIEW = ViewKey(KUBELET, CONFIG_MAPS)


class SmallDiskTests(SynchronousTestCase):
    """
    A file system of one MiB.
    """

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        os.mkdir(self.path)
        if os.geteuid() != 0:
            self.skipTest("only root can mount a small disk")
        self.mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", self.path)
        self.addCleanup(subprocess.run, ["umount", "-l", self.path], check=True)

    def mount(self, *words: str) -> None:
        """
        Call mount, or skip where not even root may.
        """
        done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            self.skipTest(f"cannot mount: {done.stderr.strip()}")

    def folder(self) -> str:
        """
        The store's folder on the small disk.
        """
        return os.path.join(self.path, "cache")

    def fill(self) -> str:
        """
        Leave no room; returns the file to remove to make some.
        """
        ballast = os.path.join(self.path, "ballast")
        with self.assertRaises(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        return ballast

    def test_full(self) -> None:
        """
        When the disk is full, all stays readable and new lists are served from memory; when there is room, they are written.
        """
        cache = Cache(self.folder())
        self.addCleanup(cache.crash)
        cache.views.store_list(VIEW, listed(10, item("a", 5)), requested_version="")
        self.assertTrue(self.successResultOf(cache.store.flush()))
        ballast = self.fill()
        big = [item(f"b{number}", 11, data="x" * 1000) for number in range(100)]
        cache.views.store_list(VIEW, listed(20, *big), requested_version="")
        cache.clock.pump([COMMIT_INTERVAL] * 3)
        self.assertIn("No space left", cache.store.problem or "")
        self.assertGreaterEqual(cache.store.write_errors, 1)
        self.assertEqual(len(names(cache.views, VIEW) or []), 100)
        os.remove(ballast)
        cache.clock.advance(COMMIT_INTERVAL)
        self.assertIsNone(cache.store.problem)
        self.successResultOf(cache.store.close())
        again = Cache(self.folder())
        self.addCleanup(again.crash)
        self.assertEqual(len(names(again.views, VIEW) or []), 100)

    def test_full_from_the_start(self) -> None:
        """
        A disk without room for the file is a problem that goes away with it.
        """
        ballast = self.fill()
        cache = Cache(self.folder())
        self.addCleanup(cache.crash)
        cache.views.store_list(VIEW, listed(10, item("a", 5)), requested_version="")
        cache.clock.pump([COMMIT_INTERVAL] * 3)
        self.assertIsNotNone(cache.store.problem)
        self.assertEqual(names(cache.views, VIEW), ["a"])
        os.remove(ballast)
        cache.clock.pump([REOPEN_INTERVAL, COMMIT_INTERVAL, COMMIT_INTERVAL])
        self.assertIsNone(cache.store.problem)
        cache.crash()
        again = Cache(self.folder())
        self.addCleanup(again.crash)
        self.assertEqual(names(again.views, VIEW), ["a"])

    def test_no_more_files(self) -> None:
        """
        A disk with room, but for no further file, is told as what it is, and used when files are removed.
        """
        os.mkdir(self.folder())
        other = os.path.join(self.path, "other")
        with open(other, "wb"):
            self.mount("-o", "remount,nr_inodes=3", self.path)
        cache = Cache(self.folder())
        self.addCleanup(cache.crash)
        self.assertIn("No space left", cache.store.problem or "")
        self.mount("-o", "remount,nr_inodes=9", self.path)
        cache.clock.pump([REOPEN_INTERVAL, COMMIT_INTERVAL])
        self.assertIsNone(cache.store.problem)

    def test_read_only(self) -> None:
        """
        A disk that is read-only is read from, goes on in memory, and is written again when it can be.
        """
        cache = Cache(self.folder())
        cache.views.store_list(VIEW, listed(10, item("a", 5)), requested_version="")
        self.successResultOf(cache.store.close())
        self.mount("-o", "remount,ro", self.path)
        cache = Cache(self.folder())
        self.addCleanup(cache.crash)
        self.assertIn("cannot be written", cache.store.problem or "")
        self.assertEqual(names(cache.views, VIEW), ["a"])
        cache.views.store_list(VIEW, listed(20, item("b", 11)), requested_version="")
        self.assertEqual(names(cache.views, VIEW), ["b"])
        self.assertFalse(self.successResultOf(cache.store.flush()))
        self.mount("-o", "remount,rw", self.path)
        cache.clock.pump([REOPEN_INTERVAL, COMMIT_INTERVAL])
        self.assertIsNone(cache.store.problem)
        cache.crash()
        again = Cache(self.folder())
        self.addCleanup(again.crash)
        self.assertEqual(names(again.views, VIEW), ["b"])
        self.assertEqual(again.views.objects, 1)
