"""
``forwardkubesvctraffic``: connections to the ClusterIP of default/kubernetes lead to the hub.
"""

from __future__ import annotations

from yurt.hub.filters.facts import Facts
from yurt.hub.filters.masterservice import HTTPS
from yurt.hub.filters.rule import READS, SERVICE_OF_SLICE, SLICES, Document, ItemMeta, Rule, has_address, items


def apply(document: Document, facts: Facts) -> Document | None:
    """
    The EndpointSlice, if of the hub's address family, with the hub as its only endpoint.
    """
    family = "IPv6" if ":" in facts.hub_host else "IPv4"
    if document.get("addressType") != family:
        return document
    endpoint = {"addresses": [facts.hub_host], "conditions": {"ready": True}}
    ports = items(document.get("ports"))
    ports = [{**port, "port": facts.hub_port} if port.get("name") == HTTPS else port for port in ports]
    return {**document, "endpoints": [endpoint], "ports": ports}


def concerns(meta: ItemMeta, body: bytes, facts: Facts) -> bool:
    """
    Those of default/kubernetes.
    """
    return meta.namespace == "default" and meta.label(SERVICE_OF_SLICE) == "kubernetes"


FORWARD_KUBE_SVC_TRAFFIC = Rule(
    name="forwardkubesvctraffic",
    components=("kube-proxy",),
    resources=SLICES,
    verbs=READS,
    apply=apply,
    concerns=concerns,
    active=has_address,
    uses=("hub_host", "hub_port"),
    only=("default", ""),
)
