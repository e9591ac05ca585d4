"""
A node that joins with a token and nothing else, and lives on certificates of seconds.
"""

from __future__ import annotations

import base64
import json
import signal
import sys
from pathlib import Path
from typing import Any

from yurt.kube.bootstrap import ca_hash

from .case import ClusterCase
from .cluster import ADMIN
from .curl import Answer
from .process import E2EError, Process, wait_for

TOKEN = "abcdef.0123456789abcdef"
PORT = 6543
LIFE = 40
"""Seconds that certificates last here."""
BACKDATED = 300
"""Seconds of a certificate's life that are over when this kube-controller-manager signs it."""
RBAC = "rbac.authorization.k8s.io"


def inviting(ca_pem: bytes, server: str) -> list[dict[str, Any]]:
    """
    What kubeadm makes so that nodes can join: the token, cluster-info, and who may do what.
    """
    identifier, _, secret = TOKEN.partition(".")
    cluster = {"certificate-authority-data": base64.b64encode(ca_pem).decode(), "server": server}
    kubeconfig = json.dumps({"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": cluster}]})
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": f"bootstrap-token-{identifier}", "namespace": "kube-system"},
            "stringData": {
                "token-id": identifier,
                "token-secret": secret,
                "usage-bootstrap-authentication": "true",
                "usage-bootstrap-signing": "true",
            },
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "cluster-info", "namespace": "kube-public"},
            "data": {"kubeconfig": kubeconfig},
        },
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "Role",
            "metadata": {"name": "cluster-info", "namespace": "kube-public"},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["cluster-info"], "verbs": ["get"]}],
        },
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "cluster-info", "namespace": "kube-public"},
            "subjects": [{"kind": "User", "name": "system:anonymous", "apiGroup": RBAC}],
            "roleRef": {"kind": "Role", "name": "cluster-info", "apiGroup": RBAC},
        },
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "test-bootstrappers"},
            "subjects": [{"kind": "Group", "name": "system:bootstrappers", "apiGroup": RBAC}],
            "roleRef": {"kind": "ClusterRole", "name": "system:node-bootstrapper", "apiGroup": RBAC},
        },
    ]


