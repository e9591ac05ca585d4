"""
``servicetopology``: of a Service that asks for it, the endpoints that are near: on this node, or in its pool.

No slice is hidden: one without endpoints that are near stays, empty.
"""

from __future__ import annotations

from typing import Any

from yurt.hub.filters.facts import Facts
from yurt.hub.filters.rule import ENDPOINTS, READS, SERVICE_OF_SLICE, SLICES, Document, ItemMeta, Rule, items, mapping

TOPOLOGY_KEYS = "openyurt.io/topologyKeys"
"""Annotation of a Service, with one of the keys below; anything else asks for nothing."""

HOST = "kubernetes.io/hostname"
POOL = frozenset({"openyurt.io/nodepool", "kubernetes.io/zone"})


def apply(document: Document, facts: Facts) -> Document | None:
    """
    An EndpointSlice or Endpoints with the endpoints that are near.
    """
    metadata = mapping(document.get("metadata"))
    labels = mapping(metadata.get("labels"))
    near = _near(f"{metadata.get('namespace')}/{_service(labels, metadata, document)}", facts)
    if near is None:
        return document
    return _endpoints(document, near) if "subsets" in document else _slice(document, near)


def _service(labels: Document, metadata: Document, document: Document) -> Any:
    return metadata.get("name") if "endpoints" not in document and "subsets" in document else labels.get(SERVICE_OF_SLICE)


def _near(service: str, facts: Facts) -> frozenset[str] | None:
    """
    The nodes whose endpoints a Service wants here; None for all.
    """
    wanted = (facts.topology or {}).get(service, "")
    here = frozenset({facts.node_name})
    if wanted == HOST:
        return here
    if wanted not in POOL or facts.pool is None:
        return None
    if not facts.pool:
        return here
    return None if facts.pool_nodes is None else facts.pool_nodes | here


def _slice(document: Document, near: frozenset[str]) -> Document:
    endpoints = items(document.get("endpoints"))
    kept = [one for one in endpoints if node_of(one) in near]
    return document if len(kept) == len(endpoints) else {**document, "endpoints": kept}


def node_of(endpoint: Document) -> str:
    """
    The node of an endpoint of a slice, as v1 names it or as early v1beta1 does; empty when it has none.
    """
    node = endpoint.get("nodeName") or mapping(endpoint.get("topology")).get(HOST)
    return node if isinstance(node, str) else ""


def _endpoints(document: Document, near: frozenset[str]) -> Document:
    subsets = items(document.get("subsets"))
    kept = [kept for kept in (_subset(one, near) for one in subsets) if kept is not None]
    return document if kept == subsets else {**document, "subsets": kept}


def _subset(subset: Document, near: frozenset[str]) -> Document | None:
    """
    A subset with what is near of its addresses, ready or not; None when nothing is.
    """
    kept: Document = {}
    for name in ("addresses", "notReadyAddresses"):
        if name in subset:
            kept[name] = [one for one in items(subset[name]) if node_of(one) in near]
    return {**subset, **kept} if any(kept.values()) else None


def concerns(meta: ItemMeta, body: bytes, facts: Facts) -> bool:
    """
    Those of a Service with the annotation.  Endpoints have its name, and may have any label.
    """
    topology = facts.topology or {}
    return any(f"{meta.namespace}/{service}" in topology for service in (meta.label(SERVICE_OF_SLICE), meta.name))


def active(facts: Facts) -> bool:
    """
    While any Service asks for it.
    """
    return bool(facts.topology)


SERVICE_TOPOLOGY = Rule(
    name="servicetopology",
    components=("kube-proxy", "coredns", "nginx-ingress-controller"),
    resources=SLICES | {ENDPOINTS},
    verbs=READS,
    apply=apply,
    concerns=concerns,
    active=active,
    uses=("node_name", "topology", "pool", "pool_nodes"),
    sources=("services", "pool"),
)
