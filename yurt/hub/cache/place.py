"""
Whether an open file is still the one that its name leads to: people remove the folder of a running hub's cache, or put another
file there.  What is open then lives on in memory only, and would be gone after the next start.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import lmdb


class FileGone(OSError):
    """
    The name of an open file leads nowhere, or to another one.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(errno.ENOENT, f"{path.name} was removed or replaced while it was in use", str(path))


class Place:
    """
    The name of a file, and the file that it leads to now, which is held open: on some filesystems the number of a file that
    nobody has open may change.  :meth:`check` is for the thread that writes to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._file).st_size

    def close(self) -> None:
        """
        Let go of the file.
        """
        os.close(self._file)

    def check(self) -> None:
        """
        Raise FileGone if the file is no longer there, and lmdb.CorruptedError if somebody cut its end off: touching what is gone
        would kill the process.
        """
        try:
            seen = self.path.stat()
        except OSError:
            raise FileGone(self.path) from None
        if not os.path.samestat(seen, os.fstat(self._file)):
            raise FileGone(self.path)
        if seen.st_size < self._size:
            raise lmdb.CorruptedError(f"cut from {self._size} to {seen.st_size} bytes while it was in use")
        self._size = seen.st_size
