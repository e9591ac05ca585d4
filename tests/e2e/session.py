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
from .process import E2EError, cannot_run, require

LOCK = "/run/lock/y2e.lock"
LOCK_TIMEOUT = 1800.0


@cache
def _only_run() -> IO[str]:
    """
    Wait until no other test run of this machine has a cluster.
    """
    lock = open(LOCK, "w")
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise E2EError(f"another test run holds {LOCK}") from None
            time.sleep(1)


_failures: list[BaseException] = []


@cache
def _started() -> Cluster:
    _only_run()
    leftovers.clean_after_dead_runs()
    cluster = Cluster()
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
