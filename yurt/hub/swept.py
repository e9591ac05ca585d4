"""
What sweeps of the cache did, for the metrics.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Swept:
    """
    What sweeps have removed since the start; ``refused`` counts those that would have removed every pod.
    """

    sweeps: int = 0
    removed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("pods", "events", "components", "views"), 0))
    refused: int = 0
    usage: dict[str, int] = field(default_factory=dict)
    """Bytes that each component's views hold, by the last look."""
