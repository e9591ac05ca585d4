"""
The pages of the controllers, for 127.0.0.1:10271.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry
from twisted.web.resource import Resource

from yurt.web import QuietSite, json_page, metrics_page, text_page


def pages(
    readiness: Callable[[], list[str]], status: Callable[[], Mapping[str, object]], registry: CollectorRegistry
) -> QuietSite:
    """
    The site with ``/healthz``, ``/readyz``, the same and ``/status`` below ``/v1``, and ``/metrics``.

    ``readiness`` says why the controllers are not ready, one sentence each.
    """

    def ready() -> tuple[int, object]:
        reasons = readiness()
        return (503 if reasons else 200), {"ready": not reasons, "reasons": reasons}

    root, version = Resource(), Resource()
    for parent in (root, version):
        parent.putChild(b"healthz", text_page(lambda: (200, "OK")))
        parent.putChild(b"readyz", json_page(ready))
    version.putChild(b"status", json_page(lambda: (200, status())))
    root.putChild(b"v1", version)
    root.putChild(b"metrics", metrics_page(registry))
    return QuietSite(root)
