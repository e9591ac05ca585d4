"""
The nodes of the cluster, by name and by address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from yurt.kube.api import ApiClient
from yurt.kube.informer import Informer
from yurt.tunnel.server.node import MAX_ADDRESSES, Node, is_within, read_node, this_boot, usual_spelling

Callback = Callable[["Node | None", "Node | None"], object]


class Nodes:
    """
    The nodes by name and by address.

    With an informer they are the cluster's; without one, which is without a cluster, those that :meth:`learn` was told.

    Two nodes may have the same address: sites often use the same private network.  Of such nodes those that have an agent
    connected, which ``connected`` knows by name, come first, then those with the address as an InternalIP, then those first
    in the alphabet.  A caller that means one of several such nodes must name it.
    """

    log = Logger()

    def __init__(self, informer: Informer[Node] | None = None, connected: Callable[[str], bool] = lambda name: False) -> None:
        self._informer = informer
        self._connected = connected
        self._nodes: dict[str, Node] = {}
        self._by_address: dict[str, set[str]] = {}
        self._subscribers: list[Callback] = []
        if informer is not None:
            informer.subscribe(lambda key, old, new: self._changed(old, new))

    @property
    def synced(self) -> bool:
        """
        Whether all nodes of the cluster are known.
        """
        return self._informer is None or self._informer.synced

    @property
    def problem(self) -> str | None:
        """
        Why what is known may be out of date.
        """
        return None if self._informer is None else self._informer.problem

    @property
    def of_cluster(self) -> bool:
        """
        Whether the cluster says which nodes there are.
        """
        return self._informer is not None

    def __len__(self) -> int:
        return len(self._nodes)

    def all(self) -> list[Node]:
        """
        All nodes, in no order.
        """
        return list(self._nodes.values())

    def by_name(self, name: str) -> Node | None:
        """
        The node with this name.
        """
        return self._nodes.get(name)

    def by_address(self, address: str) -> Node | None:
        """
        The node that has this IP address, in any spelling, or this host name; see the class for several.
        """
        key = usual_spelling(address) or address.lower()
        names = self._by_address.get(key)
        if not names:
            return None
        if len(names) > 1:
            return self._nodes[min(names, key=lambda name: self._rank(name, key))]
        return self._nodes[next(iter(names))]

    def by_host(self, host: str) -> Node | None:
        """
        The node that a host means: by its name, else by a host name or an address of its own.  The dot behind a whole domain
        name is none of it.
        """
        host = host.removesuffix(".")
        return self._nodes.get(host) or self._nodes.get(host.lower()) or self.by_address(host)

    def by_pod(self, address: str) -> Node | None:
        """
        The node whose pods have addresses like this one; all nodes are looked at.
        """
        spelt = usual_spelling(address)
        return next((node for node in self._nodes.values() if spelt and is_within(spelt, node.pod_networks)), None)

    def _rank(self, name: str, address: str) -> tuple[bool, bool, str]:
        return not self._connected(name), self._nodes[name].internal_ip != address, name

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """
        Call ``callback(old, new)`` after each change of a node, with None for one that was not or is not any more;
        answers how to end that.
        """
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def learn(self, name: str, addresses: Iterable[str] = ()) -> None:
        """
        Without a cluster: an agent of this node connected, and says that these are its addresses.  With one the cluster's
        word counts, and this does nothing.
        """
        if self._informer is None:
            spelt = dict.fromkeys(usual_spelling(address) for address in list(addresses)[:MAX_ADDRESSES])
            spelt.pop("", None)
            kept = tuple(spelt)
            old, new = self.by_name(name), Node(name, kept, next(iter(kept), ""), has_agent=True, edge=True, ready=True)
            if old != new:
                self._changed(old, new)

    def forget(self, name: str) -> None:
        """
        Without a cluster: no agent of this node is connected any more.
        """
        if self._informer is None and name in self._nodes:
            self._changed(self._nodes[name], None)

    def _changed(self, old: Node | None, new: Node | None) -> None:
        if old is not None:
            self._unindex(old)
        if new is not None:
            self._nodes[new.name] = new
            for key in (*new.addresses, *new.names):
                self._by_address.setdefault(key, set()).add(new.name)
        for subscriber in tuple(self._subscribers):
            with self.log.failuresHandled("a subscriber to the nodes failed"):
                subscriber(old, new)

    def _unindex(self, node: Node) -> None:
        del self._nodes[node.name]
        for key in {*node.addresses, *node.names}:
            names = self._by_address[key]
            names.discard(node.name)
            if not names:
                del self._by_address[key]


def nodes_informer(reactor: IReactorTime, client: ApiClient) -> Informer[Node]:
    """
    An informer on all nodes of the cluster.
    """
    return Informer(reactor, client, "/api/v1/nodes", partial(read_node, boot=this_boot()), what="nodes")
