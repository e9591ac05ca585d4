"""
Pods for tests.
"""

from __future__ import annotations

from typing import Any

from .images import BUSYBOX


def pod(name: str, node: str, command: str, *, host_network: bool = False, **spec: Any) -> dict[str, Any]:
    """
    A pod of one busybox container that runs a shell command.
    """
    container = {"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", command]}
    container |= spec.pop("container", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "hostNetwork": host_network,
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
            **spec,
        },
    }
