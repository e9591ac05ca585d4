"""
``python -m bench.tunnel ROW...``: measure, compare, print; exit 1 when a figure is not reached.
"""

from __future__ import annotations

import sys

from bench.rows import run
from bench.tunnel import bulk, connect, diverted, fleet, interactive, memory

ROWS = {
    "bulk": bulk.bulk,
    "connect": connect.connect,
    "diverted": diverted.diverted,
    "keystroke": interactive.keystroke,
    "stalled-reader": interactive.stalled_reader,
    "idle-agents": fleet.idle_agents,
    "reconnect": fleet.reconnect,
    "rss": memory.rss,
}

if __name__ == "__main__":
    sys.exit(run("bench.tunnel", "The figures of the tunnel, measured here and now.", ROWS))
