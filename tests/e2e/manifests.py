"""
What the cluster must hold for yurt-tunnel-server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

MANIFEST = Path(__file__).parents[2] / "etc/kubernetes/yurt-tunnel-server.yaml"
"""What an operator applies: the server's rights, and the Services."""
SERVER_USER = "yurt-tunnel-server"
SYSTEM = "kube-system"
INTERNAL_SERVICE = "x-tunnel-server-internal-svc"
PORTS_CONFIG = "yurt-tunnel-server-cfg"
RBAC = "rbac.authorization.k8s.io"


def rule(group: str, resources: str, verbs: str) -> dict[str, Any]:
    """
    A rule of a Role, of words with spaces between.
    """
    return {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split()}


def granted(name: str, subject: dict[str, Any], *rules: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    A ClusterRole of these rules, and its binding to one subject.
    """
    role = {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": list(rules)}
    reference = {"kind": "ClusterRole", "name": name, "apiGroup": RBAC}
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "subjects": [subject],
        "roleRef": reference,
    }
    return role, binding


def user(name: str) -> dict[str, Any]:
    """
    A user as the subject of a binding.
    """
    return {"kind": "User", "name": name, "apiGroup": RBAC}


SERVER_ROLE = granted(
    "yurt-tunnel-server",
    user(SERVER_USER),
    rule("", "nodes", "get list watch"),
    rule("", "pods", "get"),
    rule("", "services", "get list watch update"),
    rule("", "configmaps", "get list watch create update"),
    rule("coordination.k8s.io", "leases", "get list watch create update delete"),
    rule("authentication.k8s.io", "tokenreviews", "create"),
    rule("authorization.k8s.io", "subjectaccessreviews", "create"),
)
"""All that the server may do, and no more than it needs."""


def tunnel_endpoints(address: str) -> dict[str, Any]:
    """
    The Endpoints of DNS mode's Service: the server at that address.
    """
    ports = [{"name": "https", "port": 10263}, {"name": "http", "port": 10264}]
    metadata = {"name": INTERNAL_SERVICE, "namespace": SYSTEM}
    subsets = [{"addresses": [{"ip": address}], "ports": ports}]
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}


def ports_config(**data: str) -> dict[str, Any]:
    """
    The ConfigMap of ports; underscores in names stand for dashes.
    """
    metadata = {"name": PORTS_CONFIG, "namespace": SYSTEM}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {k.replace("_", "-"): v for k, v in data.items()},
    }
