"""
How many connections each door may hold, so that open files do not run out: not by what pods do, in particular.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_CONNECTIONS = 2000
"""Connections to one loopback address of the proxy."""

MAX_POD_CONNECTIONS = 500
"""Connections to one address that pods reach."""

KEPT_FILES = 200
"""Files that are left for the disk, the log, the admin pages, probes, children, and connections that are being refused."""

POD_SHARE = 4
"""Pods get one part in so many of what a process with few files has."""


@dataclass(frozen=True, slots=True)
class Shares:
    """
    Connections that one loopback address, and one address that pods reach, may hold.
    """

    loopback: int
    pods: int


def share_files(open_files: int, loopback_addresses: int, pod_addresses: int) -> Shares:
    """
    Share ``open_files`` out.  Behind every connection of a client there may be one to the cloud.
    """
    connections = max(0, open_files - KEPT_FILES) // 2
    pods = min(MAX_POD_CONNECTIONS, connections // POD_SHARE // max(1, pod_addresses))
    left = connections - pods * pod_addresses
    return Shares(max(1, min(MAX_CONNECTIONS, left // max(1, loopback_addresses))), max(1, pods))
