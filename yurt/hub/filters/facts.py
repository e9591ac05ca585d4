"""
What filters know of the node and its cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Facts:
    """
    One state of what filters depend on.

    ``hub_host`` and ``hub_port`` are where pods reach the hub by HTTPS; no host: nowhere.  ``topology`` holds the topology that
    a Service (``namespace/name``) asks for, of those that ask for any; None while Services are not known.  ``pool`` is the
    node's pool: empty when it is in none, None while that is not known.  ``pool_nodes`` are the nodes of that pool; None when
    there is no such pool, or while it is not known.  ``host_network`` tells whether the pool's pods use the host's network.
    """

    node_name: str
    hub_host: str = ""
    hub_port: int = 0
    topology: Mapping[str, str] | None = field(default=None, hash=False)
    pool: str | None = None
    pool_nodes: frozenset[str] | None = None
    host_network: bool = False
