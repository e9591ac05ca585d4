"""
``python -m bench.hub ROW...``: measure, compare, print; exit 1 when a figure is not reached.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

from bench.hub import cut, fanout, memory, offline, online
from bench.hub.figures import Figure

ROWS: dict[str, Callable[[], Iterator[Figure]]] = {
    "small-get": online.small_get,
    "small-get-cached": online.small_get_cached,
    "latency": online.latency,
    "bulk": online.bulk,
    "offline-get": offline.get,
    "offline-list": offline.list_,
    "offline-start": offline.start,
    "silent-cut": cut.silent_cut,
    "rss": memory.rss,
    "watch-fanout": fanout.watch_fanout,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.hub", description="The figures of the hub, measured here and now.")
    parser.add_argument("rows", nargs="+", choices=[*ROWS, "all"], metavar="ROW", help=", ".join([*ROWS, "all"]))
    rows = parser.parse_args().rows
    names = list(ROWS) if "all" in rows else rows
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.2f}")
    failed = 0
    for name in names:
        print(f"{name}:", flush=True)
        try:
            for figure in ROWS[name]():
                print(figure, flush=True)
                failed += not figure.passed
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            print(f"FAIL  not measured: {error}", flush=True)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
