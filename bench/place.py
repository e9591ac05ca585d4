"""
A place to measure in: a temporary folder, and what ends with it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from typing_extensions import Self

from bench.children import Child

TWISTD = str(Path(sys.executable).with_name("twistd"))


class Place:
    """
    A context that leaves nothing behind.  Whoever derives from it makes its things in :meth:`prepare`.
    """

    folder: Path

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="yurt-bench-"))
        self._endings: list[Callable[[], object]] = [lambda: shutil.rmtree(self.folder, ignore_errors=True)]
        try:
            self.prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while self._endings:
            self._endings.pop()()

    def prepare(self) -> None:
        """
        Called when the folder is there.
        """

    def at_end(self, ending: Callable[[], object]) -> None:
        """
        Call ``ending()`` at the end; the last one comes first.
        """
        self._endings.append(ending)

    def child(self, name: str, *command: str) -> Child:
        """
        A process that ends with the place.
        """
        child = Child(command, self.folder / f"{name}.log")
        self.at_end(child.stop)
        return child
