"""
``twistd yurthub`` whose sweeps do not wait for hours and days, and whose kubelet has its static pods elsewhere; a script, which
takes twistd's arguments.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from twisted.application.service import IService
from twisted.scripts.twistd import run

from yurt.hub import housekeeping, tap

FREQUENCY, CONFIRM_PAUSE, UNSEEN_FOR = 4.0, 1.0, 12.0
"""Seconds between sweeps, before the second look at pods, and until a component is forgotten."""
make_service = tap.makeService


def make_hurried_service(options: tap.Options) -> IService:
    """
    The ordinary one, for this machine.
    """
    folder = os.environ["STATIC_PODS"]
    options.config = replace(options.config, gc_frequency=FREQUENCY, static_pods=folder)
    return make_service(options)


if __name__ == "__main__":
    housekeeping.FIRST_SWEEP = 1.0
    housekeeping.CONFIRM_PAUSE, housekeeping.UNSEEN_FOR = CONFIRM_PAUSE, UNSEEN_FOR
    housekeeping.RETRY_SWEEP = FREQUENCY
    tap.makeService = make_hurried_service
    sys.argv[0] = "twistd"
    run()
