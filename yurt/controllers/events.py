"""
Events: what a controller tells people about an object.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from urllib.parse import quote

from yurt.controllers.controller import CREATE, Write
from yurt.kube.api import Document

CLUSTER_NAMESPACE = "default"
"""Where the Events of objects without a namespace are, as kubectl looks for them."""
MAX_MESSAGE = 1024
"""Characters of an Event's message that API servers take."""
MAX_NAME = 200
"""Characters of the object's name that get into the Event's."""


def warning(component: str, about: Document, reason: str, message: str, now: float) -> Write:
    """
    Tell once that something is not as it should be with the object that the reference ``about`` names.

    The Event's name follows from what it says, so that it is not told twice while the first one is there: by default an hour.
    """
    namespace = about.get("namespace") or CLUSTER_NAMESPACE
    said = hashlib.sha256("\0".join((about["uid"], reason, message)).encode()).hexdigest()[:16]
    at = datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": namespace, "name": f"{about['name'][:MAX_NAME].rstrip('-.')}.{said}"},
        "involvedObject": about,
        "type": "Warning",
        "reason": reason,
        "message": message[:MAX_MESSAGE],
        "source": {"component": component},
        "reportingComponent": component,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
    return Write(CREATE, f"/api/v1/namespaces/{quote(namespace, safe='')}/events", event, "event", once=True)
