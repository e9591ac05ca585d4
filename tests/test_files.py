"""
Tests of files that are replaced as a whole.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from yurt.files import write_private


class WritePrivateTests(SynchronousTestCase):
    """
    Tests of write_private.
    """

    def test_new(self) -> None:
        """
        A file is made, with the folders on the way, for its owner alone, whatever the umask.
        """
        path = Path(self.mktemp()) / "deep" / "key"
        self.addCleanup(os.umask, os.umask(0))
        write_private(path, b"one")
        modes = [one.stat().st_mode & 0o777 for one in (path, path.parent)]
        self.assertEqual((path.read_bytes(), modes), (b"one", [0o600, 0o700]))

    def test_replaced(self) -> None:
        """
        A file is replaced, also where a crash left a half-written one behind, and nothing lies beside it afterwards.
        """
        path = Path(self.mktemp()) / "key"
        write_private(path, b"one")
        path.with_name(".key.new").write_bytes(b"tw")
        write_private(path, b"two")
        self.assertEqual((path.read_bytes(), os.listdir(path.parent)), (b"two", ["key"]))

    def test_refused(self) -> None:
        """
        Where there is no folder to be had, OSError says which.
        """
        blocked = Path(self.mktemp())
        blocked.write_text("no folder")
        error = self.assertRaises(OSError, write_private, blocked / "key", b"one")
        self.assertIn(str(blocked), str(error))

    def test_full(self) -> None:
        """
        A disk that is full while the file is written is told with the file's name, which the system does not say.
        """

        def fsync(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(os, "fsync", fsync)
        path = Path(self.mktemp())
        error = self.assertRaises(OSError, write_private, path, b"one")
        self.assertEqual((error.errno, error.filename), (errno.ENOSPC, str(path)))
        self.assertFalse(path.exists())
