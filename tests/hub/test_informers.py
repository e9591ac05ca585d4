"""
Clients that list and watch through filters, as client-go's informers do, while everything happens to the cluster, the way to it,
the hub and themselves: what they know in the end is what the filters show of the cluster.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.interfaces import IDelayedCall
from twisted.trial.unittest import SynchronousTestCase

from tests.hub.filters.cluster import POOLS_PATH, SLICES_PATH, begin
from tests.hub.filters.fixtures import endpoint_slice, service
from tests.hub.memory_site import HandExchange, MemoryRequest, MemorySite, bookmark, error_event, event
from yurt.hub import comparison
from yurt.hub.filters.discardcloudservice import DISCARD
from yurt.hub.filters.nodeportisolation import LISTEN
from yurt.hub.filters.servicetopology import HOST, POOL, TOPOLOGY_KEYS
from yurt.hub.filters.sources import NODES_PATH, SERVICES_PATH

SEEDS, STEPS = 25, 50
FIRST = 0
KINDS = {
    SERVICES_PATH: ("Service", "v1"),
    SLICES_PATH: ("EndpointSlice", "discovery.k8s.io/v1"),
    NODES_PATH: ("Node", "v1"),
    POOLS_PATH: ("NodePool", "apps.openyurt.io/v1beta1"),
}
NODES = ("n1", "n2", "n3")
HISTORY = 25
"""Changes that an API server can tell again."""

Document = dict[str, Any]


class ModelCloud:
    """
    An API server with a history, as short as they come.
    """

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.objects: dict[str, dict[str, Document]] = {path: {} for path in KINDS}
        self.history: list[tuple[int, str, bytes]] = []
        self.version = 100
        self.watches: list[tuple[str, HandExchange]] = []

    def asked(self, exchange: HandExchange) -> None:
        """
        A request arrives.
        """
        path = exchange.path
        if path not in KINDS:
            exchange.answer(404, {"kind": "Status", "code": 404, "reason": "NotFound", "message": "no"})
        elif exchange.query.get("watch") == "true":
            self._watched(exchange, int(exchange.query.get("resourceVersion") or 0))
        else:
            kind, api_version = KINDS[path]
            items = [{key: one[key] for key in one if key not in ("kind", "apiVersion")} for one in self.objects[path].values()]
            metadata = {"resourceVersion": str(self.version)}
            exchange.answer(200, {"kind": f"{kind}List", "apiVersion": api_version, "metadata": metadata, "items": items})

    def _watched(self, exchange: HandExchange, version: int) -> None:
        exchange.begin()
        if version < self.version - HISTORY:
            exchange.send(error_event(410, "Expired"))
            exchange.end()
            return
        self.watches.append((exchange.path, exchange))
        missed = [line for at, path, line in self.history if path == exchange.path and at > version]
        if missed:
            exchange.send(b"".join(missed))

    def put(self, path: str, name: str, document: Document) -> None:
        """
        An object comes or changes.
        """
        kind, api_version = KINDS[path]
        self.version += 1
        metadata = {**document["metadata"], "name": name, "resourceVersion": str(self.version)}
        document = {**document, "kind": kind, "apiVersion": api_version, "metadata": metadata}
        happened = "MODIFIED" if name in self.objects[path] else "ADDED"
        self.objects[path][name] = document
        self._tell(path, happened, document)

    def remove(self, path: str, name: str) -> None:
        """
        An object goes, if it is there.
        """
        if name in self.objects[path]:
            self.version += 1
            document = self.objects[path].pop(name)
            metadata = {**document["metadata"], "resourceVersion": str(self.version)}
            self._tell(path, "DELETED", {**document, "metadata": metadata})

    def _tell(self, path: str, happened: str, document: Document) -> None:
        line = event(happened, document)
        self.history = [*self.history, (self.version, path, line)][-HISTORY:]
        self._send(path, line)

    def _send(self, path: str, line: bytes) -> None:
        self.watches = [(watched, exchange) for watched, exchange in self.watches if exchange.is_open]
        for watched, exchange in list(self.watches):
            if watched == path:
                exchange.send(line)

    def mark(self) -> None:
        """
        Bookmarks for all.
        """
        for path, (kind, _) in KINDS.items():
            self._send(path, bookmark(self.version, kind))


class Informer:
    """
    One of kube-proxy's: what it knows, by name.  It lists, watches from there, and does so again from where it is.
    """

    def __init__(self, site: MemorySite, path: str, case: SynchronousTestCase) -> None:
        self.site = site
        self.path = path
        self.case = case
        self.known: dict[str, Document] = {}
        self.version = ""
        self.request: MemoryRequest | None = None
        self.listing = False
        self.read = 0
        self.said: list[str] = []

    def look(self) -> None:
        """
        Take in what has come, and ask for more where nothing will come.
        """
        request = self.request
        if request is None:
            self.listing = not self.version
            query = "" if self.listing else f"?watch=true&resourceVersion={self.version}&allowWatchBookmarks=true"
            self.request = self.site.ask("GET", self.path + query, agent="kube-proxy")
            self.read = 0
        elif self.listing:
            if request.finished or request.aborted:
                self.request = None
                if request.status == 200:
                    self._take_list(request.json)
        else:
            self._take_events(request)

    def _take_list(self, found: Document) -> None:
        self.known = {one["metadata"]["name"]: one for one in found["items"]}
        self.version = found["metadata"]["resourceVersion"]
        self.said.append(f"list {self.version}: {sorted(self.known)}")

    def _take_events(self, request: MemoryRequest) -> None:
        if request.status == 410:
            self.version = ""
        elif request.status == 200:
            data = request.data[self.read : request.data.rfind(b"\n") + 1]
            self.read += len(data)
            for line in data.splitlines():
                self._take(json.loads(line))
        if request.finished or request.aborted or request.status not in (0, 200):
            self.request = None

    def _take(self, told: Document) -> None:
        kind, document = told["type"], told["object"]
        if kind == "ERROR":
            self.version = ""
            return
        metadata = document["metadata"]
        self.case.assertGreaterEqual(int(metadata["resourceVersion"]), int(self.version or 0), told)
        self.version = metadata["resourceVersion"]
        self.said.append(f"{kind} {metadata.get('name', '')} {self.version}")
        if kind == "DELETED":
            self.known.pop(metadata["name"], None)
        elif kind != "BOOKMARK":
            self.known[metadata["name"]] = document

    def hang_up(self) -> None:
        """
        The connection breaks; what has come before counts.
        """
        if self.request is not None:
            self.look()
        if self.request is not None:
            self.request.hang_up()
            self.request = None

    def forget(self) -> None:
        """
        The component starts anew.
        """
        self.hang_up()
        self.known, self.version = {}, ""


class World:
    """
    A cluster, a hub, and kube-proxy's informers of Services and EndpointSlices.
    """

    def __init__(self, case: SynchronousTestCase, seed: int) -> None:
        self.case = case
        self.draw = random.Random(seed)
        random.seed(seed)  # of which the hub's own chances come
        case.addCleanup(random.seed)
        self.cloud = ModelCloud(self.draw)
        self.pool_of_node = ""
        self.cloud.put(NODES_PATH, "n1", {"metadata": {}})
        self.site = MemorySite(case)
        self.site.upstream.on_request = self.cloud.asked
        later = self.site.clock.callLater

        def one_a_turn(delay: float, call: Callable[..., object], *args: object, **kwargs: object) -> IDelayedCall:
            return later(max(delay, 0.001), call, *args, **kwargs)

        cast(Any, self.site.clock).callLater = one_a_turn  # a Clock does all that is due at once
        begin(self.site)
        self.informers = [Informer(self.site, path, case) for path in (SERVICES_PATH, SLICES_PATH)]
        self.online = True
        self.did: list[str] = []

    def run(self, seconds: float) -> None:
        """
        Let time pass, in which the informers do their work.
        """
        for _ in range(max(1, round(seconds / 0.02))):
            self.site.run(0.02)
            for informer in self.informers:
                informer.look()

    # What happens

    def step(self) -> None:
        """
        Something happens, and some time passes, often too little for the hub to be done with it.
        """
        acts = {
            self.change_slice: 8,
            self.remove_slice: 2,
            self.change_service: 6,
            self.remove_service: 1,
            self.change_pool: 3,
            self.move: 2,
            self.cloud.mark: 1,
            self.break_off: 1,
            self.hang_up: 2,
            self.forget: 1,
            self.come_and_go: 1,
            self.reboot: 1,
        }
        [act] = self.draw.choices(list(acts), list(acts.values()))
        act()
        self.did.append(act.__name__)
        self.run(self.draw.choice((0.0, 0.02, 0.04, 0.12, 0.5)))

    def change_slice(self) -> None:
        number = self.draw.randrange(8)
        nodes = self.draw.sample(NODES, self.draw.randrange(4))
        self.cloud.put(SLICES_PATH, f"slice-{number}", endpoint_slice(f"svc-{number % 3}", *nodes))

    def remove_slice(self) -> None:
        self.cloud.remove(SLICES_PATH, f"slice-{self.draw.randrange(8)}")

    def change_service(self) -> None:
        annotations = {
            name: self.draw.choice(values)
            for name, values in {
                TOPOLOGY_KEYS: (HOST, *POOL, "other"),
                DISCARD: ("true", "false"),
                LISTEN: ("p", "-p,*", "q,-p", "", "*"),
            }.items()
            if self.draw.random() < 0.5
        }
        kind = self.draw.choice(("ClusterIP", "NodePort", "LoadBalancer"))
        name = f"svc-{self.draw.randrange(3)}"
        self.cloud.put(SERVICES_PATH, name, service(name, annotations=annotations, type=kind))

    def remove_service(self) -> None:
        self.cloud.remove(SERVICES_PATH, f"svc-{self.draw.randrange(3)}")

    def change_pool(self) -> None:
        name = self.draw.choice(("p", "q"))
        if self.draw.random() < 0.2:
            self.cloud.remove(POOLS_PATH, name)
        else:
            nodes = self.draw.sample(NODES, self.draw.randrange(4))
            self.cloud.put(POOLS_PATH, name, {"metadata": {}, "status": {"nodes": nodes}})

    def move(self) -> None:
        self.pool_of_node = self.draw.choice(("", "p", "q", "missing"))
        labels = {"apps.openyurt.io/nodepool": self.pool_of_node} if self.pool_of_node else {}
        self.cloud.put(NODES_PATH, "n1", {"metadata": {"labels": labels}})

    def break_off(self) -> None:
        for _, exchange in self.cloud.watches:
            if self.draw.random() < 0.5:
                exchange.fail()

    def hang_up(self) -> None:
        self.draw.choice(self.informers).hang_up()

    def forget(self) -> None:
        self.draw.choice(self.informers).forget()

    def come_and_go(self) -> None:
        self.online = not self.online
        if self.online:
            self.site.online()
        else:
            self.site.offline()

    def reboot(self) -> None:
        for informer in self.informers:
            informer.hang_up()
        if self.draw.random() < 0.5:
            self.site.reboot()
        else:
            self.site.crash()
        self.site.upstream.alive = self.online
        self.site.hub.start_filters()

    # What is to be known

    def settle(self) -> None:
        """
        The cloud is there, and nothing happens any more but a bookmark, as API servers send one every minute.
        """
        if not self.online:
            self.come_and_go()
        self.run(20.0)
        self.cloud.mark()
        self.run(20.0)

    def shown(self) -> list[dict[str, Document]]:
        """
        Services and slices as filters are to show them.
        """
        pools = {name: one["status"]["nodes"] for name, one in self.cloud.objects[POOLS_PATH].items()}
        pool = self.pool_of_node or min((name for name, nodes in pools.items() if "n1" in nodes), default="")
        services, slices = self.cloud.objects[SERVICES_PATH], self.cloud.objects[SLICES_PATH]
        return [
            {name: one for name, one in services.items() if not self._is_hidden(one, pool)},
            {name: self._near(one, pool, pools) for name, one in slices.items()},
        ]

    def _is_hidden(self, found: Document, pool: str) -> bool:
        annotations, kind = found["metadata"].get("annotations", {}), found["spec"]["type"]
        if kind == "LoadBalancer" and annotations.get(DISCARD) == "true":
            return True
        if kind == "ClusterIP" or LISTEN not in annotations or not pool:
            return False
        terms = annotations[LISTEN].split(",")
        return f"-{pool}" in terms or not (pool in terms or "*" in terms)

    def _near(self, found: Document, pool: str, pools: dict[str, list[str]]) -> Document:
        owner = self.cloud.objects[SERVICES_PATH].get(found["metadata"]["labels"]["kubernetes.io/service-name"])
        wanted = {} if owner is None else owner["metadata"].get("annotations", {})
        near: set[str] = set(NODES)
        if wanted.get(TOPOLOGY_KEYS) == HOST or (wanted.get(TOPOLOGY_KEYS) in POOL and not pool):
            near = {"n1"}
        elif wanted.get(TOPOLOGY_KEYS) in POOL and pool in pools:
            near = {"n1", *pools[pool]}
        return {**found, "endpoints": [one for one in found["endpoints"] if one["nodeName"] in near]}


def plain(known: dict[str, Document]) -> dict[str, Document]:
    """
    Objects without what depends on the way on which they came.
    """
    return {
        name: _without(one, "kind", "apiVersion") | {"metadata": _without(one["metadata"], "resourceVersion")}
        for name, one in known.items()
    }


def _without(document: Document, *fields: str) -> Document:
    return {key: value for key, value in document.items() if key not in fields}


class InformerTests(SynchronousTestCase):
    """
    Random histories.
    """

    def test_consistent(self) -> None:
        """
        Whatever happens, once it is quiet kube-proxy knows what it would be told if it listed now.
        """
        self.patch(comparison, "STEP_ITEMS", 2)
        for seed in range(FIRST, FIRST + SEEDS):
            world = World(self, seed)
            for part in range(2):
                for _ in range(STEPS // 2):
                    world.step()
                world.settle()
                for informer, shown in zip(world.informers, world.shown(), strict=True):
                    said = "\n".join((f"seed {seed}.{part}", *world.did, *informer.said[-40:]))
                    self.assertEqual(plain(informer.known), plain(shown), said)
            world.site.stop()
