"""
The filters of one hub at work: what is known, which lens that gives to whom, and who must hear when it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger

from yurt.hub.cache.table import Table
from yurt.hub.filters.choice import ALL, NAMES, Chains, Settings, enabled_rules
from yurt.hub.filters.facts import Facts
from yurt.hub.filters.lens import CLEAR, Lens, make_lens
from yurt.hub.filters.rule import Rule
from yurt.hub.filters.sources import (
    BUCKETS_PATH,
    NODES_PATH,
    POOL_OF_BUCKET,
    POOLS_PATHS,
    SERVICES_PATH,
    SETTINGS_NAME,
    Pool,
    Source,
    read_bucket,
    read_config_map,
    read_pool,
    read_pool_label,
    read_topology,
)
from yurt.hub.filters.told import ToldBook
from yurt.hub.timers import Timers
from yurt.kube.api import ApiClient
from yurt.kube.requestinfo import RequestInfo

FILTERS_WAIT = 2.0
"""Seconds after the start of the hub beyond which nothing waits for what filters depend on."""

SETTLE = 0.1
"""Seconds that changes are gathered before clients hear of them."""

MAX_LENSES = 256
"""Rows of filters whose lens is remembered."""


@dataclass(frozen=True, slots=True)
class FilterSettings:
    """
    What the flags say of filters; an empty ``namespace``: there is no ConfigMap to follow.
    """

    enabled: bool = True
    disabled: tuple[str, ...] = ()
    namespace: str = "kube-system"
    pool_name: str = ""
    use_buckets: bool = False


def filter_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """
    Names of filters, or ``*``.  Raises ValueError for others.
    """
    for name in names:
        if name not in NAMES and name != ALL:
            raise ValueError(f"{name} is no filter; there are {', '.join(NAMES)}, and * for all")
    return names


class Filters:
    """
    Gives each read its lens.

    ``client`` reads what filters depend on, ``cached`` gives what the cache holds of that; ``changed()`` is called when a lens
    may have become another one, ``agents(names)`` with what the ConfigMap adds to the cached agents.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: FilterSettings,
        node_name: str,
        table: Table,
        client: ApiClient,
        cached: Callable[[bytes], bytes | None],
        changed: Callable[[], object],
        agents: Callable[[tuple[str, ...]], object],
    ) -> None:
        self._rules = enabled_rules(enabled=settings.enabled, disabled=settings.disabled)
        self._settings = settings
        self._changed = changed
        self._agents = agents
        self._timers = Timers(reactor)
        self._waiting: list[Callable[[], object]] = []
        self._lenses: dict[tuple[Rule, ...], Lens] = {}
        self._warned: frozenset[str] = frozenset()
        self._chosen = Settings()
        self._chains = Chains(self._rules, self._chosen)
        self._address = ("", 0)
        self.told = ToldBook(table)
        self.facts = Facts(node_name, pool=settings.pool_name or None)
        self.settled = True
        self.unfiltered: dict[str, int] = {name: 0 for name in NAMES}
        """Answers that a filter could not be applied to, because what it depends on is not known."""
        self._make_sources(reactor, client, cached)

    def _make_sources(self, reactor: Any, client: ApiClient, cached: Callable[[bytes], bytes | None]) -> None:
        def source(paths: Sequence[str], decode: Any, what: str, **selectors: str) -> Source[Any]:
            return Source(reactor, client, cached, paths, decode, what=what, changed=self._heard, **selectors)

        settings, wanted = self._settings, {name for rule in self._rules for name in rule.sources}
        name = f"metadata.name={SETTINGS_NAME}"
        path = f"/api/v1/namespaces/{settings.namespace}/configmaps"
        self._config: Source[Settings] | None = None
        if settings.namespace:
            self._config = source([path], read_config_map, f"ConfigMap {SETTINGS_NAME}", field_selector=name)
        self._services: Source[str] | None = None
        self._pools: Source[Pool] | None = None
        self._node: Source[str] | None = None
        if "services" in wanted:
            self._services = source([SERVICES_PATH], read_topology, "Services")
        if "pool" in wanted and settings.use_buckets:
            self._pools = source([BUCKETS_PATH], read_bucket, "NodeBuckets", label_selector=POOL_OF_BUCKET)
        elif "pool" in wanted:
            self._pools = source(POOLS_PATHS, read_pool, "NodePools")
        if "pool" in wanted and not settings.pool_name:
            node = f"metadata.name={self.facts.node_name}"
            self._node = source([NODES_PATH], read_pool_label, "Node", field_selector=node)

    @property
    def sources(self) -> list[Source[Any]]:
        """
        All that is followed.
        """
        return [one for one in (self._config, self._services, self._pools, self._node) if one is not None]

    # Life

    def start(self) -> None:
        """
        Take what the cache holds; whoever needs more waits until :meth:`follow` has found it, but not for long.  What an earlier
        run did not find, as NodePools in a cluster without OpenYurt, is not waited for.
        """
        for source in self.sources:
            source.seed()
        self.settled = not self.sources or any(source.items is not None for source in self.sources)
        self._look()
        if not self.settled:
            self._timers.set("wait", FILTERS_WAIT, self._settle)

    def follow(self) -> None:
        """
        The hub can ask now: begin to follow.
        """
        for source in self.sources:
            source.follow()
        if not self.settled:
            self._timers.set("look", SETTLE, self._look)

    def stop(self) -> None:
        """
        Follow no more.
        """
        self._timers.cancel_all()
        for source in self.sources:
            source.stop()
        self._settle()

    def when_settled(self, call: Callable[[], object]) -> None:
        """
        Call once what filters depend on is known, or is known not to come soon: at the latest FILTERS_WAIT after the start.
        """
        if self.settled:
            call()
        else:
            self._waiting.append(call)

    def set_address(self, host: str, port: int) -> None:
        """
        Where pods reach the hub by HTTPS; an empty host: nowhere.
        """
        self._address = (host, port)
        self._look()

    @property
    def way_of_pods(self) -> str:
        """
        Where pods reach the hub by HTTPS, as host:port; empty: nowhere.
        """
        host, port = self._address
        return f"{f'[{host}]' if ':' in host else host}:{port}" if host else ""

    # What is known

    def _heard(self) -> None:
        """
        Something changed; more may follow at once.
        """
        self._timers.set("look", SETTLE if self.settled else 0.0, self._look)

    def _look(self) -> None:
        """
        Take in what is known now.
        """
        self._choose()
        facts = self._find_facts()
        if facts != self.facts:
            self.facts = facts
            self._lenses.clear()
            self._changed()
        self._warn()
        if self.settled:
            return
        if all(source.settled for source in self.sources):
            self._settle()
        else:
            self._timers.set("look", SETTLE, self._look)

    def _settle(self) -> None:
        self._timers.cancel("wait")
        self.settled = True
        self._warn()
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    def _choose(self) -> None:
        known = None if self._config is None else self._config.items
        chosen = next(iter((known or {}).values()), Settings())
        if chosen == self._chosen:
            return
        if chosen.cache_agents != self._chosen.cache_agents:
            self._agents(chosen.cache_agents)
        self.log.info("ConfigMap {name}: filters and cached agents are chosen anew", name=SETTINGS_NAME)
        self._chosen = chosen
        self._chains = Chains(self._rules, chosen)
        self._changed()

    def _find_facts(self) -> Facts:
        pools = None if self._pools is None or self._pools.items is None else list(self._pools.items.values())
        pool = self._find_pool(pools)
        mine = [one for one in pools or () if one.name == pool]
        services = None if self._services is None else self._services.items
        host, port = self._address
        return Facts(
            self.facts.node_name,
            host,
            port,
            None if services is None else dict(services),
            pool,
            frozenset().union(*(one.nodes for one in mine)) if mine else None,
            any(one.host_network for one in mine),
        )

    def _find_pool(self, pools: list[Pool] | None) -> str | None:
        """
        The node's pool: the flag's, else the one that its Node names, else one that has it among its nodes.
        """
        if self._settings.pool_name:
            return self._settings.pool_name
        labels = None if self._node is None else self._node.items
        label = next(iter((labels or {}).values()), "")
        if label:
            return label
        having = [pool.name for pool in pools or () if self.facts.node_name in pool.nodes]
        if having:
            return min(having)  # always the same one
        return None if pools is None and not labels else ""

    # What is missing

    @property
    def problems(self) -> dict[str, str]:
        """
        Why what is followed is not known, by what it is.
        """
        return {source.what: source.problem for source in self.sources if source.problem is not None}

    def missing(self, rule: Rule) -> list[str]:
        """
        What a filter depends on and is not known.
        """
        parts = {"services": (self._services,), "pool": (self._pools, self._node)}
        needed = [source for name in rule.sources for source in parts[name] if source is not None]
        return [source.what for source in needed if source.items is None]

    @property
    def degraded(self) -> dict[str, list[str]]:
        """
        The filters that are not, or not wholly, applied, and what they miss.
        """
        if not self.settled:
            return {}
        found = {rule.name: self.missing(rule) for rule in self._rules}
        return {name: missing for name, missing in found.items() if missing}

    def _warn(self) -> None:
        """
        One line when a filter cannot be applied, and one when it can again.
        """
        degraded = self.degraded
        for name in sorted(degraded.keys() - self._warned):
            missing = ", ".join(degraded[name])
            self.log.warn("filter {name} is not applied wholly: {missing} not known", name=name, missing=missing)
        for name in sorted(self._warned - degraded.keys()):
            self.log.info("filter {name} is applied", name=name)
        self._warned = frozenset(degraded)

    def warnings(self, component: str, info: RequestInfo, bypassed: str = "") -> list[tuple[bytes, bytes]]:
        """
        Headers for an answer that filters were not applied to as they should have been; counts it.  ``bypassed`` tells why none
        of them was.
        """
        if bypassed:
            return [self._unfiltered(rule, f"applied: {bypassed}") for rule in self.lens(component, info).rules]
        missing = ((rule, self.missing(rule)) for rule in (self._relevant(component, info) if self._warned else ()))
        return [self._unfiltered(rule, f"applied wholly: {', '.join(names)} not known") for rule, names in missing if names]

    def _unfiltered(self, rule: Rule, how: str) -> tuple[bytes, bytes]:
        self.unfiltered[rule.name] += 1
        return b"Warning", f'199 yurthub "filter {rule.name} is not {how}"'.encode("ascii", "replace")

    def lacks(self, component: str, info: RequestInfo) -> bool:
        """
        Whether a filter for what is read here cannot be applied as it should be.
        """
        return bool(self._warned) and any(rule.name in self._warned for rule in self._relevant(component, info))

    # Lenses

    def covers(self, component: str, info: RequestInfo) -> bool:
        """
        Whether there are filters for what is read here, whatever they do at the moment.
        """
        return info.resource in self._chains.resources and bool(self._relevant(component, info))

    def lens(self, component: str, info: RequestInfo) -> Lens:
        """
        What a component is to see of what it reads.
        """
        if info.resource not in self._chains.resources:
            return CLEAR
        rules = self._relevant(component, info)
        if not rules:
            return CLEAR
        lens = self._lenses.get(rules)
        if lens is None:
            if len(self._lenses) >= MAX_LENSES:
                self._lenses.clear()
            lens = make_lens(rules, self.facts)
            self._lenses[rules] = lens = lens if lens.rules else CLEAR
        return lens

    def _relevant(self, component: str, info: RequestInfo) -> tuple[Rule, ...]:
        """
        The filters for a request that may find what they are about.
        """
        rules = self._chains.find(component, info.gvr)
        if not rules or info.subresource:
            return ()
        return tuple([rule for rule in rules if info.verb in rule.verbs and _may_find(rule, info)])

    def describe(self) -> Mapping[str, object]:
        """
        The state of it all, for people.
        """
        facts = self.facts
        return {
            "components": self._chains.names(),
            "degraded": self.degraded,
            "problems": self.problems,
            "pool": facts.pool,
            "poolNodes": None if facts.pool_nodes is None else len(facts.pool_nodes),
            "servicesWithTopology": None if facts.topology is None else len(facts.topology),
            "podsReachHubAt": self.way_of_pods or None,
        }


def _may_find(rule: Rule, info: RequestInfo) -> bool:
    """
    Whether what is asked for may hold the one object that a filter is about.
    """
    namespace, name = rule.only
    asked = info.name or info.selected_name
    return (not namespace or info.namespace in ("", namespace)) and (not name or asked in ("", name))
