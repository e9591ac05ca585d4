"""
Links that have outlived what entitled their agent to them: its certificate, or the Node in the cluster.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.application.internet import TimerService
from twisted.logger import Logger

from yurt.tunnel.server.nodes import Nodes
from yurt.tunnel.server.registry import Agent, Registry
from yurt.tunnel.wear import end_within

LOOK = 15.0
"""
Seconds between two looks.  A Node must be missing at two of them: one that kubelet registers anew keeps its link.
"""

EXPIRED, REMOVED = "the agent's certificate has expired", "the cluster has no Node of this name any more"


class Outlived(TimerService):
    """
    Ends such links: they take no new streams, those that run may go on for ``patience`` seconds.  An agent that has renewed its
    certificate comes again, and its newer link has taken over long before: what still runs on the older one then goes on to its
    end, for the same agent is still entitled to it.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        registry: Registry,
        nodes: Nodes,
        patience: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(LOOK, self.look)
        self.clock = self._reactor = reactor
        self._registry = registry
        self._nodes = nodes
        self._patience = patience
        self._now = now
        self._missing: set[str] = set()
        """Nodes with a link that were missing at the last look."""

    def look(self) -> None:
        """
        End what is to be ended.
        """
        now = self._now()
        missing_before, self._missing = self._missing, self._without_node()
        for agent in list(self._registry.agents()):
            if agent.valid_until <= now and not self._is_followed(agent, now):
                self._end(agent, EXPIRED)
            elif agent.node in self._missing and agent.node in missing_before:
                self._end(agent, REMOVED)

    def _is_followed(self, agent: Agent, now: float) -> bool:
        """
        Whether a newer link of the node shows a certificate that holds.
        """
        newest = self._registry.newest(agent.node)
        return newest is not None and newest is not agent and newest.valid_until > now

    def _without_node(self) -> set[str]:
        nodes = self._nodes
        if not nodes.of_cluster or not nodes.synced or nodes.problem is not None:
            return set()
        return {name for name in self._registry.nodes() if nodes.by_name(name) is None}

    def _end(self, agent: Agent, why: str) -> None:
        mux = agent.mux
        if mux.closing:
            return
        text = "node {node}: its connection from {peer} takes no new streams, and ends: {why}"
        self.log.warn(text, node=agent.node, peer=agent.peer, why=why)
        end_within(self._reactor, mux, self._patience, why)
