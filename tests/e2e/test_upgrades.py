"""
What the hub does for the node's own upkeep: upgrades begun there, and Secrets that nobody reads off the disk.
"""

from __future__ import annotations

import json
from typing import Any

from .case import ClusterCase
from .cluster import ADMIN
from .curl import Answer, curl
from .images import BUSYBOX
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
        wait_for("the DaemonSet's pod", lambda: self.pods() and self.cluster.pod_phase(self.pods()[0]) == "Running", 60)

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
        wait_for("another pod", lambda: self.pods() and self.pods() != [name], 60, every=0.5)


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
        self.assertNotIn(encoded.encode(), kept)
        self.assertEqual((self.cluster.node.folder / "own" / "cache.key").stat().st_mode & 0o777, 0o600)
        self.addCleanup(self.cluster.heal)
        self.cluster.cut()
        wait_for("the loss of the cloud", lambda: not self.hub_status()["cloud"]["reachable"], 30)
        answer = self.cluster.ask_hub(path)
        self.assertEqual((answer.status, answer.json["data"]["password"]), (200, encoded))
