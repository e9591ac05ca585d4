"""
A cluster that nodes join by themselves: bootstrap tokens, an approver, certificates of seconds; and daemons that have nothing.
"""

from __future__ import annotations

import base64
import json
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509

from yurt.kube.bootstrap import ca_hash

from .case import ClusterCase
from .cluster import ADMIN, APPROVER, MANIFESTS
from .curl import curl
from .manifests import MANIFEST, RBAC, SYSTEM
from .process import E2EError, Process, run, wait_for
from .tunnel import AGENT, AGENT_META, EDGE_LABEL, twistd

TOKEN, TOKEN_OF_NODE = "abcdef.0123456789abcdef", "zyxwvu.0123456789abcdef"
GROUP_OF_NODE = "system:bootstrappers:node:edge-1"
PORT = 6543
LIFE, LONGER_LIFE = 40, 60
"""Seconds that certificates last here; a longer one is for tests in which nobody signs for a while."""
BACKDATED = 300
"""Seconds of a certificate's life that are over when this kube-controller-manager signs it."""
SERVER = "yurt-tunnel-server"


def bootstrap_token(token: str, *groups: str) -> dict[str, Any]:
    """
    What ``kubeadm token create`` makes.
    """
    identifier, _, secret = token.partition(".")
    data = {
        "token-id": identifier,
        "token-secret": secret,
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        **({"auth-extra-groups": ",".join(groups)} if groups else {}),
    }
    metadata = {"name": f"bootstrap-token-{identifier}", "namespace": SYSTEM}
    kind = {"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token"}
    return {**kind, "metadata": metadata, "stringData": data}


def cluster_info(ca_pem: bytes, server: str) -> list[dict[str, Any]]:
    """
    What the cluster says of itself, and that everybody may read it.
    """
    cluster = {"certificate-authority-data": base64.b64encode(ca_pem).decode(), "server": server}
    kubeconfig = json.dumps({"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": cluster}]})
    metadata = {"name": "cluster-info", "namespace": "kube-public"}
    rule = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["cluster-info"], "verbs": ["get"]}
    subjects = [{"kind": "User", "name": "system:anonymous", "apiGroup": RBAC}]
    role = {"kind": "Role", "name": "cluster-info", "apiGroup": RBAC}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"kubeconfig": kubeconfig}},
        {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]},
        {"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding", "metadata": metadata, "subjects": subjects, "roleRef": role},
    ]


