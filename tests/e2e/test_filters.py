"""
Filters in front of a real cluster.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .case import ClusterCase, Follower
from .cluster import ADMIN
from .process import in_namespace, wait_for

SLICES = "/apis/discovery.k8s.io/v1beta1/namespaces/default/endpointslices"
KUBE_PROXY = "kube-proxy/v1.20.2"
INGRESS = "my-ingress/1.0"
TOPOLOGY = "openyurt.io/topologyKeys"
SELECTOR = "?labelSelector=kubernetes.io/service-name%3Dfiltered"
MANIFEST = Path(__file__).parents[2] / "etc" / "kubernetes" / "yurthub.yaml"


class FilterTests(ClusterCase):
    """
    What kube-proxy is shown.
    """

    def make_endpoints(self, topology: str = "kubernetes.io/hostname") -> None:
        """
        A Service that asks for endpoints near by, with one on its own node and one elsewhere.
        """
        here, elsewhere = self.cluster.node.name, "elsewhere"
        metadata = {"name": "filtered", "annotations": {TOPOLOGY: topology}}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}}
        endpoints = [
            {"addresses": [f"10.244.9.{number}"], "conditions": {"ready": True}, "topology": {"kubernetes.io/hostname": node}}
            for number, node in ((1, here), (2, elsewhere))
        ]
        slice_ = {
            "apiVersion": "discovery.k8s.io/v1beta1",
            "kind": "EndpointSlice",
            "metadata": {"name": "filtered-1", "labels": {"kubernetes.io/service-name": "filtered"}},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"port": 80}],
        }
        self.addCleanup(self.cluster.kubectl, "delete", "service/filtered", "endpointslice/filtered-1")
        self.cluster.apply(service, slice_)

    def addresses(self, agent: str) -> list[str]:
        """
        The endpoints that a component is shown.
        """
        answer = self.cluster.ask_hub(SLICES + SELECTOR, agent=agent)
        return sorted(endpoint["addresses"][0] for item in answer.json["items"] for endpoint in item["endpoints"])

    def events(self, text: str) -> list[dict[str, Any]]:
        """
        The events of a watch, as far as they are whole.
        """
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]

    def watch_slices(self, agent: str = KUBE_PROXY) -> Follower:
        """
        A component's watch, from what it is shown now.
        """
        version = self.cluster.ask_hub(SLICES + SELECTOR, agent=agent).json["metadata"]["resourceVersion"]
        url = f"http://127.0.0.1:10261{SLICES}{SELECTOR}&watch=true&resourceVersion={version}"
        return self.follow(in_namespace(self.cluster.node.namespace, ["curl", "-s", "-g", "-N", "-A", agent, url]))

    def told(self, watch: Follower) -> list[list[str]]:
        """
        The endpoints that a watch was told, event by event.
        """
        return [[one["addresses"][0] for one in event["object"]["endpoints"]] for event in self.events(watch.text)]

    def degraded(self, name: str) -> bool:
        """
        What the hub's metrics say of a filter.
        """
        return f'node_yurthub_filter_degraded{{filter="{name}"}} 1.0' in self.cluster.ask_hub("/metrics", base=ADMIN).body

    def serve(self, kind: str) -> None:
        """
        Let the cluster have a kind of OpenYurt's, as a CRD.
        """
        name = f"{kind.lower()}s.apps.openyurt.io"
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        version = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        self.addCleanup(self.cluster.kubectl, "delete", "crd", name, "--ignore-not-found")
        self.cluster.apply(
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": name},
                "spec": {
                    "group": "apps.openyurt.io",
                    "scope": "Cluster",
                    "names": {"plural": f"{kind.lower()}s", "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
                    "versions": [version],
                },
            }
        )
        self.cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=100s")

    def put_pool(self, *nodes: str) -> None:
        """
        The pool of this node.
        """
        metadata = {"name": "shore"}
        kind = {"apiVersion": "apps.openyurt.io/v1alpha1", "kind": "NodePool"}
        self.cluster.apply({**kind, "metadata": metadata, "spec": {"type": "Edge"}, "status": {"nodes": list(nodes)}})

    def test_pools_come_later(self) -> None:
        """
        Where there is neither the CRD of NodePools nor the right to read them kube-proxy gets all endpoints at once, with a
        warning; when there are, its open watch is told the difference, and so at each change of the pool, and when the CRD goes.
        The real kube-proxy makes rules of these endpoints.  With NodeBuckets it is the same.
        """
        node, cluster = self.cluster.node, self.cluster
        cluster.kubectl("delete", "-f", str(MANIFEST), "--ignore-not-found")
        self.addCleanup(cluster.kubectl, "label", "node", node.name, "apps.openyurt.io/nodepool-")
        cluster.kubectl("label", "node", node.name, "apps.openyurt.io/nodepool=shore")
        self.make_endpoints("openyurt.io/nodepool")
        near, both = ["10.244.9.1"], ["10.244.9.1", "10.244.9.2"]
        answer = cluster.ask_hub(SLICES + SELECTOR, agent=KUBE_PROXY)
        self.assertLess(answer.seconds, 3)
        self.assertEqual(self.addresses(KUBE_PROXY), both)
        self.assertIn("servicetopology", answer.headers["warning"])
        self.assertTrue(self.degraded("servicetopology"))
        watch = self.watch_slices()
        node.start_kube_proxy(cluster.hub_kubeconfig)
        self.addCleanup(node.stop_kube_proxy)
        address = cluster.kubectl("get", "service", "filtered", "-o", "jsonpath={.spec.clusterIP}")

        def rules() -> list[str]:
            said = node.run("iptables-save", "-t", "nat")
            return [one for one in both if address in said and f"--to-destination {one}:" in said]

        wait_for("kube-proxy's rules", lambda: rules() == both)
        self.serve("NodePool")
        self.put_pool(node.name)
        cluster.kubectl("apply", "-f", str(MANIFEST))
        wait_for("the difference", lambda: self.told(watch) == [near])
        self.assertFalse(self.degraded("servicetopology"))
        self.assertNotIn("warning", cluster.ask_hub(SLICES + SELECTOR, agent=KUBE_PROXY).headers)
        wait_for("kube-proxy's rules", lambda: rules() == near)
        self.put_pool(node.name, "elsewhere")
        wait_for("the next difference", lambda: self.told(watch) == [near, both], 30)
        self.put_pool(node.name)
        wait_for("the third difference", lambda: self.told(watch) == [near, both, near], 30)
        cluster.kubectl("delete", "crd", "nodepools.apps.openyurt.io")
        wait_for("the last difference", lambda: self.told(watch) == [near, both, near, both])
        wait_for("kube-proxy's rules", lambda: rules() == both)
        self.serve("NodeBucket")
        bucket = {"metadata": {"name": "shore-1", "labels": {"openyurt.io/pool-name": "shore"}}, "nodes": [{"name": node.name}]}
        cluster.apply({"apiVersion": "apps.openyurt.io/v1alpha1", "kind": "NodeBucket", "numNodes": 1, **bucket})
        self.restart_hub("--enable-pool-service-topology")
        wait_for("filtered slices", lambda: self.addresses(KUBE_PROXY) == near)
        wait_for("kube-proxy's rules", lambda: rules() == near)

    def test_topology(self) -> None:
        """
        kube-proxy is shown the endpoints of its node, others all; an open watch hears when the Service changes its mind, and one
        of another component when the ConfigMap names that; without the cloud, and after a restart without it, all is as it was.
        """
        self.cluster.kubectl("apply", "-f", str(MANIFEST))
        self.restart_hub("--cache-agents", "my-ingress")
        self.make_endpoints()
        near, both = ["10.244.9.1"], ["10.244.9.1", "10.244.9.2"]
        wait_for("filtered slices", lambda: self.addresses(KUBE_PROXY) == near)
        self.assertEqual(self.addresses("kubelet/v1.20.2"), both)
        watch = self.watch_slices()
        self.cluster.kubectl("annotate", "service", "filtered", f"{TOPOLOGY}-")
        watch.wait_for("10.244.9.2")
        (event,) = self.events(watch.text)
        self.assertEqual((event["type"], event["object"]["metadata"]["name"]), ("MODIFIED", "filtered-1"))
        self.cluster.kubectl("annotate", "service", "filtered", f"{TOPOLOGY}=kubernetes.io/hostname")
        wait_for("filtered slices", lambda: self.addresses(KUBE_PROXY) == near)
        watch = self.watch_slices(INGRESS)
        self.addCleanup(self.cluster.kubectl, "delete", "configmap", "yurt-hub-cfg", "-n", "kube-system", "--ignore-not-found")
        self.cluster.kubectl(
            "create", "configmap", "yurt-hub-cfg", "-n", "kube-system", "--from-literal=servicetopology=my-ingress"
        )
        wait_for("the difference", lambda: self.told(watch) == [near], 20)
        self.cluster.kubectl("delete", "configmap", "yurt-hub-cfg", "-n", "kube-system")
        wait_for("the difference back", lambda: self.told(watch) == [near, both], 20)
        self.addCleanup(self.cluster.heal)
        self.cluster.cut()
        wait_for("the loss of the cloud", lambda: not self.cloud_is_reachable())
        self.assertEqual(self.addresses(KUBE_PROXY), near)
        self.restart_hub()
        wait_for("slices after a restart", lambda: self.cluster.ask_hub(SLICES + SELECTOR, agent=KUBE_PROXY).status == 200)
        self.assertEqual(self.addresses(KUBE_PROXY), near)
