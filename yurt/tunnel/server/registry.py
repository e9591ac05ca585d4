"""
Which agents are connected to this server, and what is remembered of those that were.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from twisted.internet.defer import Deferred

MAX_REMEMBERED_NODES = 10_000
"""Nodes without agent of which it is remembered when and why their last connection ended; the oldest are forgotten first."""


class Carrier(Protocol):
    """
    What is used here of a :class:`yurt.mux.connection.MuxConnection`.
    """

    @property
    def closing(self) -> bool: ...

    @property
    def peer_going_away(self) -> bool: ...

    @property
    def heard_at(self) -> float: ...

    @property
    def silent_for(self) -> float: ...

    @property
    def streams(self) -> int: ...

    @property
    def bytes_received(self) -> int: ...

    @property
    def bytes_sent(self) -> int: ...

    @property
    def rtt(self) -> float | None: ...

    def go_away(self) -> None: ...

    def when_idle(self) -> Deferred[None]: ...

    def abort(self, why: str) -> None: ...


def takes_streams(carrier: Carrier) -> bool:
    """
    Whether neither side of a link is on its way out.
    """
    return not carrier.closing and not carrier.peer_going_away


SUSPECT_AFTER = 2.0
"""Seconds for which a link may owe a sign of life before another one is preferred to it, if there is one."""


def is_suspect(carrier: Carrier) -> bool:
    """
    Whether a link may be cut: nobody said so, but nothing comes.
    """
    return carrier.silent_for >= SUSPECT_AFTER


@dataclass(slots=True, eq=False)
class Agent:
    """
    One connection of a node's agent.

    ``node`` is the name in its certificate; ``addresses`` and ``version`` are what the agent said of itself; ``peer`` is where
    it connected from; ``since`` is the time of day, in seconds, and so is ``valid_until``, when its certificate expires.
    """

    node: str
    mux: Carrier
    peer: str = ""
    addresses: tuple[str, ...] = ()
    version: str = ""
    since: float = 0.0
    valid_until: float = inf


@dataclass(frozen=True, slots=True)
class Departure:
    """
    When (time of day, in seconds) and why the last connection of a node ended; ``ending`` is the why in one word.
    """

    at: float
    why: str
    ending: str = ""


@dataclass(slots=True)
class Registry:
    """
    Agents by the name of their node, the newest connection first.

    Subscribers are told of every node that got its first connection (true) or lost its last one (false); ``forget`` of every
    node of which nothing is remembered any more.
    """

    forget: Callable[[str], object] = lambda node: None
    _agents: dict[str, list[Agent]] = field(default_factory=dict)
    _departures: OrderedDict[str, Departure] = field(default_factory=OrderedDict)
    _watchers: list[Callable[[str, bool], None]] = field(default_factory=list)

    def __len__(self) -> int:
        """
        How many nodes have an agent.
        """
        return len(self._agents)

    def subscribe(self, changed: Callable[[str, bool], None]) -> Callable[[], None]:
        """
        Call ``changed(node, connected)`` from now on; answers how to end that.
        """
        self._watchers.append(changed)
        return lambda: self._watchers.remove(changed)

    def nodes(self) -> list[str]:
        """
        The names of the nodes that have an agent.
        """
        return list(self._agents)

    def agents(self) -> Iterator[Agent]:
        """
        All connections of all nodes, a node's newest first.
        """
        for agents in self._agents.values():
            yield from agents

    def newest(self, node: str) -> Agent | None:
        """
        The newest connection of ``node`` that takes new streams.
        """
        for agent in self._agents.get(node, ()):
            if takes_streams(agent.mux):
                return agent
        return None

    def connected(self, node: str) -> bool:
        """
        Whether the node has a connection, be it one on its way out.
        """
        return node in self._agents

    def last_seen(self, node: str) -> Departure | None:
        """
        When and why the node's last connection ended, if it has none and one is remembered.
        """
        return self._departures.get(node)

    def departures(self) -> list[tuple[str, Departure]]:
        """
        The nodes that are gone, those that left last first.
        """
        return list(reversed(self._departures.items()))

    def add(self, agent: Agent) -> list[Agent]:
        """
        Take a new connection in.  Returns the older ones of its node, the newest first: they get no new streams while this one
        takes any.
        """
        self._departures.pop(agent.node, None)
        agents = self._agents.setdefault(agent.node, [])
        older = list(agents)
        agents.insert(0, agent)
        if not older:
            self._tell(agent.node, True)
        return older

    def remove(self, agent: Agent, now: float, why: str, ending: str = "") -> None:
        """
        A connection has ended at the time ``now``, for people and in one word why; nothing happens if it is not in here.
        """
        agents = self._agents.get(agent.node, [])
        if agent not in agents:
            return
        agents.remove(agent)
        if agents:
            return
        del self._agents[agent.node]
        self._departures[agent.node] = Departure(now, why, ending)
        if len(self._departures) > MAX_REMEMBERED_NODES:
            forgotten, _ = self._departures.popitem(last=False)
            self.forget(forgotten)
        self._tell(agent.node, False)

    def _tell(self, node: str, connected: bool) -> None:
        for changed in tuple(self._watchers):
            changed(node, connected)
