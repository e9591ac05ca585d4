"""
The rows of a bench: run them by name, print their figures, tell whether all were reached.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping

from bench.figures import Figure

Row = Callable[[], Iterator[Figure]]


def run(prog: str, description: str, rows: Mapping[str, Row]) -> int:
    """
    Measure the rows that the command line names; 1 when a figure is not reached or a row could not be measured, else 0.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {prog}", description=description)
    parser.add_argument("rows", nargs="+", choices=[*rows, "all"], metavar="ROW", help=", ".join([*rows, "all"]))
    chosen = parser.parse_args().rows
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.2f}")
    failed = 0
    for name in list(rows) if "all" in chosen else chosen:
        print(f"{name}:", flush=True)
        try:
            for figure in rows[name]():
                print(figure, flush=True)
                failed += not figure.passed
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            print(f"FAIL  not measured: {error}", flush=True)
            failed += 1
    return 1 if failed else 0
