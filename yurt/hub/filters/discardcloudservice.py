"""
``discardcloudservice``: Services that are of use in the cloud only are hidden.
"""

from __future__ import annotations

from yurt.hub.filters.facts import Facts
from yurt.hub.filters.rule import READS, SERVICES, Document, ItemMeta, Rule, annotations_of, mapping

DISCARD = "svc.openyurt.io/discard"
"""Annotation of OpenYurt 1.5 and later: a LoadBalancer with the value ``true`` is hidden."""

SKIP_DISCARD = "openyurt.io/skip-discard"
"""Annotation up to OpenYurt 1.4, which hid every LoadBalancer without it: with ``true`` one is never hidden."""

CLOUD_ONLY = frozenset({("kube-system", "x-tunnel-server-internal-svc")})
"""Hidden in any case: it leads to the tunnel server from inside the cloud."""


def apply(service: Document, facts: Facts) -> Document | None:
    """
    The Service, or None.
    """
    metadata = mapping(service.get("metadata"))
    if (metadata.get("namespace"), metadata.get("name")) in CLOUD_ONLY:
        return None
    annotations = annotations_of(service)
    is_balanced = mapping(service.get("spec")).get("type") == "LoadBalancer"
    is_discarded = annotations.get(DISCARD) == "true" and annotations.get(SKIP_DISCARD) != "true"
    return None if is_balanced and is_discarded else service


def concerns(meta: ItemMeta, body: bytes, facts: Facts) -> bool:
    """
    Those with the annotation, and those that are always hidden.
    """
    return meta.annotation(DISCARD) == "true" or (meta.namespace, meta.name) in CLOUD_ONLY


def active(facts: Facts) -> bool:
    """
    Always.
    """
    return True


DISCARD_CLOUD_SERVICE = Rule(
    name="discardcloudservice",
    components=("kube-proxy",),
    resources=frozenset({SERVICES}),
    verbs=READS,
    apply=apply,
    concerns=concerns,
    active=active,
    hides=True,
)
