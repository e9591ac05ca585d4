"""
``python -m bench.hub ROW...``: measure, compare, print; exit 1 when a figure is not reached.
"""

from __future__ import annotations

import sys

from bench.hub import cut, fanout, filters, memory, offline, online
from bench.rows import run

ROWS = {
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
    "filtered-list": filters.filtered_list,
    "filtered-watch": filters.filtered_watch,
}

if __name__ == "__main__":
    sys.exit(run("bench.hub", "The figures of the hub, measured here and now.", ROWS))
