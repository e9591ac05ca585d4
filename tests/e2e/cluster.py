"""
A real cluster on this machine: a control plane and a node, in network namespaces, with yurthub on the node.

::

    cloud 10.99.0.1 (etcd, kube-apiserver, kube-controller-manager) ── bridge ── edge-1 10.99.0.11 (containerd, kubelet, yurthub)

Everything is made at the first use and ended with the process; a run that was killed is cleaned up after by the next.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from . import leftovers
from .apiserver import ControlPlane
from .curl import Answer, curl
from .network import Network
from .node import Node
from .process import PATIENCE, Process, find_binary, in_namespace, run, wait_for
from .tunnel import Tunnel

NEEDED = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kubelet",
    "kube-proxy",
    "containerd",
    "runc",
    "ctr",
    "kubectl",
    "ip",
    "nsenter",
    "iptables",
    "busybox",
    "curl",
)
APPROVER = "yurt-controller-manager"
MANIFESTS = Path(__file__).parents[2] / "etc" / "kubernetes"
CLOUD = 1
SECOND_CLOUD_ADDRESS = 2
NOBODY = 99
"""The last part of an address that nobody has."""
HUB = "http://127.0.0.1:10261"
ADMIN = "http://127.0.0.1:10267"
KUBELET = "kubelet/v1.20.2 (linux/amd64)"
POD_ADDRESS = "http://169.254.2.1:10261"
SHARE_WITH_NODES = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "test-nodes"},
    "subjects": [{"kind": "Group", "name": "system:nodes", "apiGroup": "rbac.authorization.k8s.io"}],
    "roleRef": {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"},
}
"""Who speaks through the hub without credentials speaks as the node: here the node may do what kubectl and others want."""


class Cluster:
    """
    The cluster and its node.
    """

    def __init__(self) -> None:
        self.folder = leftovers.run_folder(os.getpid())
        self.folder.mkdir()
        self.network = Network()
        self.controllers: Process | None = None
        self.approver: Process | None = None
        self._tunnel: Tunnel | None = None

    @property
    def tunnel(self) -> Tunnel:
        """
        The cluster's tunnel, which begins to be when a test first asks for it.
        """
        if self._tunnel is None:
            self._tunnel = Tunnel(self)
        return self._tunnel

    def leave_tunnel(self) -> None:
        """
        Let everything be as without a tunnel.
        """
        if self._tunnel:
            self._tunnel.leave()

    def start(self) -> None:
        """
        Bring up the control plane and the node, its kubelet going through the hub.
        """
        self.network.start()
        self.cloud_namespace = self.network.add("cloud", CLOUD)
        second = self.network.add_address(self.cloud_namespace, SECOND_CLOUD_ADDRESS)
        self.plane = ControlPlane(
            self.folder, namespace=self.cloud_namespace, address=self.network.address(CLOUD), extra_addresses=(second,)
        )
        self.plane.start()
        self.start_controllers()
        self.apply(SHARE_WITH_NODES)
        self.node = Node(self.folder, self.network, self.plane.authority, 1, self.plane.url)
        self.network.route(self.cloud_namespace, self.node.pod_subnet, 10 + self.node.number)
        self.hub_kubeconfig = str(self.folder / "hub.conf")
        Path(self.hub_kubeconfig).write_text(json.dumps(hub_kubeconfig()))
        self.node.start_containerd()
        self.node.import_images()
        self.restore()
        wait_for("the default service account", lambda: self.kubectl("get", "serviceaccount", "default", "-o", "name"))

    @cached_property
    def second_node(self) -> Node:
        """
        Another node, straight to the cloud; nothing runs there before :meth:`start_second_node`.
        """
        return Node(self.folder, self.network, self.plane.authority, 2, self.plane.url)

    def start_second_node(self) -> Node:
        """
        Run the second node's containerd and kubelet until it is Ready.
        """
        node = self.second_node
        node.start_containerd()
        node.import_images()
        node.start_kubelet()
        wait_for(f"node {node.name} to be Ready", lambda: self.node_is_ready(node.name), every=0.25)
        return node

    def stop_second_node(self) -> None:
        """
        End all that runs there, and forget it.
        """
        self.second_node.power_cut()
        self.kubectl("delete", "node", self.second_node.name, "--ignore-not-found")

    def start_controllers(self) -> None:
        """
        Run kube-controller-manager in the cloud.
        """
        keys = self.plane.authority
        keys.issue("kcm", "system:kube-controller-manager")
        kubeconfig = keys.kubeconfig(self.folder / "kcm.conf", self.plane.url, "kcm")
        argv = self.controllers_command(kubeconfig, "--use-service-account-credentials=true")
        self.controllers = Process("kube-controller-manager", argv, self.folder / "log/kcm.log", self.cloud_namespace)

    def controllers_command(self, kubeconfig: str, *extra: str) -> list[str]:
        file = self.plane.authority.file
        return [
            find_binary("kube-controller-manager") or "kube-controller-manager",
            "--kubeconfig",
            kubeconfig,
            "--root-ca-file",
            file("ca.crt"),
            "--service-account-private-key-file",
            file("sa.key"),
            "--cluster-signing-cert-file",
            file("ca.crt"),
            "--cluster-signing-key-file",
            file("ca.key"),
            "--leader-elect=false",
            "--node-monitor-grace-period=20s",
            *extra,
        ]

    def stop_controllers(self) -> None:
        if self.controllers:
            self.controllers.stop()
            self.controllers = None

    def start_approver(self) -> None:
        """
        Run yurt-controller-manager in the cloud, with the rights of its manifest.
        """
        self.kubectl("apply", "-f", str(MANIFESTS / f"{APPROVER}.yaml"))
        keys = self.plane.authority
        keys.issue(APPROVER, APPROVER)
        kubeconfig = keys.kubeconfig(self.folder / "ycm.conf", self.plane.url, APPROVER)
        argv = [str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile=", APPROVER, "--kubeconfig", kubeconfig]
        self.approver = Process(APPROVER, argv, self.folder / "log/ycm.log", self.cloud_namespace)

    def stop_approver(self) -> None:
        if self.approver:
            self.approver.stop()
            self.approver = None

    # The node's hub

    def start_hub(self, *options: str, servers: str = "", pod_link: bool = True, twistd: Sequence[str] = ()) -> Process:
        """
        Run ``twistd yurthub`` on the node, and wait until it listens; ``twistd`` is another command to run it by.
        """
        link = ["--dummy-if-name", "yurthub-tap0", "--link-kind", "tap"] if pod_link else ["--enable-dummy-if=false"]
        argv = [
            *(twistd or [str(Path(sys.executable).with_name("twistd"))]),
            "--nodaemon",
            "--pidfile=",
            "yurthub",
            "--server-addr",
            servers or self.plane.url,
            "--node-name",
            self.node.name,
            "--kubeconfig",
            self.node.cloud_kubeconfig,
            "--root-dir",
            str(self.node.folder / "own"),
            "--disk-cache-path",
            str(self.node.folder / "cache"),
            *link,
            *options,
        ]
        hub = self.node.spawn("yurthub", argv)

        def listens() -> bool:
            hub.check()
            answer = self.ask_hub("/v1/status", base=ADMIN, timeout=5)
            return answer.status == 200 and all(one["listening"] for one in json.loads(answer.body)["listeners"])

        wait_for("a listening yurthub", listens, every=0.05)
        return hub

    def ask_hub(self, path: str, *, base: str = HUB, agent: str = KUBELET, **options: Any) -> Answer:
        """
        GET ``path`` on the node, from its hub.
        """
        return curl(self.node.namespace, base + path, agent=agent, **options)

    # Words for tests

    def kubectl(self, *arguments: str, timeout: float = PATIENCE, stdin: bytes | None = None) -> str:
        """
        Run kubectl in the cloud, as administrator.
        """
        return self.plane.kubectl(*arguments, timeout=timeout, stdin=stdin)

    def hub_kubectl_command(self, *arguments: str) -> list[str]:
        """
        The command that runs kubectl on the node with the hub as its server; it speaks as the node.
        """
        kubectl = [
            "kubectl",
            "--kubeconfig",
            self.hub_kubeconfig,
            "--cache-dir",
            str(self.folder / "kubectl-cache-node"),
            *arguments,
        ]
        return in_namespace(self.node.namespace, kubectl)

    def hub_kubectl(self, *arguments: str, timeout: float = PATIENCE, stdin: bytes | None = None) -> str:
        return run(self.hub_kubectl_command(*arguments), timeout=timeout, stdin=stdin)

    def apply(self, *documents: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin=b"\n".join(json.dumps(one).encode() for one in documents))

    def cut(self) -> None:
        """
        Let the node's packets to the cloud and back vanish.
        """
        self.network.cut(self.node.namespace)

    def heal(self) -> None:
        self.network.heal(self.node.namespace)

    def node_is_ready(self, name: str = "") -> bool:
        path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        return self.kubectl("get", "node", name or self.node.name, "-o", path) == "True"

    def pod_phase(self, name: str) -> str:
        return self.kubectl("get", "pod", name, "-o", "jsonpath={.status.phase}")

    def wait_for_pods(self, *names: str) -> None:
        """
        Wait until the pods are Ready in the cloud's eyes.
        """

        def ready() -> bool:
            path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
            return all(self.kubectl("get", "pod", name, "-o", path) == "True" for name in names)

        wait_for(f"pods {', '.join(names)} to be ready", ready, every=0.5)

    def make_pods(self, *pods: dict[str, Any]) -> None:
        """
        Create pods and wait until they run.
        """
        self.apply(*pods)
        self.wait_for_pods(*(one["metadata"]["name"] for one in pods))

    def remove_pods(self, *names: str) -> None:
        """
        Delete pods and wait until their containers are gone.  By force: a kubelet of 1.20 looks only every ten seconds whether
        it may report the end of a pod.
        """
        self.kubectl("delete", "pod", "--ignore-not-found", "--force", "--grace-period=0", *names)

        def stopped() -> bool:
            pods = self.kubectl("get", "pods", "-A", "-o", "name").split()
            return len(self.node.running_containers()) <= 2 * len(pods)

        wait_for(f"the end of pods {', '.join(names)}", stopped, every=0.25)

    def restore(self) -> None:
        """
        Bring everything into its ordinary state: cable plugged in, apiserver, hub, and kubelet through the hub, node Ready.
        """
        self.heal()
        if self.plane.apiserver is None or self.plane.apiserver.status is not None:
            self.plane.start_apiserver()
        if self.controllers is None or self.controllers.status is not None:
            self.start_controllers()
        processes = self.node.processes
        if "containerd" not in processes or processes["containerd"].status is not None:
            self.node.start_containerd()
        if "yurthub" not in processes or processes["yurthub"].status is not None:
            self.start_hub()
        if "kubelet" not in processes or processes["kubelet"].status is not None:
            self.node.start_kubelet(self.hub_kubeconfig)
        wait_for("a Ready node", self.node_is_ready, every=0.5)

    def stop(self) -> None:
        """
        End and remove everything.
        """
        if self._tunnel:
            self._tunnel.stop()
        for name in ("node", "second_node"):
            if name in vars(self):
                vars(self)[name].stop_all()
        self.stop_approver()
        self.stop_controllers()
        if "plane" in vars(self):
            self.plane.stop()
        self.keep_logs()
        leftovers.clean(os.getpid())

    def keep_logs(self) -> None:
        """
        Copy the logs to ``$YURT_E2E_LOGS``, when it is set.
        """
        if target := os.environ.get("YURT_E2E_LOGS"):
            Path(target).mkdir(parents=True, exist_ok=True)
            for path in self.folder.glob("**/*.log"):
                shutil.copy(path, Path(target, f"{path.parent.name}-{path.name}"))


def hub_kubeconfig() -> dict[str, Any]:
    """
    The kubeconfig of whoever speaks to the hub: its address, and no credentials.
    """
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "clusters": [{"name": "c", "cluster": {"server": HUB}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
