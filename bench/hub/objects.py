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


def endpoint_slice(number: int, size: int = 2000) -> dict[str, Any]:
    """
    A slice of the Service of that number, whose JSON is about ``size`` bytes long: every other endpoint is on another node.
    """
    meta = {"name": f"slice-{number}", "namespace": "default", "uid": f"00000000-0000-4000-a000-{number:012}"}
    labels = {"kubernetes.io/service-name": f"service-{number}"}
    item: dict[str, Any] = {
        "metadata": {**meta, "resourceVersion": str(1000 + number), "labels": labels, "annotations": {"padding": ""}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": [],
    }
    while len(json.dumps(item)) < size:
        place = len(item["endpoints"])
        node = "bench-node" if place % 2 else f"node-{place}"
        target = {"kind": "Pod", "namespace": "default", "name": f"pod-{number}-{place}"}
        conditions = {"ready": True, "serving": True, "terminating": False}
        endpoint = {"addresses": [f"10.244.{place}.9"], "conditions": conditions, "nodeName": node, "targetRef": target}
        item["endpoints"].append(endpoint)
    return item


def service(number: int) -> dict[str, Any]:
    """
    A Service that wants endpoints on the node only.
    """
    meta = {"name": f"service-{number}", "namespace": "default", "uid": f"00000000-0000-4000-b000-{number:012}"}
    annotations = {"openyurt.io/topologyKeys": "kubernetes.io/hostname"}
    return {
        "metadata": {**meta, "resourceVersion": str(1000 + number), "annotations": annotations},
        "spec": {"type": "ClusterIP", "clusterIP": f"10.96.{number // 250}.{number % 250}", "ports": [{"port": 80}]},
    }


def body(kind: str, item: dict[str, Any], api_version: str = "v1") -> bytes:
    """
    One object as the cloud sends it.
    """
    return json.dumps({"kind": kind, "apiVersion": api_version, **item}).encode()


def list_body(kind: str, items: list[dict[str, Any]], version: int = 100_000, api_version: str = "v1") -> bytes:
    """
    A list of them.
    """
    whole = {"kind": f"{kind}List", "apiVersion": api_version, "metadata": {"resourceVersion": str(version)}, "items": items}
    return json.dumps(whole).encode()