class JoinTests(ClusterCase):
    """
    From an empty folder to a node that works.
    """

    def setUp(self) -> None:
        super().setUp()
        cluster, plane = self.cluster, self.cluster.plane
        self.apiserver = plane.start_another("apiserver-joining", PORT, "--enable-bootstrap-token-auth")
        self.addCleanup(self.apiserver.stop, signal.SIGKILL)
        self.server = plane.url_of(PORT)
        documents = inviting(plane.authority.ca.cert_pem, self.server)
        cluster.apply(*documents)
        self.addCleanup(cluster.kubectl, "delete", "-f", "-", stdin=b"\n".join(json.dumps(one).encode() for one in documents))
        cluster.stop_controllers()
        command = cluster.controllers_command(
            str(cluster.folder / "kcm.conf"),
            "--use-service-account-credentials=true",
            "--controllers=*,bootstrapsigner,tokencleaner",
            f"--cluster-signing-duration={BACKDATED + LIFE}s",
        )
        cluster.controllers = Process("kube-controller-manager", command, cluster.folder / "log/kcm.log", cluster.cloud_namespace)
        self.addCleanup(cluster.stop_controllers)
        self.root = cluster.node.folder / "joined"
        self.addCleanup(self.leave)

    def leave(self) -> None:
        """
        The ordinary hub again.
        """
        self.cluster.node.stop("kubelet")
        self.cluster.start_hub()

    def start_joining_hub(self) -> Process:
        """
        A hub with an empty folder, a token in a file, and the CA's pin.
        """
        node, keys = self.cluster.node, self.cluster.plane.authority
        token = self.root / "token"
        self.root.mkdir()
        token.write_text(TOKEN)
        return node.spawn(
            "yurthub",
            [
                str(Path(sys.executable).with_name("twistd")),
                *("--nodaemon", "--pidfile=", "yurthub"),
                *("--server-addr", self.server),
                *("--node-name", node.name),
                *("--root-dir", str(self.root)),
                *("--disk-cache-path", str(self.root / "cache")),
                *("--join-token", str(token)),
                *("--discovery-token-ca-cert-hash", ca_hash(keys.ca.certificate)),
                "--enable-dummy-if=false",
            ],
        )

    def readiness(self) -> str:
        return self.cluster.ask_hub("/v1/readyz", base=ADMIN, timeout=2).body

    def is_ready(self) -> bool:
        said = self.readiness()
        if '"ready": true' not in said:
            raise E2EError(said)
        return True

    def approve(self) -> int:
        """
        Approve what waits; answers how many requests of this node's hub there have been.
        """
        document = json.loads(self.cluster.kubectl("get", "csr", "-o", "json"))
        user = f"system:node:{self.cluster.node.name}"
        clients = [one for one in document["items"] if one["spec"]["signerName"] == "kubernetes.io/kube-apiserver-client"]
        serving = [one for one in document["items"] if one["spec"]["signerName"] == "kubernetes.io/kubelet-serving"]
        for one in (*clients, *(one for one in serving if one["spec"]["username"] == user)):
            if not one.get("status", {}).get("conditions"):
                self.cluster.kubectl("certificate", "approve", one["metadata"]["name"])
        return len(clients)

    def test_from_nothing(self) -> None:
        """
        One token and no copied file: the request is approved, the node is Ready, exec works; then certificates follow each other
        under a running watch, and the node stays; the hub answers by HTTPS, too, with a certificate that it has asked for
        as the node.
        """
        cluster = self.cluster
        cluster.node.stop("kubelet")
        cluster.kubectl("delete", "node", cluster.node.name, "--ignore-not-found")
        hub = self.start_joining_hub()
        wait_for("a pending request", lambda: "pending since" in self.readiness(), 30)
        hub.check()
        self.assertEqual(cluster.ask_hub("/v1/healthz", base=ADMIN).body, "OK")
        before = self.approve()
        self.assertGreaterEqual(before, 1)
        wait_for("a ready hub", self.is_ready, 30, every=0.1)
        self.assertFalse((self.root / "token").exists())
        cluster.node.start_kubelet(cluster.hub_kubeconfig)
        wait_for("a Ready node", cluster.node_is_ready, 60, every=0.5)
        watch = self.follow(cluster.hub_kubectl_command("get", "configmaps", "--watch", "-o", "name"))
        self.make_pods(self.web_pod())
        self.assertEqual(cluster.kubectl("exec", "web", "--", "hostname").strip(), "web")
        wait_for("three more certificates", lambda: self.approve() >= before + 3, 4 * LIFE, every=1)
        wait_for("the last of them", lambda: "issued" in self.certificate(), 20)
        cluster.kubectl("create", "configmap", "after-rotation")
        self.addCleanup(cluster.kubectl, "delete", "configmap", "after-rotation")
        watch.wait_for("after-rotation")
        self.assertFalse(watch.ended)
        self.assertTrue(cluster.node_is_ready())
        self.assertEqual(cluster.ask_hub("/v1/readyz", base=ADMIN).status, 200)
        self.assertEqual(self.by_https("/version").status, 200)
        log = (cluster.node.folder / "yurthub.log").read_text(errors="replace")
        self.assertNotIn(TOKEN, log)

    def by_https(self, path: str) -> Answer:
        """
        What the node's components get at the HTTPS door, verified by the cluster's CA.
        """
        authority = ["--cacert", self.cluster.plane.authority.file("ca.crt")]
        return self.cluster.ask_hub(path, base="https://127.0.0.1:10268", extra=authority)

    def certificate(self) -> str:
        return str(self.hub_status()["certificate"]["state"])
