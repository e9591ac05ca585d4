"""
What the hub does for the node's own upkeep: upgrades begun there, and Secrets that nobody reads off the disk.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from . import hurried_hub
from .case import ClusterCase
from .cluster import ADMIN
from .curl import Answer, curl
from .images import BUSYBOX
from .pods import pod
from .process import wait_for

PASSWORD = "correct-horse-battery-staple"


class UpgradeTests(ClusterCase):
    """
    A pod of a DaemonSet that yurt-manager has marked.
    """

    def setUp(self) -> None:
        super().setUp()
        container = {"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", "sleep 1000"]}
        template = {
            "metadata": {"labels": {"app": "daemon"}},
            "spec": {
                "nodeName": self.cluster.node.name,  # No scheduler runs here.
                "hostNetwork": True,
                "terminationGracePeriodSeconds": 1,
                "tolerations": [{"operator": "Exists"}],
                "containers": [container],
            },
        }
        spec = {"selector": {"matchLabels": {"app": "daemon"}}, "updateStrategy": {"type": "OnDelete"}, "template": template}
        self.addCleanup(self.cluster.kubectl, "delete", "daemonset", "daemon", "--cascade=foreground")
        self.cluster.apply({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "daemon"}, "spec": spec})
        wait_for("the DaemonSet's pod", lambda: self.pods() and self.cluster.pod_phase(self.pods()[0]) == "Running")

    def pods(self) -> list[str]:
        """
        The DaemonSet's pods, but for those that are being deleted.
        """
        listed: list[dict[str, Any]] = json.loads(self.cluster.kubectl("get", "pods", "-l", "app=daemon", "-o", "json"))["items"]
        return [one["metadata"]["name"] for one in listed if "deletionTimestamp" not in one["metadata"]]

    def mark(self, name: str, status: str) -> None:
        """
        Say whether a pod needs an upgrade, as yurt-manager does.
        """
        condition = {"type": "PodNeedUpgrade", "status": status, "message": "version:5d8c6"}
        patch = json.dumps({"status": {"conditions": [condition]}})
        self.cluster.kubectl("patch", "pod", name, "--subresource=status", "--type=strategic", "-p", patch)

    def post(self, name: str, action: str, *headers: str) -> Answer:
        """
        Ask on the node.
        """
        url = f"{ADMIN}/openyurt.io/v1/namespaces/default/pods/{name}/{action}"
        return curl(self.cluster.node.namespace, url, agent="curl", headers=headers, extra=("-X", "POST"))

    def test_upgrade(self) -> None:
        """
        A pod that is not marked stays; a marked one has its image asked for, and then a newer one takes its place.  Who may not
        delete it may not upgrade it.
        """
        (name,) = self.pods()
        self.assertEqual((self.post(name, "upgrade").status, self.pods()), (403, [name]))
        self.mark(name, "True")
        bearer = self.cluster.kubectl("get", "secret", "-o", "go-template={{(index .items 0).data.token | base64decode}}")
        self.assertEqual((self.post(name, "upgrade", f"Authorization: Bearer {bearer}").status, self.pods()), (403, [name]))
        self.assertEqual(self.post(name, "imagepull").body.strip(), f"Image pre-pull requested for pod default/{name}")
        path = "jsonpath={.status.conditions[?(@.type=='PodImageReady')].message}"
        self.assertEqual(self.cluster.kubectl("get", "pod", name, "-o", path), "version:5d8c6")
        answer = self.post(name, "upgrade")
        self.assertEqual((answer.status, answer.body.strip()), (200, f"Start updating pod default/{name}"))
        wait_for("another pod", lambda: self.pods() and self.pods() != [name], every=0.5)


class SecretTests(ClusterCase):
    """
    A Secret that a pod of the node mounts.
    """

    def test_at_rest(self) -> None:
        """
        The pod sees it, kubelet reads it from the hub without the cloud, and on the disk it cannot be found.
        """
        document = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": PASSWORD}}
        self.addCleanup(self.cluster.kubectl, "delete", "secret", "s")
        self.cluster.apply(document)
        volume = {"name": "s", "secret": {"secretName": "s"}}
        mounted = {"volumeMounts": [{"name": "s", "mountPath": "/s"}]}
        one = self.web_pod("secretive", volumes=[volume], container=mounted)
        self.make_pods(one)
        self.assertEqual(self.cluster.kubectl("exec", "secretive", "--", "cat", "/s/password"), PASSWORD)
        self.restart_hub()
        kept = (self.cluster.node.folder / "cache" / "data.mdb").read_bytes()
        path = "/api/v1/namespaces/default/secrets/s"
        encoded = self.cluster.kubectl("get", "secret", "s", "-o", "jsonpath={.data.password}")
        for text in (encoded, PASSWORD):
            self.assertNotIn(text.encode(), kept)
        self.assertEqual((self.cluster.node.folder / "own" / "cache.key").stat().st_mode & 0o777, 0o600)
        self.addCleanup(self.cluster.heal)
        self.cluster.cut()
        wait_for("the loss of the cloud", lambda: not self.hub_status()["cloud"]["reachable"])
        answer = self.cluster.ask_hub(path)
        self.assertEqual((answer.status, answer.json["data"]["password"]), (200, encoded))


class UpkeepCase(ClusterCase):
    """
    A hub that is in a hurry.
    """

    def setUp(self) -> None:
        super().setUp()
        self.static_pods = self.cluster.node.folder / "static-pods"
        self.addCleanup(self.cluster.start_hub)
        script = str(Path(hurried_hub.__file__).resolve())
        self.cluster.start_hub(twistd=["env", f"STATIC_PODS={self.static_pods}", sys.executable, script])

    def metric(self, name: str) -> float:
        """
        A metric of the hub.
        """
        lines = self.cluster.ask_hub("/metrics", base=ADMIN).body.splitlines()
        return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"node_yurthub_{name} ")))


class StaticPodTests(UpkeepCase):
    """
    A static pod that yurt-manager has marked.
    """

    def manifest(self, version: str, name: str = "fixed") -> str:
        """
        Its manifest.
        """
        one = pod(name, "", f"echo {version}; sleep 1000", host_network=True)
        del one["spec"]["nodeName"]
        one["metadata"] |= {"namespace": "default", "annotations": {"version": version}}
        return json.dumps(one)

    def version(self) -> str:
        """
        Which one runs.
        """
        path = "jsonpath={.metadata.annotations.version} {.status.phase}"
        return self.cluster.kubectl("get", "pod", self.name, "-o", path)

    def test_upgrade(self) -> None:
        """
        A manifest is replaced by that of the ConfigMap once the pod is marked, and kubelet runs the newer one; that of another
        pod is not taken.
        """
        self.name = f"fixed-{self.cluster.node.name}"
        file = self.static_pods / "fixed.yaml"
        self.addCleanup(file.unlink, missing_ok=True)
        file.write_text(self.manifest("one"))
        wait_for("the static pod", lambda: self.version() == "one Running", every=0.5)
        url = f"{ADMIN}/openyurt.io/v1/namespaces/default/pods/{self.name}/upgrade"

        def upgrade() -> Answer:
            return curl(self.cluster.node.namespace, url, agent="curl", extra=("-X", "POST"))

        self.assertEqual(upgrade().status, 403)
        patch = json.dumps({"status": {"conditions": [{"type": "PodNeedUpgrade", "status": "True"}]}})
        self.cluster.kubectl("patch", "pod", self.name, "--subresource=status", "--type=strategic", "-p", patch)
        self.assertIn("Configmap for static pod does not exist", upgrade().body)
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "yurt-static-set-fixed"}}
        self.addCleanup(self.cluster.kubectl, "delete", "configmap", "yurt-static-set-fixed")
        self.cluster.apply({**config, "data": {"fixed.yaml": self.manifest("two", "other")}})
        self.assertEqual((upgrade().status, "one" in file.read_text()), (500, True))
        self.cluster.apply({**config, "data": {"fixed.yaml": self.manifest("two")}})
        answer = upgrade()
        self.assertEqual((answer.status, answer.body.strip()), (200, f"Start updating pod default/{self.name}"))
        wait_for("the newer one", lambda: self.version() == "two Running", every=0.5)


class SweepTests(UpkeepCase):
    """
    What is of no use any more.
    """

    def pods(self) -> set[str]:
        """
        The pods that kubelet last knew.
        """
        return {one["metadata"]["name"] for one in self.cluster.ask_hub("/pods", base=ADMIN).json["items"]}

    def sweep(self, number: int = 2) -> None:
        """
        Wait until the cache was swept so many times from now on.
        """
        wanted = self.metric("gc_sweeps_total") + number
        wait_for("sweeps", lambda: self.metric("gc_sweeps_total") >= wanted, every=0.5)

    def components(self) -> set[str]:
        """
        Whose views the cache holds.
        """
        return {view["component"] for view in self.hub_status()["views"]}

    def test_sweep(self) -> None:
        """
        Of kubelet's pods those go that the cloud has no longer: not without the cloud, and not when it has none of them.  A
        component that is not seen any more goes, one that is seen and kubelet do not.
        """
        self.make_pods(self.web_pod("stays"), self.web_pod("goes"))
        for agent in ("flanneld", "coredns"):
            self.cluster.ask_hub("/api/v1/services", agent=agent)
        wait_for("kubelet's view", lambda: {"stays", "goes"} <= self.pods())
        self.assertTrue({"flanneld", "coredns", "kubelet"} <= self.components())
        self.cluster.node.stop("kubelet")
        self.addCleanup(self.cluster.node.start_kubelet, self.cluster.hub_kubeconfig)
        self.addCleanup(self.cluster.heal)
        self.cluster.cut()
        wait_for("the loss of the cloud", lambda: not self.cloud_is_reachable())
        self.cluster.kubectl("delete", "pod", "goes", "--force", "--grace-period=0")
        swept = self.metric("gc_sweeps_total")
        wait_for("a sweep put off", lambda: "the sweep is put off" in self._log.read_text()[self._log_start :])
        self.assertEqual((self.metric("gc_sweeps_total"), {"stays", "goes"} <= self.pods()), (swept, True))
        self.cluster.heal()
        wait_for("the pod to go", lambda: self.pods() == {"stays"}, every=0.5)
        self.cluster.kubectl("delete", "pod", "stays", "--force", "--grace-period=0")
        wait_for("a sweep that spares it", lambda: self.metric("gc_refused_total") > 0, every=0.5)
        self.assertEqual(self.pods(), {"stays"})

        def forgotten() -> bool:
            self.cluster.ask_hub("/api/v1/services", agent="coredns")
            return "flanneld" not in self.components()

        wait_for("a component to be forgotten", forgotten, every=0.5)
        self.sweep()
        self.assertTrue({"coredns", "kubelet"} <= self.components())
