"""
What the hub itself reads of a cluster that is scripted by hand.
"""

from __future__ import annotations

import itertools
from typing import Any

from tests.hub.memory_site import HandExchange, MemorySite, event
from yurt.http.heads import get_header
from yurt.hub.filters.sources import BUCKETS_PATH, NODES_PATH, POOLS_PATHS, SERVICES_PATH

SETTINGS_PATH = "/api/v1/namespaces/kube-system/configmaps"
SLICES_PATH = "/apis/discovery.k8s.io/v1/endpointslices"
POOLS_PATH = "/apis/apps.openyurt.io/v1beta1/nodepools"
"""The one version of NodePools that this cluster has."""
KINDS = {
    SETTINGS_PATH: ("ConfigMap", "v1"),
    SERVICES_PATH: ("Service", "v1"),
    NODES_PATH: ("Node", "v1"),
    POOLS_PATH: ("NodePool", "apps.openyurt.io/v1beta1"),
    BUCKETS_PATH: ("NodeBucket", "apps.openyurt.io/v1alpha1"),
}


class Cluster:
    """
    Answers the hub's own lists and watches; what clients ask waits for the test.  ``refused`` are paths that are answered with a
    status instead.
    """

    def __init__(self, site: MemorySite) -> None:
        self.site = site
        self.objects: dict[str, dict[str, dict[str, Any]]] = {path: {} for path in KINDS}
        self.refused: dict[str, int] = {}
        self.versions = itertools.count(100)
        self.lists = 0
        for upstream in site.upstreams:
            upstream.on_request = self.asked

    def asked(self, exchange: HandExchange) -> None:
        """
        A request arrives at the cloud.
        """
        agent = get_header(exchange.head.headers, b"user-agent") or b""
        if not agent.startswith(b"yurthub/") or exchange.path not in (*KINDS, *POOLS_PATHS):
            return
        if exchange.path in self.refused or exchange.path not in KINDS:
            code = self.refused.get(exchange.path, 404)
            exchange.answer(code, {"kind": "Status", "code": code, "message": "no", "reason": "NotFound"})
        elif exchange.query.get("watch") == "true":
            exchange.begin()
        else:
            self.lists += 1
            kind, api_version = KINDS[exchange.path]
            items = list(self.objects[exchange.path].values())
            metadata = {"resourceVersion": str(next(self.versions))}
            exchange.answer(200, {"kind": f"{kind}List", "apiVersion": api_version, "metadata": metadata, "items": items})

    def put(self, path: str, name: str, *, namespace: str = "", metadata: Any = None, **fields: Any) -> None:
        """
        An object comes or changes.
        """
        kind, api_version = KINDS[path]
        meta = {"name": name, "namespace": namespace, "resourceVersion": str(next(self.versions)), **(metadata or {})}
        document = {"kind": kind, "apiVersion": api_version, "metadata": meta, **fields}
        event_type = "MODIFIED" if f"{namespace}/{name}" in self.objects[path] else "ADDED"
        self.objects[path][f"{namespace}/{name}"] = document
        self._tell(path, event_type, document)

    def remove(self, path: str, name: str, *, namespace: str = "") -> None:
        """
        An object goes.
        """
        document = self.objects[path].pop(f"{namespace}/{name}")
        document["metadata"]["resourceVersion"] = str(next(self.versions))
        self._tell(path, "DELETED", document)

    def _tell(self, path: str, event_type: str, document: dict[str, Any]) -> None:
        for exchange in self.site.at_cloud(path):
            agent = get_header(exchange.head.headers, b"user-agent") or b""
            if agent.startswith(b"yurthub/") and exchange.query.get("watch") == "true":
                exchange.send(event(event_type, document))

    def service(self, name: str, topology: str | None = None) -> None:
        """
        A Service of the namespace default that asks for a topology.
        """
        annotations = {} if topology is None else {"openyurt.io/topologyKeys": topology}
        self.put(SERVICES_PATH, name, namespace="default", metadata={"annotations": annotations}, spec={})

    def pool(self, name: str, *nodes: str, host_network: bool = False) -> None:
        """
        A NodePool with these nodes.
        """
        self.put(POOLS_PATH, name, spec={"hostNetwork": host_network}, status={"nodes": list(nodes)})

    def node(self, pool: str = "") -> None:
        """
        This node, in a pool.
        """
        self.put(NODES_PATH, "n1", metadata={"labels": {"apps.openyurt.io/nodepool": pool} if pool else {}})

    def settings(self, **data: str) -> None:
        """
        The ConfigMap yurt-hub-cfg.
        """
        self.put(SETTINGS_PATH, "yurt-hub-cfg", namespace="kube-system", data=data)


def filtering_site(case: Any, **settings: Any) -> tuple[MemorySite, Cluster]:
    """
    A hub with all its filters, online, in a cluster where node n1 is in no pool and no Service asks for anything.
    """
    site = MemorySite(case, **settings)
    cluster = Cluster(site)
    cluster.node()
    begin(site)
    return site, cluster


def begin(site: MemorySite) -> None:
    """
    Start the hub's filters, and wait until they know what there is to know.
    """
    site.hub.start_filters()
    site.online()
    site.run_until(lambda: site.hub.filters.settled)
    site.run(0.5)


def slice_list(items: list[dict[str, Any]], version: int, **metadata: str) -> dict[str, Any]:
    """
    An EndpointSliceList as an API server sends it.
    """
    listed = [{key: value for key, value in item.items() if key not in ("kind", "apiVersion")} for item in items]
    meta = {"resourceVersion": str(version), **metadata}
    return {"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": meta, "items": listed}
