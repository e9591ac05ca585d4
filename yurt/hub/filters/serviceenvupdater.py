"""
``serviceenvupdater``: containers that set the address of the API server themselves get the hub's.
"""

from __future__ import annotations

from yurt.hub.filters.facts import Facts
from yurt.hub.filters.rule import PODS, READS_AND_GETS, Document, ItemMeta, Rule, has_address, items, mapping, with_fields

HOST, PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"


def apply(pod: Document, facts: Facts) -> Document | None:
    """
    The Pod with the hub's address where its containers name one; none is added, and init containers stay as they are.
    """
    values = {HOST: facts.hub_host, PORT: str(facts.hub_port)}
    before = items(mapping(pod.get("spec")).get("containers"))
    containers = [_container(one, values) for one in before]
    return pod if containers == before else with_fields(pod, "spec", containers=containers)


def _container(container: Document, values: dict[str, str]) -> Document:
    before = items(container.get("env"))
    env = [_variable(one, values) for one in before]
    return container if env == before else {**container, "env": env}


def _variable(variable: Document, values: dict[str, str]) -> Document:
    name = variable.get("name")
    return {"name": name, "value": values[name]} if isinstance(name, str) and name in values else variable


def concerns(meta: ItemMeta, body: bytes, facts: Facts) -> bool:
    """
    Those that name a variable at all.
    """
    return HOST.encode() in body or PORT.encode() in body


SERVICE_ENV_UPDATER = Rule(
    name="serviceenvupdater",
    components=("kubelet",),
    resources=frozenset({PODS}),
    verbs=READS_AND_GETS,
    apply=apply,
    concerns=concerns,
    active=has_address,
    uses=("hub_host", "hub_port"),
)
