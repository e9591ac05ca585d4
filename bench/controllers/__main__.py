"""
``python -m bench.controllers ROW...``: measure, compare, print; exit 1 when a figure is not reached.
"""

from __future__ import annotations

import sys

from bench.controllers import approver, joining
from bench.rows import run

ROWS = {"approver": approver.approver, "joining": joining.joining}

if __name__ == "__main__":
    sys.exit(run("bench.controllers", "The figures of the controllers, measured here and now.", ROWS))
