"""
What happened on both sides while they did not see each other, and how it comes together.
"""

from __future__ import annotations

import json
import re

from .process import find_binary, wait_for
from .test_offline import OfflineCase

COMPLAINTS = re.compile(r"^E.*(?:failed to update lease|Error updating node status|reflector|the server).*$", re.MULTILINE)
"""What kubelet says when its apiserver does not do as it should."""

VOLUMES = 4
"""Of the two pods: a ConfigMap, a Secret, and a token each."""


class ReturnTests(OfflineCase):
    """
    The hub is restarted while the cloud is away; then the cloud comes back.
    """

    def events_of(self, name: str, reason: str) -> int:
        """
        How many events of that reason the cloud has of a pod.
        """
        selector = f"involvedObject.name={name},reason={reason}"
        items = json.loads(self.cluster.kubectl("get", "events", "--field-selector", selector, "-o", "json"))["items"]
        return sum(item.get("count") or 1 for item in items)

    def test_changes_on_both_sides(self) -> None:
        """
        kubelet survives a hub that restarts without the cloud, and has nothing to complain of meanwhile.  On the cloud's return
        pods that were made there start, pods that were deleted there stop, and what happened here is told there.
        """
        self.cut()
        wait_for("the hub to miss the cloud", lambda: not self.cloud_is_reachable())
        started = self.events_of("host", "Started")
        self.cluster.start_hub()
        log = self.cluster.node.processes["kubelet"].log
        log_start = log.stat().st_size
        wait_for("kubelet's call of the new hub", lambda: self.hub_status()["lease"]["kubeletAlive"])
        self.addCleanup(self.cluster.remove_pods, "late")
        self.cluster.apply(self.web_pod("late"))
        self.cluster.kubectl("delete", "pod", "web", "--wait=false")
        self.restart_container("host")
        wait_for("the restart", lambda: self.restarts_of("host") == 1, every=0.5)
        self.assertEqual(sorted(self.node_pods().names), ["host", "web"])
        self.assertEqual(COMPLAINTS.findall(log.read_bytes()[log_start:].decode()), [])
        self.cluster.heal()
        self.cluster.wait_for_pods("late", "host")
        wait_for("the end of the deleted pod", lambda: "pod/web" not in self.cluster.kubectl("get", "pods", "-o", "name").split())
        wait_for("kubelet's view", lambda: sorted(self.node_pods().names) == ["host", "late"])
        wait_for("the event of the restart", lambda: self.events_of("host", "Started") > started)

    def test_kubelet_restarts(self) -> None:
        """
        A kubelet that restarts without the cloud keeps its pods running, and registers again without an error.
        """
        before = sorted(self.cluster.node.running_containers())
        self.cut()
        wait_for("the hub to miss the cloud", lambda: not self.cloud_is_reachable())
        node = self.cluster.node
        node.stop("kubelet")
        kubelet = node.start_kubelet(self.cluster.hub_kubeconfig)
        log_start = kubelet.log.stat().st_size

        def said() -> str:
            return kubelet.log.read_bytes()[log_start:].decode()

        wait_for(
            "the node's registration",
            lambda: "Successfully registered node" in said() or "was previously registered" in said(),
        )
        wait_for("its Lease", lambda: self.hub_status()["lease"]["kubeletAlive"])
        # It tells of its look at containers only where it knew their pods before; of volumes it does so in any case.
        wait_for("its look at the pods", lambda: said().count("MountVolume.SetUp succeeded") >= VOLUMES)
        self.assertEqual(sorted(node.running_containers()), before)
        self.assertEqual(COMPLAINTS.findall(said()), [])
        self.assertEqual(kubelet.status, None)

    def restart_container(self, name: str) -> None:
        """
        Kill a pod's container, which kubelet then starts again.
        """
        identifier = self.containers_of(name)["containerID"].rpartition("/")[2]
        self.cluster.node.ctr("tasks", "kill", "-s", "KILL", identifier)

    def restarts_of(self, name: str) -> int:
        return int(self.containers_of(name)["restartCount"])


class ProxyReturnTests(OfflineCase):
    """
    kube-proxy starts without the cloud.
    """

    def test_rules_from_the_cache(self) -> None:
        """
        After a reboot without the cloud kube-proxy writes the rules of the services that it knew: they lead to their pods.
        """
        node = self.cluster.node
        argv = [
            find_binary("kube-proxy") or "kube-proxy",
            "--kubeconfig",
            self.cluster.hub_kubeconfig,
            "--proxy-mode",
            "iptables",
            "--conntrack-max-per-core",
            "0",
            "--cluster-cidr",
            "10.244.0.0/16",
            "--hostname-override",
            node.name,
        ]
        spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
        self.cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
        self.addCleanup(self.cluster.kubectl, "delete", "service", "web")
        address = self.cluster.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
        node.spawn("kube-proxy", argv)
        self.addCleanup(node.stop, "kube-proxy")

        def serves() -> bool:
            return node.run("curl", "-s", "--max-time", "3", f"http://{address}/", check=False) == "web\n"

        wait_for("an answer from the service's address", serves)
        self.cut()
        wait_for("the hub to miss the cloud", lambda: not self.cloud_is_reachable())
        node.stop("kube-proxy")
        node.run("iptables", "-t", "nat", "-F", "KUBE-SERVICES")
        self.assertFalse(serves())
        self.cluster.start_hub()
        node.spawn("kube-proxy", argv)
        wait_for("an answer without the cloud", serves)
