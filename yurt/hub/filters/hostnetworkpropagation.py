"""
``hostnetworkpropagation``: pods of a pool whose nodes have no network of pods use the host's.
"""

from __future__ import annotations

from yurt.hub.filters.facts import Facts
from yurt.hub.filters.rule import PODS, READS, Document, ItemMeta, Rule, mapping, with_fields


def apply(pod: Document, facts: Facts) -> Document | None:
    """
    The Pod in the host's network.
    """
    if not facts.host_network or mapping(pod.get("spec")).get("hostNetwork") is True:
        return pod
    return with_fields(pod, "spec", hostNetwork=True)


def concerns(meta: ItemMeta, body: bytes, facts: Facts) -> bool:
    """
    Every Pod.
    """
    return True


def active(facts: Facts) -> bool:
    """
    As the pool says.
    """
    return facts.host_network


HOST_NETWORK_PROPAGATION = Rule(
    name="hostnetworkpropagation",
    components=("kubelet",),
    resources=frozenset({PODS}),
    verbs=READS,
    apply=apply,
    concerns=concerns,
    active=active,
    uses=("host_network",),
    sources=("pool",),
)
