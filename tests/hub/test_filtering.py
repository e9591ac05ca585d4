"""
Tests of filters in a whole hub, over sockets.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from tests.hub.filters.fixtures import endpoint_slice, nodes_of, service
from tests.hub.site import NODE, Reply, Site, Stream, header, names, source, until
from tests.miniapi.resources import custom
from yurt.hub.filters.discardcloudservice import DISCARD
from yurt.hub.filters.focus import FilterSettings

SERVICES = "/api/v1/services"
SLICES = "/apis/discovery.k8s.io/v1beta1/endpointslices"
POOL = "openyurt.io/nodepool"
NODE_POOL = custom("apps.openyurt.io", "v1beta1", "nodepools", "NodePool", namespaced=False, status=True)


def pool(*nodes: str) -> dict[str, Any]:
    """
    The NodePool p.
    """
    return {"metadata": {"name": "p"}, "spec": {}, "status": {"nodes": list(nodes)}}


async def told_next(stream: Stream) -> dict[str, Any]:
    """
    The next event of a watch that has not ended.
    """
    event = await stream.next()
    assert event is not None, "the watch ended"
    return event


class FilteringTests(TestCase):
    """
    A hub with its filters in front of a cloud with pools.
    """

    async def begin(self, *types: Any, **settings: Any) -> Site:
        """
        A site whose node is in the pool p, as far as the cloud knows NodePools.
        """
        self.site = Site(self, filters=FilterSettings(), **settings)
        for one in types:
            self.site.api.catalogue.add(one)
        self.site.api.put("nodes", {"metadata": {"name": NODE, "labels": {"apps.openyurt.io/nodepool": "p"}}})
        if types:
            self.site.api.put("nodepools", pool(NODE, "n2"))
        self.put_service("web", annotations={"openyurt.io/topologyKeys": POOL})
        self.site.api.put("endpointslices", self.slice(NODE, "n2", "n3"), "default")
        await self.site.start_online()
        await until(lambda: self.site.hub.filters.settled)
        return self.site

    def put_service(self, name: str, **fields: Any) -> None:
        """
        A Service in the cloud.
        """
        document = service(name, **fields)
        del document["metadata"]["resourceVersion"]
        self.site.api.put("services", document, "default")

    def slice(self, *nodes: str) -> dict[str, Any]:
        """
        The slice of the Service web.
        """
        document: dict[str, Any] = endpoint_slice("web", *nodes, version="v1beta1")
        del document["metadata"]["resourceVersion"]
        return document

    async def slices(self, agent: str = "kube-proxy") -> Reply:
        """
        The slices as a component lists them.
        """
        return await self.site.get(SLICES, agent=agent)

    def nodes(self, reply: Reply) -> list[str | None]:
        """
        The nodes of the first slice of a list.
        """
        return nodes_of(reply.json["items"][0])

    async def test_pool(self) -> None:
        """
        From list to watch to a change of the pool, without the cloud, and after a restart without it: kube-proxy sees its pool.
        """
        site = await self.begin(NODE_POOL)
        reply = await self.slices()
        self.assertEqual((self.nodes(reply), header(reply, "Warning")), ([NODE, "n2"], ""))
        self.assertEqual(self.nodes(await self.slices("kubelet")), [NODE, "n2", "n3"])
        version = reply.json["metadata"]["resourceVersion"]
        stream = await site.watch(f"{SLICES}?watch=true&resourceVersion={version}", agent="kube-proxy")
        site.api.put("nodepools", pool(NODE, "n3"))
        event = await told_next(stream)
        self.assertEqual((event["type"], nodes_of(event["object"])), ("MODIFIED", [NODE, "n3"]))
        site.api.put("endpointslices", self.slice("n2", "n3"), "default")
        event = await told_next(stream)
        self.assertEqual((event["type"], nodes_of(event["object"])), ("MODIFIED", ["n3"]))
        await site.offline()
        reply = await self.slices()
        self.assertEqual((self.nodes(reply), source(reply)), (["n3"], "cache"))
        await site.restart()
        reply = await self.slices()
        self.assertEqual((self.nodes(reply), source(reply)), (["n3"], "cache"))

    async def test_versions(self) -> None:
        """
        NodePools are read in the version that the cluster has, of those that OpenYurt has had; after a restart without the cloud
        from the cache.
        """
        for version in ("v1alpha1", "v1beta1", "v1beta2"):
            site = await self.begin(custom("apps.openyurt.io", version, "nodepools", "NodePool", namespaced=False, status=True))
            reply = await self.slices()
            self.assertEqual((self.nodes(reply), header(reply, "Warning")), ([NODE, "n2"], ""), version)
            site.api.put("nodepools", pool(NODE, "n3"))
            await until(lambda: self.site.hub.filters.facts.pool_nodes == {NODE, "n3"}, "the change is told")
            await site.offline()
            await site.restart()
            self.assertEqual(self.nodes(await self.slices()), [NODE, "n3"], version)
            await site.stop()

    async def test_hidden_over_a_cut(self) -> None:
        """
        A Service that is hidden while the link is cut is DELETED when it is back, and nothing comes twice.
        """
        site = await self.begin(NODE_POOL)
        self.put_service("balanced", type="LoadBalancer")
        reply = await site.get(SERVICES, agent="kube-proxy")
        self.assertEqual(names(reply), ["balanced", "web"])
        version = reply.json["metadata"]["resourceVersion"]
        stream = await site.watch(f"{SERVICES}?watch=true&resourceVersion={version}", agent="kube-proxy")
        await site.offline()
        self.put_service("balanced", type="LoadBalancer", annotations={DISCARD: "true"})
        self.put_service("other", type="ClusterIP")
        await site.online()
        told = [await told_next(stream) for _ in range(2)]
        named = [(event["type"], event["object"]["metadata"]["name"]) for event in told]
        self.assertEqual(named, [("DELETED", "balanced"), ("ADDED", "other")])
        self.assertEqual(names(await site.get(SERVICES, agent="kube-proxy")), ["other", "web"])

    async def test_no_pools(self) -> None:
        """
        Without the CRD nothing waits: all endpoints, a Warning, a metric, one line in the log; once it is there, the difference.
        """
        site = await self.begin()
        reply = await self.slices()
        self.assertEqual(self.nodes(reply), [NODE, "n2", "n3"])
        self.assertIn("servicetopology is not applied wholly: NodePools not known", header(reply, "Warning"))
        self.assertIn('node_yurthub_filter_degraded{filter="servicetopology"} 1.0', (await site.admin("/metrics")).body.decode())
        lines = [line for line in site.log if "filter servicetopology is not applied wholly" in line]
        self.assertEqual(len(lines), 1)
        version = reply.json["metadata"]["resourceVersion"]
        stream = await site.watch(f"{SLICES}?watch=true&resourceVersion={version}", agent="kube-proxy")
        site.api.catalogue.add(NODE_POOL)
        site.api.put("nodepools", pool(NODE))
        event = await told_next(stream)
        self.assertEqual(nodes_of(event["object"]), [NODE])
        await until(lambda: any("filter servicetopology is applied" in line for line in site.log))

    async def test_settings(self) -> None:
        """
        The ConfigMap adds a component, and the status page says so.
        """
        site = await self.begin(NODE_POOL)
        self.assertEqual(self.nodes(await self.slices("my-proxy")), [NODE, "n2", "n3"])
        site.api.put("configmaps", {"metadata": {"name": "yurt-hub-cfg"}, "data": {"servicetopology": "my-proxy"}}, "kube-system")
        await until(lambda: "my-proxy" in site.hub.filters.describe()["components"])
        self.assertEqual(self.nodes(await self.slices("my-proxy")), [NODE, "n2"])
        self.assertIn("my-proxy", (await site.status())["filters"]["components"])
