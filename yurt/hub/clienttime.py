"""
When the hub answers in the place of a cloud that shows life and does not answer, so that the client still hears it.

Clients of Kubernetes' own library tell how long they wait in the query (``timeout=10s``): kubelet does so with all that it asks
about its node, and with nothing else.
"""

from __future__ import annotations

from math import inf

from yurt.kube.requestinfo import RequestInfo
from yurt.options import duration

SHARE = 0.8
"""What a request waits for the cloud, of its client's time; the rest is for the hub's answer, which may go by the disk."""

KEPT_AFTER = 8.0
"""Seconds that a write which can be kept waits for the cloud at most: kubelet waits 10 s for the status of its node, and reports
those of pods one after the other."""

KEPT_GRACE = 1.0
"""Seconds that such a write waits for the first verdict on the cloud: as soon as that is good, what was kept is sent."""


def time_of(info: RequestInfo) -> float:
    """
    Seconds that the client waits for its answer; infinity where it does not tell.
    """
    given = info.query.get("timeout")
    if not given:
        return inf
    try:
        return duration(given) or inf
    except ValueError:
        return inf
