"""
``python -m bench.firewall ROW...``: the rules of 5,000 nodes, in a network namespace of their own; as root.  Exit 1 when a figure
is not reached.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from bench.figures import Figure, at_least, at_most, median
from bench.firewall.life import NODES, SAMPLE
from bench.rows import run

BOUND = 300.0
"""Seconds after which a measurement is given up."""


def measure(flavour: str) -> Iterator[Figure]:
    """
    The figures of one flavour.
    """
    command = ["unshare", "--net", sys.executable, "-m", "bench.firewall.life", flavour]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2] or done.stdout.strip().rpartition("\n")[2])
    found = json.loads(done.stdout)
    first, checks, calls = (found[name] for name in ("first", "checks", "calls"))
    yield at_most(f"first set-up, {NODES:,} nodes", first, "s", 2.0)
    by_calls = f"{calls * NODES:.0f} s: {calls:.3f} s a node, measured with {SAMPLE} nodes"
    yield at_least("calls of iptables for the same / first set-up", calls * NODES / first, "x", 100, by_calls)
    for name, when in (("alone", "alone"), ("row", "in a row")):
        changes, news, processor = (found[name][key] for key in ("changes", "news", "processor"))
        slowest = (
            f"slowest {max(changes):.3f} s; {processor:.3f} s of a processor each; "
            f"{median(changes) / calls:.2f} of what calls of iptables take for one node"
        )
        yield at_most(f"a node comes or goes, {when}, median of {len(changes)}", median(changes), "s", 0.3, slowest)
        yield at_most(f"from its news to the kernel, {when}, slowest", max(news), "s", 0.5)
    yield at_most(f"a look at all rules, median of {len(checks)}", median(checks), "s", 2.0)
    yield at_most("removal of all", found["stop"], "s", 5.0)


ROWS = {"nf_tables": partial(measure, "nft"), "legacy": partial(measure, "legacy")}

if __name__ == "__main__":
    sys.exit(run("bench.firewall", "What the tunnel's firewall rules cost, measured here and now.", ROWS))
