"""
``masterservice``: the Service default/kubernetes leads to the hub.

kubelet makes KUBERNETES_SERVICE_HOST and _PORT of new pods of it, so that clients in pods go through the hub.
"""

from __future__ import annotations

from yurt.hub.filters.facts import Facts
from yurt.hub.filters.rule import READS, SERVICES, Document, ItemMeta, Rule, has_address, items, mapping, with_fields

HTTPS = "https"
"""The name of the port that is changed."""


def apply(service: Document, facts: Facts) -> Document | None:
    """
    The Service with the hub's address and HTTPS port.
    """
    ports = [{**port, "port": facts.hub_port} if port.get("name") == HTTPS else port for port in _ports(service)]
    return with_fields(service, "spec", clusterIP=facts.hub_host, clusterIPs=[facts.hub_host], ports=ports)


def _ports(service: Document) -> list[Document]:
    return items(mapping(service.get("spec")).get("ports"))


def concerns(meta: ItemMeta, body: bytes, facts: Facts) -> bool:
    """
    One Service only.
    """
    return meta.name == "kubernetes" and meta.namespace == "default"


MASTER_SERVICE = Rule(
    name="masterservice",
    components=("kubelet",),
    resources=frozenset({SERVICES}),
    verbs=READS,
    apply=apply,
    concerns=concerns,
    active=has_address,
    uses=("hub_host", "hub_port"),
    only=("default", "kubernetes"),
)
