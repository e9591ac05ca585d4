"""
Which component a caller is, and whether its reads are cached.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from yurt.options import comma_list

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

MAX_COMPONENT = 63
"""Characters of a component's name: it is part of what views are known by, and a label of the metrics."""

_COMPONENT = re.compile(rf"[a-z0-9._-]{{1,{MAX_COMPONENT}}}")
_PATTERN = re.compile(r"!?(?:[a-z0-9._*?-]|\[!?[a-z0-9._-]+\])+")


def component_name(text: str) -> str:
    """
    The name of a component, in lower case.  Raises ValueError.
    """
    name = text.strip().lower()
    if not _COMPONENT.fullmatch(name):
        raise ValueError(
            f"{text.strip()!r} is no component: write a User-Agent up to its first '/', at most {MAX_COMPONENT} letters, "
            "digits, dots, dashes and underscores"
        )
    return name


def component_patterns(text: str) -> tuple[str, ...]:
    """
    Patterns of a comma list, as :class:`CacheAgents` takes them.  Raises ValueError.
    """
    patterns = comma_list(text)
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern.lower()):
            raise ValueError(
                f"{pattern!r} is no component: write a User-Agent up to its first '/', such as kubelet, a pattern such as "
                "flannel*, or !name"
            )
    return patterns


def component_aliases(text: str) -> tuple[tuple[str, str], ...]:
    """
    Pairs of a comma list ``name=component``.  Raises ValueError.
    """
    aliases: dict[str, str] = {}
    for part in comma_list(text):
        name, separator, component = part.partition("=")
        if not separator:
            raise ValueError("write name=component, such as k3s=kubelet")
        name, component = component_name(name), component_name(component)
        if aliases.setdefault(name, component) != component:
            raise ValueError(f"{name} cannot stand for both {aliases[name]} and {component}: keep one of them")
    return tuple(aliases.items())


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
        self.product = lru_cache(MAX_REMEMBERED_AGENTS)(self._product)
        self.cached = lru_cache(MAX_REMEMBERED_AGENTS)(self._cached)

    def component(self, user_agent: bytes | None) -> str:
        """
        The lower-case product name of ``user_agent``, as far as it is made of letters, digits, dots, dashes and underscores,
        with aliases resolved; empty when there is none.
        """
        return self.product((user_agent or b"")[:MAX_COMPONENT])

    def _product(self, text: bytes) -> str:
        match = _COMPONENT.match(text.lstrip().lower().decode("latin-1"))
        name = match[0] if match else ""
        return self.aliases.get(name, name)

    def _cached(self, component: str) -> bool:
        """
        Whether the reads of ``component`` are cached.
        """
        if not component or any(fnmatchcase(component, pattern) for pattern in self.excluded):
            return False
        return any(fnmatchcase(component, pattern) for pattern in self.included)
