"""
``nodeportisolation``: node ports are open in the pools that a Service names.
"""

from __future__ import annotations

from yurt.hub.filters.facts import Facts
from yurt.hub.filters.rule import READS, SERVICES, Document, ItemMeta, Rule, annotations_of, mapping

LISTEN = "nodeport.openyurt.io/listen"
"""Annotation of a Service: a comma list of pools; ``-pool`` leaves one out, ``*`` is all others."""

NODE_PORT_TYPES = ("NodePort", "LoadBalancer")


def apply(service: Document, facts: Facts) -> Document | None:
    """
    The Service, or None where its node ports are not wanted.
    """
    listen = annotations_of(service).get(LISTEN)
    has_node_ports = mapping(service.get("spec")).get("type") in NODE_PORT_TYPES
    if not (has_node_ports and isinstance(listen, str) and facts.pool):
        return service
    return service if listens(listen, facts.pool) else None


def listens(value: str, pool: str) -> bool:
    """
    Whether the annotation's value opens node ports in a pool; the first mention of it counts.
    """
    terms = [term.strip() for term in value.split(",")]
    for term in terms:
        if term == pool:
            return True
        if term == f"-{pool}":
            return False
    return "*" in terms


def concerns(meta: ItemMeta, body: bytes, facts: Facts) -> bool:
    """
    Those with the annotation.
    """
    return meta.annotation(LISTEN) is not None


def active(facts: Facts) -> bool:
    """
    On a node without a pool all node ports are open.
    """
    return bool(facts.pool)


NODE_PORT_ISOLATION = Rule(
    name="nodeportisolation",
    components=("kube-proxy",),
    resources=frozenset({SERVICES}),
    verbs=READS,
    apply=apply,
    concerns=concerns,
    active=active,
    uses=("pool",),
    sources=("pool",),
    hides=True,
)
