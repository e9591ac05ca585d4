"""
How the files that may be open are shared out among the doors.
"""

from __future__ import annotations

from dataclasses import dataclass

from yurt.tunnel.server.agents import MAX_HANDSHAKES

KEPT_FILES = 200
"""Files that are left for the log, the meta pages, calls of the API server, children and connections that are being refused."""

MAX_AGENTS = 20_000
MAX_DIVERTED = 10_000
MAX_CONNECTIONS = 5_000
"""Connections of agents; diverted connections; connections to each of the other doors."""


@dataclass(frozen=True, slots=True)
class Shares:
    """
    Connections that the agents, the diverted ones, and each of the three other doors may be; and those to the agents' port that
    have not yet said hello.
    """

    agents: int
    diverted: int
    door: int
    handshakes: int


def share_files(open_files: int) -> Shares:
    """
    Share ``open_files`` out: half for agents, an eighth for what is diverted and for hand-shakes, a sixteenth for each other
    door, where the egress socket needs two files for each connection.
    """
    room = max(0, open_files - KEPT_FILES)
    return Shares(
        agents=max(1, min(MAX_AGENTS, room // 2)),
        diverted=max(1, min(MAX_DIVERTED, room // 8)),
        door=max(1, min(MAX_CONNECTIONS, room // 16)),
        handshakes=max(1, min(MAX_HANDSHAKES, room // 8)),
    )
