"""
Nodes and ports that are told to a test's subject, through the same objects that hear of them from a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, cast

from yurt.tunnel.server.node import Node
from yurt.tunnel.server.nodes import Nodes
from yurt.tunnel.server.ports import LivePorts, Ports

T = TypeVar("T")


class ToldInformer(Generic[T]):
    """
    What is used of :class:`yurt.kube.informer.Informer`; its items are those of :meth:`tell`.
    """

    def __init__(self) -> None:
        self.synced = False
        self.problem: str | None = None
        self.items: dict[str, T] = {}
        self._callbacks: list[Callable[[str, T | None, T | None], object]] = []

    def subscribe(self, callback: Callable[[str, T | None, T | None], object]) -> Callable[[], None]:
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def tell(self, key: str, new: T | None) -> None:
        """
        An item is this now, or gone.
        """
        old = self.items.pop(key, None)
        if new is not None:
            self.items[key] = new
        for callback in self._callbacks:
            callback(key, old, new)


class ToldCluster:
    """
    ``nodes`` and ``ports`` of a cluster whose lists have come unless ``synced`` is false.
    """

    def __init__(self, synced: bool = True) -> None:
        self._nodes: ToldInformer[Node] = ToldInformer()
        self._ports: ToldInformer[Ports] = ToldInformer()
        self.nodes = Nodes(cast(Any, self._nodes))
        self.ports = LivePorts(cast(Any, self._ports))
        self.sync(synced)

    def sync(self, synced: bool = True) -> None:
        """
        Both lists have come.
        """
        self._nodes.synced = self._ports.synced = synced

    def node(self, name: str, *addresses: str, has_agent: bool = False, ready: bool = True, here: bool = False) -> None:
        """
        A node is there, or has changed.
        """
        self._nodes.tell(name, Node(name, addresses, has_agent=has_agent, ready=ready, here=here))

    def no_node(self, name: str) -> None:
        """
        A node is gone.
        """
        self._nodes.tell(name, None)

    def set_direct(self, addresses: Iterable[str]) -> None:
        """
        Let each address be that of one node without an agent, and let there be no others.
        """
        wanted = set(addresses)
        for name in set(self._nodes.items) - wanted:
            self.no_node(name)
        for address in sorted(wanted):
            self.node(address, address)

    def set_http_ports(self, *ports: int) -> None:
        """
        The ConfigMap names these ports.
        """
        self._ports.tell("cfg", Ports(http=frozenset(ports)))