class JoiningCase(ClusterCase):
    """
    Nothing of the node is in the cluster, and nothing of the cluster on the node.
    """

    def setUp(self) -> None:
        super().setUp()
        cluster, plane = self.cluster, self.cluster.plane
        self.keys = plane.authority
        self.server = plane.url_of(PORT)
        self.pin = ca_hash(self.keys.ca.certificate)
        self.root = cluster.node.folder / "joined"
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        self.addCleanup(self.leave)
        self.apiserver = plane.start_another("apiserver-joining", PORT, "--enable-bootstrap-token-auth")
        self.addCleanup(lambda: self.apiserver.stop(signal.SIGKILL))
        self.apply_here(bootstrap_token(TOKEN), *cluster_info(self.keys.ca.cert_pem, self.server))
        for manifest in (MANIFESTS / f"{APPROVER}.yaml", MANIFEST):
            cluster.kubectl("apply", "-f", str(manifest))
            self.addCleanup(cluster.kubectl, "delete", "-f", str(manifest))
        self.addCleanup(cluster.kubectl, "delete", "csr", "--all")
        self.start_signer("ca")
        self.addCleanup(cluster.stop_controllers)
        self.token = self.root / "token"
        self.root.mkdir()
        self.token.write_text(TOKEN)
        cluster.node.stop("kubelet")
        cluster.node.stop("yurthub")
        cluster.kubectl("delete", "node", cluster.node.name, "--ignore-not-found")
        cluster.kubectl("delete", "csr", "--all")

    def leave(self) -> None:
        """
        The ordinary hub again.
        """
        for name in ("kubelet", AGENT):
            self.cluster.node.stop(name)
        self.cluster.start_hub()

    def apply_here(self, *documents: dict[str, Any]) -> None:
        """
        Objects for the time of this test.
        """
        self.cluster.apply(*documents)
        lines = b"\n".join(json.dumps(one).encode() for one in documents)
        self.addCleanup(self.cluster.kubectl, "delete", "--ignore-not-found", "-f", "-", stdin=lines)

    # The cloud

    def start_signer(self, authority: str, life: int = LIFE) -> None:
        """
        kube-controller-manager, which signs by that CA for so many seconds.
        """
        cluster = self.cluster
        cluster.stop_controllers()
        command = cluster.controllers_command(
            str(cluster.folder / "kcm.conf"),
            "--use-service-account-credentials=true",
            "--controllers=*,bootstrapsigner,tokencleaner",
            f"--cluster-signing-duration={BACKDATED + life}s",
            *("--cluster-signing-cert-file", self.keys.file(f"{authority}.crt")),
            *("--cluster-signing-key-file", self.keys.file(f"{authority}.key")),
        )
        cluster.controllers = Process("kube-controller-manager", command, cluster.folder / "log/kcm.log", cluster.cloud_namespace)

    def start_approver(self) -> None:
        """
        yurt-controller-manager, with the rights of its manifest.
        """
        self.addCleanup(self.cluster.stop_approver)
        self.cluster.start_approver()

    def start_tunnel_server(self, authority: str) -> Process:
        """
        yurt-tunnel-server with a kubeconfig and no certificate to listen with; ``authority`` is the file of the CA of agents.
        """
        cluster, tunnel = self.cluster, self.cluster.tunnel
        folder = cluster.folder / "tunnel-pki"
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        tunnel.hide(cluster.node)
        self.addCleanup(tunnel.show, cluster.node)
        command = twistd(
            SERVER,
            *("--bind-address", tunnel.server.address),
            *("--kubeconfig", str(cluster.folder / "tunnel-server.conf")),
            *("--cert-dir", str(folder)),
            *("--cert-ips", tunnel.server.address),
            *("--client-ca-file", authority),
            "--enable-dns-controller=false",
        )
        server = Process(SERVER, command, cluster.folder / f"log/{SERVER}-joining.log", cluster.cloud_namespace)
        self.addCleanup(server.stop)
        return server

    def certificates(self) -> dict[str, list[x509.Certificate]]:
        """
        All that were signed, by the common name and what they are for.
        """
        found: dict[str, list[x509.Certificate]] = {}
        for one in json.loads(self.cluster.kubectl("get", "csr", "-o", "json"))["items"]:
            if pem := one.get("status", {}).get("certificate"):
                certificate = x509.load_pem_x509_certificate(base64.b64decode(pem))
                common_name = certificate.subject.rfc4514_string().partition("CN=")[2].partition(",")[0].partition("+")[0]
                found.setdefault(f"{common_name} {one['spec']['signerName'].rpartition('/')[2]}", []).append(certificate)
        return found

    # The node

    def start_hub(self, *options: str, around: Sequence[str] = ()) -> Process:
        """
        A hub that knows where the cluster is, the CA's pin, and the file of a token; ``around`` is a command that runs it.
        """
        node = self.cluster.node
        return node.spawn(
            "yurthub",
            [
                *around,
                *twistd("yurthub"),
                *("--server-addr", self.server),
                *("--node-name", node.name),
                *("--root-dir", str(self.root)),
                *("--disk-cache-path", str(self.root / "cache")),
                *("--join-token", str(self.token)),
                *("--discovery-token-ca-cert-hash", self.pin),
                "--enable-dummy-if=false",
                *options,
            ],
        )

    def start_agent(self) -> Process:
        """
        An agent that knows where the tunnel's server and the hub's folder are.
        """
        node = self.cluster.node
        return node.spawn(
            AGENT,
            twistd(
                AGENT,
                *("--tunnelserver-addr", f"{self.cluster.tunnel.server.address}:10262"),
                *("--node-name", node.name),
                *("--kubeconfig", str(self.root / "yurthub.conf")),
                *("--cert-dir", str(self.root / "agent")),
            ),
        )

    def start_kubelet(self, kubeconfig: str | None = None) -> None:
        """
        A kubelet that has no credentials and speaks through the hub, or as the kubeconfig says; its node is behind the tunnel.
        """
        cluster = self.cluster
        cluster.node.start_kubelet(kubeconfig or cluster.hub_kubeconfig)
        wait_for("a Ready node", cluster.node_is_ready, every=0.5)
        cluster.kubectl("label", "node", cluster.node.name, "--overwrite", f"{EDGE_LABEL}=true")

    def readiness(self) -> str:
        return self.cluster.ask_hub("/v1/readyz", base=ADMIN, timeout=5).body

    def wait_until_hub_says(self, text: str) -> None:
        """
        Wait until the hub's readiness has these words.
        """

        def said() -> bool:
            if text not in (found := self.readiness()):
                raise E2EError(found)
            return True

        wait_for(f"{text!r} in the hub's readiness", said, every=0.1)

    def wait_until_joined(self) -> None:
        self.wait_until_hub_says('"ready": true')

    def hub_metric(self, name: str) -> float:
        """
        A metric of the hub.
        """
        lines = self.cluster.ask_hub("/metrics", base=ADMIN).body.splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(f"node_yurthub_{name} ")))

    def hand_in(self, token: str) -> int:
        """
        Give the hub a token, as an operator does; the answer's status.
        """
        body = json.dumps({"jointoken": token})
        return curl(self.cluster.node.namespace, f"{ADMIN}/v1/token", agent="operator", extra=["-d", body]).status

    def agent_is_connected(self) -> bool:
        return curl(self.cluster.node.namespace, f"{AGENT_META}/v1/readyz", agent="test", timeout=5).status == 200

    def is_of(self, path: Path, issuer: str) -> bool:
        """
        Whether the certificate in a file was signed by that CA.
        """
        return x509.load_pem_x509_certificates(path.read_bytes())[0].issuer.rfc4514_string() == issuer

    def write_authority(self, name: str, pem: bytes) -> str:
        """
        A file of CA certificates among the cluster's keys, replaced as a whole.
        """
        path = Path(self.keys.file(name))
        path.with_suffix(".new").write_bytes(pem)
        path.with_suffix(".new").rename(path)
        return str(path)

    def apiserver_answers(self) -> bool:
        """
        Whether the apiserver to join at is ready, whoever signed its certificate.
        """
        self.apiserver.check()
        answer = curl(self.cluster.cloud_namespace, f"{self.server}/readyz", agent="test", timeout=5, extra=["-k"])
        return answer.status == 200

    def with_kubelet_certificate(self) -> list[str]:
        """
        The command that runs another one on a machine where kubelet has a certificate of its own.
        """
        pem = self.root / "kubelet.pem"
        name = self.cluster.node.name
        pem.write_bytes(b"".join(Path(self.keys.file(f"{name}.{suffix}")).read_bytes() for suffix in ("crt", "key")))
        there = "/var/lib/kubelet/pki"
        script = f'mount -t tmpfs none /var/lib && mkdir -p {there} && cp {pem} {there}/kubelet-client-current.pem && exec "$@"'
        return ["unshare", "--mount", "sh", "-ec", script, "sh"]

    def events_about(self, reason: str) -> str:
        """
        What Events with that reason say.
        """
        return run(self.cluster.plane.kubectl_command("get", "events", "--field-selector", f"reason={reason}", "-o", "yaml"))
