"""
Objects and facts for the tests of filters.
"""

from __future__ import annotations

import json
from typing import Any

from yurt.hub.filters.facts import Facts
from yurt.hub.filters.lens import make_lens
from yurt.hub.filters.rule import Rule

HERE = Facts("n1", hub_host="169.254.2.1", hub_port=10268)
"""A node that pods reach, of whose pool nothing is known."""


def shown(rule: Rule, document: Any, facts: Facts) -> Any:
    """
    What a filter shows of an object: the object as JSON gives it, ``None`` when it is hidden.
    """
    body = json.dumps(document).encode()
    after = make_lens((rule,), facts).apply(body)
    return None if after is None else json.loads(after)


def is_untouched(rule: Rule, document: Any, facts: Facts) -> bool:
    """
    Whether an object keeps its very bytes.
    """
    body = json.dumps(document).encode()
    return make_lens((rule,), facts).apply(body) is body


def service(name: str = "web", namespace: str = "default", *, annotations: dict[str, str] | None = None, **spec: Any) -> Any:
    """
    A Service.
    """
    metadata = {"name": name, "namespace": namespace, "resourceVersion": "7"}
    if annotations is not None:
        metadata["annotations"] = annotations  # type: ignore[assignment]  # JSON
    return {"kind": "Service", "apiVersion": "v1", "metadata": metadata, "spec": spec}


def endpoint_slice(service_name: str, *nodes: str | None, namespace: str = "default", version: str = "v1", **fields: Any) -> Any:
    """
    An EndpointSlice with an endpoint on each of the nodes; None for one without a node.
    """
    endpoints: list[dict[str, Any]] = []
    for number, node in enumerate(nodes, 1):
        endpoint: dict[str, Any] = {"addresses": [f"10.0.0.{number}"], "conditions": {"ready": True}}
        endpoints.append(endpoint if node is None else {**endpoint, "nodeName": node})
    labels = {"kubernetes.io/service-name": service_name}
    return {
        "kind": "EndpointSlice",
        "apiVersion": f"discovery.k8s.io/{version}",
        "metadata": {"name": f"{service_name}-1", "namespace": namespace, "resourceVersion": "8", "labels": labels},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 80}],
        **fields,
    }


def nodes_of(document: Any) -> list[str | None]:
    """
    The nodes of a slice's endpoints.
    """
    return [endpoint.get("nodeName") for endpoint in document["endpoints"]]
