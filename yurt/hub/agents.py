"""
Which component a caller is, and whether its reads are cached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

DEFAULT_CACHE_AGENTS = (
    "kubelet",
    "kube-proxy",
    "flanneld",
    "coredns",
    "yurthub",
    "yurttunnel-agent",
    "raven-agent-ds",
)
"""OpenYurt's default cache agents."""

DEFAULT_ALIASES: Mapping[str, str] = {"k3s": "kubelet", "rke2": "kubelet", "kubelite": "kubelet"}
"""Distributions whose one process speaks for the kubelet under a name of its own (k3s, RKE2, MicroK8s)."""

MAX_REMEMBERED_AGENTS = 1024
"""User agents whose component and decision are remembered."""


class CacheAgents:
    """
    Tells a request's component from its ``User-Agent`` and whether that component is cached.

    ``patterns`` are component names with shell wildcards; one that begins with ``!`` excludes and wins over all others.
    Nothing but exclusions means the default agents less those.
    """

    def __init__(self, patterns: Sequence[str] = DEFAULT_CACHE_AGENTS, aliases: Mapping[str, str] = DEFAULT_ALIASES) -> None:
        named = [pattern.strip().lower() for pattern in patterns if pattern.strip()]
        self.excluded = tuple(pattern[1:].strip() for pattern in named if pattern.startswith("!"))
        included = tuple(pattern for pattern in named if not pattern.startswith("!"))
        self.included = included or DEFAULT_CACHE_AGENTS
        self.aliases = {name.lower(): component.lower() for name, component in aliases.items()}
        self.component = lru_cache(MAX_REMEMBERED_AGENTS)(self._component)
        self.cached = lru_cache(MAX_REMEMBERED_AGENTS)(self._cached)

    def _component(self, user_agent: bytes | None) -> str:
        """
        The lower-case product name of ``user_agent``, with aliases resolved; empty when there is none.
        """
        product = (user_agent or b"").split(b"/", 1)[0].strip().lower().decode("latin-1")
        name = product.split(" ", 1)[0]
        return self.aliases.get(name, name)

    def _cached(self, component: str) -> bool:
        """
        Whether the reads of ``component`` are cached.
        """
        if not component or any(fnmatchcase(component, pattern) for pattern in self.excluded):
            return False
        return any(fnmatchcase(component, pattern) for pattern in self.included)
