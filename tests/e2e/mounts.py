"""
A mount namespace for this process and its children.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from .process import libc

CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
"""From linux/sched.h and linux/mount.h."""

POD_LOGS = ("/var/log/pods", "/var/log/containers")
"""Where every kubelet keeps the logs of its pods, whatever its --root-dir."""


def _check(status: int, what: str) -> None:
    if status:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def keep_pod_logs_in(folder: Path) -> None:
    """
    From now on the logs of pods are in ``folder`` for this process and its children: a kubelet removes those of pods that it
    does not know, also while another node's pod writes them.  Raises OSError.
    """
    _check(libc.unshare(CLONE_NEWNS), "unshare")
    _check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount --make-rprivate /")
    for place in POD_LOGS:
        own = folder / Path(place).name
        for path in (own, Path(place)):
            path.mkdir(parents=True, exist_ok=True)
        _check(libc.mount(os.fsencode(own), os.fsencode(place), None, MS_BIND, None), f"mount --bind {own} {place}")
