"""
``inclusterconfig``: kube-proxy, set up by kubeadm, speaks to the API server as a pod does, and so through the hub.
"""

from __future__ import annotations

from yurt.hub.filters.facts import Facts
from yurt.hub.filters.rule import CONFIG_MAPS, READS_AND_GETS, Document, ItemMeta, Rule, has_address, mapping, with_fields

FILE = "config.conf"
KEY = "kubeconfig"


def apply(config_map: Document, facts: Facts) -> Document | None:
    """
    The ConfigMap with the kubeconfig of its file commented out.
    """
    text = mapping(config_map.get("data")).get(FILE)
    if not isinstance(text, str):
        return config_map
    changed = "\n".join(_line(line) for line in text.split("\n"))
    return config_map if changed == text else with_fields(config_map, "data", **{FILE: changed})


def _line(line: str) -> str:
    """
    A line; one whose value holds a colon is left alone, as OpenYurt does.
    """
    key, *values = line.split(":")
    return line.replace(KEY, f"#{KEY}", 1) if key.strip() == KEY and len(values) == 1 else line


def concerns(meta: ItemMeta, body: bytes, facts: Facts) -> bool:
    """
    One ConfigMap only.
    """
    return meta.name == "kube-proxy" and meta.namespace == "kube-system"


IN_CLUSTER_CONFIG = Rule(
    name="inclusterconfig",
    components=("kubelet",),
    resources=frozenset({CONFIG_MAPS}),
    verbs=READS_AND_GETS,
    apply=apply,
    concerns=concerns,
    active=has_address,
    uses=("hub_host",),
    only=("kube-system", "kube-proxy"),
)
