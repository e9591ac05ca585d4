"""
The one cluster of a test run.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import time
from functools import cache
from typing import IO

from . import leftovers
from .cluster import NEEDED, Cluster
from .mounts import keep_pod_logs_in
from .process import E2EError, cannot_run, require

LOCKS = tuple(f"/run/lock/y2e-{seat}.lock" for seat in (1, 2, 3))
"""So many test runs of this machine may have a cluster at a time: more would leave too little processor for each."""
LOCK_TIMEOUT = 1800.0


@cache
def _take_seat() -> IO[str]:
    """
    Wait until one of LOCKS is free, and keep it until this process ends.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT
    while time.monotonic() < deadline:
        for path in LOCKS:
            lock = open(path, "w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                lock.close()
        time.sleep(1)
    raise E2EError(f"other test runs hold {', '.join(LOCKS)}")


_failures: list[BaseException] = []


@cache
def _started() -> Cluster:
    _take_seat()
    leftovers.clean_after_dead_runs()
    cluster = Cluster()
    keep_pod_logs_in(cluster.folder)
    atexit.register(cluster.stop)
    try:
        cluster.start()
    except BaseException as problem:
        _failures.append(problem)
        raise
    return cluster


def shared_cluster() -> Cluster:
    """
    The cluster of this test run, made at the first call and ended with the process.  Skips the calling test where it cannot
    be made (no root, programs missing), which in CI is an error.
    """
    require(*NEEDED)
    if os.geteuid() != 0:
        raise cannot_run("network namespaces and containers need root")
    if _failures:
        raise E2EError(f"the cluster did not start: {_failures[0]}")
    return _started()
