"""
Kubernetes objects of ordinary size, as JSON.
"""

from __future__ import annotations

import json
from typing import Any


def configmap(number: int, size: int = 1500) -> dict[str, Any]:
    """
    A ConfigMap whose JSON is about ``size`` bytes long.
    """
    meta = {"name": f"config-{number}", "namespace": "default", "uid": f"00000000-0000-4000-8000-{number:012}"}
    meta["resourceVersion"] = str(1000 + number)
    item: dict[str, Any] = {"metadata": meta, "data": {"content": ""}}
    item["data"]["content"] = "x" * max(0, size - len(json.dumps(item)))
    return item


def pod(number: int, size: int = 2000, node: str = "bench-node") -> dict[str, Any]:
    """
    A running Pod whose JSON is about ``size`` bytes long.
    """
    meta = {"name": f"pod-{number}", "namespace": "default", "uid": f"00000000-0000-4000-9000-{number:012}"}
    item: dict[str, Any] = {
        "metadata": {**meta, "resourceVersion": str(1000 + number), "annotations": {"padding": ""}},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "busybox:1", "resources": {}}]},
        "status": {"phase": "Running", "podIP": "10.244.0.9", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    item["metadata"]["annotations"]["padding"] = "x" * max(0, size - len(json.dumps(item)))
    return item


def body(kind: str, item: dict[str, Any]) -> bytes:
    """
    One object as the cloud sends it.
    """
    return json.dumps({"kind": kind, "apiVersion": "v1", **item}).encode()


def list_body(kind: str, items: list[dict[str, Any]], version: int = 100_000) -> bytes:
    """
    A list of them.
    """
    whole = {"kind": f"{kind}List", "apiVersion": "v1", "metadata": {"resourceVersion": str(version)}, "items": items}
    return json.dumps(whole).encode()
