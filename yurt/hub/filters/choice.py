"""
Which filters apply to what: OpenYurt's defaults, less what flags turn off, more what its ConfigMap adds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from yurt.hub.filters.discardcloudservice import DISCARD_CLOUD_SERVICE
from yurt.hub.filters.forwardkubesvctraffic import FORWARD_KUBE_SVC_TRAFFIC
from yurt.hub.filters.hostnetworkpropagation import HOST_NETWORK_PROPAGATION
from yurt.hub.filters.inclusterconfig import IN_CLUSTER_CONFIG
from yurt.hub.filters.masterservice import MASTER_SERVICE
from yurt.hub.filters.nodeportisolation import NODE_PORT_ISOLATION
from yurt.hub.filters.rule import Rule
from yurt.hub.filters.serviceenvupdater import SERVICE_ENV_UPDATER
from yurt.hub.filters.servicetopology import SERVICE_TOPOLOGY

ORDER: tuple[Rule, ...] = (
    MASTER_SERVICE,
    DISCARD_CLOUD_SERVICE,
    NODE_PORT_ISOLATION,
    SERVICE_TOPOLOGY,
    FORWARD_KUBE_SVC_TRAFFIC,
    IN_CLUSTER_CONFIG,
    HOST_NETWORK_PROPAGATION,
    SERVICE_ENV_UPDATER,
)
"""All filters, in the order in which they are applied."""

NAMES = tuple(rule.name for rule in ORDER)
ALL = "*"

CACHE_AGENTS = "cache_agents"
OLD_PREFIX = "filter_"
"""OpenYurt 1.4 also takes a filter's key with this in front."""

MAX_COMPONENTS = 64
"""Components that the ConfigMap may add to one filter, and agents that it may add to the cached ones."""

OURSELVES = "yurthub"
"""The component as which the hub itself reads what filters depend on; never filtered."""


@dataclass(frozen=True, slots=True)
class Settings:
    """
    What the ConfigMap says: components whose reads are cached, and those that a filter is for beside its own.
    """

    cache_agents: tuple[str, ...] = ()
    components: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_settings(data: Mapping[str, object]) -> Settings:
    """
    The data of the ConfigMap ``yurt-hub-cfg``; keys that are none of its are left alone.

    A filter's value is a comma list of components; of ``component/resource#verb;verb``, as old versions wrote it, the component
    counts.
    """
    components = {}
    for name in NAMES:
        terms = [*_terms(data.get(name)), *_terms(data.get(OLD_PREFIX + name))]
        named = dict.fromkeys(term.partition("/")[0].strip().lower() for term in terms)
        if named:
            components[name] = tuple(named)[:MAX_COMPONENTS]
    return Settings(_terms(data.get(CACHE_AGENTS))[:MAX_COMPONENTS], components)


def _terms(value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else ()
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def enabled_rules(*, enabled: bool, disabled: Collection[str]) -> tuple[Rule, ...]:
    """
    The filters that flags leave on; ``*`` among the disabled ones is all of them.
    """
    if not enabled or ALL in disabled:
        return ()
    return tuple(rule for rule in ORDER if rule.name not in disabled)


class Chains:
    """
    The filters for each component and resource.
    """

    def __init__(self, rules: tuple[Rule, ...], settings: Settings) -> None:
        self._chains: dict[tuple[str, str], tuple[Rule, ...]] = {}
        for rule in rules:
            for component in dict.fromkeys((*rule.components, *settings.components.get(rule.name, ()))):
                for gvr in rule.resources if component != OURSELVES else ():
                    self._chains[component, gvr] = (*self._chains.get((component, gvr), ()), rule)
        self.resources = frozenset(gvr.rpartition("/")[2] for _, gvr in self._chains)
        """Names of the resources that anything is done to."""

    def find(self, component: str, gvr: str) -> tuple[Rule, ...]:
        """
        The filters for what a component reads of a resource (group/version/resource), in their order.
        """
        return self._chains.get((component, gvr), ())

    def names(self) -> dict[str, dict[str, list[str]]]:
        """
        All of it, for people: component → resource → filters.
        """
        found: dict[str, dict[str, list[str]]] = {}
        for (component, gvr), rules in sorted(self._chains.items(), key=lambda entry: entry[0]):
            found.setdefault(component, {})[gvr] = [rule.name for rule in rules]
        return found
