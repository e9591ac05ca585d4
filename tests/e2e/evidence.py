"""
What a failed test leaves to whoever has nothing but the printed output: the state of the cluster, and the ends of the logs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.python.failure import Failure
from twisted.trial.reporter import TestResultDecorator

TROUBLE = re.compile(r"Traceback|Unhandled|CRITICAL|#critical")
ENTRY = re.compile(r"^\d{4}-\d\d-\d\dT", re.MULTILINE)
"""Begins an entry in a log of ours; a traceback has lines of its own."""
TROUBLE_BYTES = 4000
LOGS = ("log/*.log", "edge-*/*.log")
"""Where daemons of a cluster write, below its folder."""
SPOKEN = ("kubelet", "yurt", "ycm")
"""Begin the names of the logs that tell most: they come last, and the gist has nothing of others."""
NOISE = re.compile("Using node IP|perf_event cgroup path")
"""What a kubelet says every other second, whatever happens."""
READ_BYTES = 1 << 18
"""Of each log so much is looked at."""
TAIL_BYTES, TAIL_LINE = 6000, 400
"""Of each log so much is shown at the failure."""
EXCERPT_BYTES, EXCERPT_LINE = 1600, 160
"""Of all together so much once more at the run's end."""


def trouble(said: str) -> str:
    """
    The first mishap that a log of ours tells of, from the begin of its entry to the end; empty if there is none.
    """
    found = TROUBLE.search(said)
    if found is None:
        return ""
    begin = max((entry.start() for entry in ENTRY.finditer(said, 0, found.end())), default=found.start())
    following = ENTRY.search(said, found.end())
    return said[begin : following.start() if following else len(said)].strip()[:TROUBLE_BYTES]


class Logs:
    """
    The logs below a folder, from now on.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._starts = {path: path.stat().st_size for path in self._paths()}

    def _paths(self) -> list[Path]:
        found = [path for pattern in LOGS for path in self._folder.glob(pattern)]
        return sorted(found, key=lambda path: (path.name.startswith(SPOKEN), path))

    def news(self, size: int, width: int) -> dict[str, str]:
        """
        The last lines of each log that grew, ``size`` bytes at most and each line cut to ``width`` characters, by the log's name.
        """
        found = {}
        for path in self._paths():
            if text := _tail(path, self._starts.get(path, 0), size, width):
                found[path.stem if path.parent.name == "log" else f"{path.stem} of {path.parent.name}"] = text
        return found


def _tail(path: Path, start: int, size: int, width: int) -> str:
    with open(path, "rb") as file:
        end = file.seek(0, 2)
        file.seek(max(start, end - READ_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    kept: list[str] = []
    for line in reversed([line for line in lines if not NOISE.search(line)]):
        size -= len(line[:width]) + 1
        if size < 0:
            break
        kept.insert(0, line[:width])
    return "\n".join(kept)


def report(news: dict[str, str]) -> str:
    """
    Pieces of text, each below its name.
    """
    return "\n".join(f"-- {name}\n{text}" for name, text in news.items())


class Witness(TestResultDecorator):
    """
    Between a test and its reporter: at the first failure prints what the logs and ``state`` tell, and gives the gist to
    the exception as its ``evidence``.
    """

    def __init__(self, original: Any, logs: Logs, state: Callable[[], str]) -> None:
        super().__init__(original)
        self._logs, self._state, self._told = logs, state, False

    def _tell(self, problem: Failure) -> None:
        if self._told:
            return
        self._told = True
        try:
            state = self._state()
        except Exception as obstacle:  # whatever it is, it must not hide what the test failed of
            state = f"not told: {obstacle!r}"
        news = self._logs.news(TAIL_BYTES, TAIL_LINE)
        print(f"\n{report({'the cluster': state, **news})}", flush=True)
        ours = [name for name in news if name.startswith(SPOKEN)]
        share = EXCERPT_BYTES // (len(ours) + 1)
        news = self._logs.news(share, EXCERPT_LINE)
        cast(Any, problem.value).evidence = report({"the cluster": state[:share], **{name: news[name] for name in ours}})

    def addError(self, test: Any, error: Failure) -> None:
        self._tell(error)
        self._originalReporter.addError(test, error)

    def addFailure(self, test: Any, fail: Failure) -> None:
        self._tell(fail)
        self._originalReporter.addFailure(test, fail)
