"""
The meta pages that both daemons have: health, readiness, status, metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry
from twisted.web.resource import Resource

from yurt.web import QuietSite, json_page, metrics_page, text_page


def pages(
    readiness: Callable[[], tuple[bool, Mapping[str, object]]],
    status: Callable[[], Mapping[str, object]],
    registry: CollectorRegistry,
) -> QuietSite:
    """
    The site with ``/v1/healthz``, ``/v1/readyz``, ``/v1/status`` and ``/metrics``.  ``readiness`` tells also what to show.
    """

    def ready() -> tuple[int, object]:
        is_ready, shown = readiness()
        return (200 if is_ready else 503), shown

    version = Resource()
    version.putChild(b"healthz", text_page(lambda: (200, "OK")))
    version.putChild(b"readyz", json_page(ready))
    version.putChild(b"status", json_page(lambda: (200, status())))
    root = Resource()
    root.putChild(b"v1", version)
    root.putChild(b"metrics", metrics_page(registry))
    return QuietSite(root)
