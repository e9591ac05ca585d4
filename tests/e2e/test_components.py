"""
kube-proxy and kube-controller-manager through the hub.
"""

from __future__ import annotations

import json
import re

from .case import ClusterCase
from .curl import curl
from .process import Process, wait_for

SAID_OF_AN_APISERVER = (
    "reflector|unexpected EOF|connection refused|unable to decode|couldn't get|the server|status code|timed? ?out|"
    "Failed to (?:list|watch|update|sync|get)"
)
HUBS_MAKING = re.compile(rf"^[EF]\d{{4}}.*(?:{SAID_OF_AN_APISERVER})", re.MULTILINE)
"""Lines of a component's log that could be the hub's fault."""


class ComponentTests(ClusterCase):
    """
    Components that list and watch much.
    """

    def assert_content(self, process: Process) -> None:
        """
        It runs and does not complain of its apiserver.
        """
        process.check()
        found = HUBS_MAKING.findall(log := process.log.read_text())
        self.assertEqual(found, [], "\n".join(line for line in log.splitlines() if HUBS_MAKING.match(line))[:4000])

    def make_service(self, name: str) -> str:
        """
        A Service of port 80 for the pods labelled app=name; answers its address.
        """
        spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}
        self.cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
        self.addCleanup(self.cluster.kubectl, "delete", "service", name)
        return self.cluster.kubectl("get", "service", name, "-o", "jsonpath={.spec.clusterIP}")

    def test_kube_proxy(self) -> None:
        """
        kube-proxy leads a service's address to its pod, follows the pod to its next address, and has nothing to complain of.
        """
        node = self.cluster.node
        kube_proxy = node.start_kube_proxy(self.cluster.hub_kubeconfig)
        self.addCleanup(node.stop_kube_proxy)
        address = self.make_service("served")

        def serves(text: str) -> bool:
            return curl(node.namespace, f"http://{address}/", agent="test", timeout=5).body == text

        self.make_pods(self.web_pod("served"))
        wait_for("an answer from the service's address", lambda: serves("served\n"))
        self.cluster.remove_pods("served")
        self.cluster.make_pods(self.web_pod("served"))
        wait_for("an answer from the new pod", lambda: serves("served\n"))
        self.assert_content(kube_proxy)

    def test_controller_manager(self) -> None:
        """
        kube-controller-manager makes a Deployment's pods and a Service's endpoints, cleans up after their deletion, and has
        nothing to complain of.
        """
        cluster = self.cluster
        cluster.stop_controllers()
        manager = cluster.node.spawn("kube-controller-manager", cluster.controllers_command(cluster.hub_kubeconfig))
        self.addCleanup(cluster.node.stop, "kube-controller-manager")
        self.make_service("many")
        template = self.web_pod("many")
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "many"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "many"}},
                "template": {"metadata": template["metadata"], "spec": template["spec"]},
            },
        }
        cluster.apply(deployment)

        def available(count: int) -> bool:
            return cluster.kubectl("get", "deployment", "many", "-o", "jsonpath={.status.availableReplicas}") == str(count)

        wait_for("two pods of the Deployment", lambda: available(2), every=0.5)

        def endpoints() -> int:
            document = json.loads(cluster.kubectl("get", "endpoints", "many", "-o", "json"))
            return sum(len(subset.get("addresses", ())) for subset in document.get("subsets", ()))

        wait_for("two endpoints of the Service", lambda: endpoints() == 2, every=0.5)
        cluster.kubectl("scale", "deployment", "many", "--replicas=1")
        wait_for("one endpoint of the Service", lambda: endpoints() == 1, every=0.5)
        cluster.kubectl("delete", "deployment", "many")
        wait_for("the end of its pods", lambda: "many" not in cluster.kubectl("get", "pods", "-o", "name"), every=0.5)
        self.assert_content(manager)
