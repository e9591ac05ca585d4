"""
Filters in front of a real cluster.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .case import ClusterCase
from .process import in_namespace, wait_for

SLICES = "/apis/discovery.k8s.io/v1beta1/namespaces/default/endpointslices"
KUBE_PROXY = "kube-proxy/v1.20.2"
TOPOLOGY = "openyurt.io/topologyKeys"
SELECTOR = "?labelSelector=kubernetes.io/service-name%3Dfiltered"
MANIFEST = Path(__file__).parents[2] / "etc" / "kubernetes" / "yurthub.yaml"


class FilterTests(ClusterCase):
    """
    What kube-proxy is shown.
    """

    def make_endpoints(self) -> None:
        """
        A Service that asks for endpoints on its own node, with one there and one elsewhere.
        """
        here, elsewhere = self.cluster.node.name, "elsewhere"
        metadata = {"name": "filtered", "annotations": {TOPOLOGY: "kubernetes.io/hostname"}}
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

    def test_topology(self) -> None:
        """
        kube-proxy is shown the endpoints of its node, others all; an open watch hears when the Service changes its mind; without
        the cloud, and after a restart without it, all is as it was.
        """
        self.cluster.kubectl("apply", "-f", str(MANIFEST))
        self.make_endpoints()
        near, both = ["10.244.9.1"], ["10.244.9.1", "10.244.9.2"]
        wait_for("filtered slices", lambda: self.addresses(KUBE_PROXY) == near, 20)
        self.assertEqual(self.addresses("kubelet/v1.20.2"), both)
        version = self.cluster.ask_hub(SLICES + SELECTOR, agent=KUBE_PROXY).json["metadata"]["resourceVersion"]
        url = f"http://127.0.0.1:10261{SLICES}{SELECTOR}&watch=true&resourceVersion={version}"
        watch = self.follow(in_namespace(self.cluster.node.namespace, ["curl", "-s", "-g", "-N", "-A", KUBE_PROXY, url]))
        self.cluster.kubectl("annotate", "service", "filtered", f"{TOPOLOGY}-")
        watch.wait_for("10.244.9.2")
        (event,) = self.events(watch.text)
        self.assertEqual((event["type"], event["object"]["metadata"]["name"]), ("MODIFIED", "filtered-1"))
        self.cluster.kubectl("annotate", "service", "filtered", f"{TOPOLOGY}=kubernetes.io/hostname")
        wait_for("filtered slices", lambda: self.addresses(KUBE_PROXY) == near, 20)
        self.addCleanup(self.cluster.heal)
        self.cluster.cut()
        wait_for("the loss of the cloud", lambda: not self.cloud_is_reachable(), 20)
        self.assertEqual(self.addresses(KUBE_PROXY), near)
        self.restart_hub()
        wait_for("slices after a restart", lambda: self.cluster.ask_hub(SLICES + SELECTOR, agent=KUBE_PROXY).status == 200, 20)
        self.assertEqual(self.addresses(KUBE_PROXY), near)
