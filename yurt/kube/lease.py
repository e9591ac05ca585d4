"""
Leases of ``coordination.k8s.io/v1``: how somebody shows that it lives, or that something is its own.

Clocks of machines differ, so the time that stands in a Lease tells nobody whether it is alive: it is for as long after it
was last *seen* to change as it says that it lasts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

API_VERSION = "coordination.k8s.io/v1"


def micro_time(seconds: float) -> str:
    """
    A time of day as Kubernetes' MicroTime.
    """
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def lease_document(namespace: str, name: str, spec: Mapping[str, object], metadata: Mapping[str, object] = {}) -> dict[str, Any]:
    """
    A Lease as it is written.
    """
    named = {**metadata, "namespace": namespace, "name": name}
    return {"apiVersion": API_VERSION, "kind": "Lease", "metadata": named, "spec": dict(spec)}


def leases_path(namespace: str) -> str:
    """
    The path of a namespace's Leases.
    """
    return f"/apis/{API_VERSION}/namespaces/{namespace}/leases"
