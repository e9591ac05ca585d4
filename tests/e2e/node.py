"""
A node: containerd, kubelet, and what else runs beside them in its network namespace.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

from . import leftovers
from .apiserver import ClusterKeys
from .images import PAUSE, write_images
from .network import Network
from .process import PATIENCE, Process, find_binary, in_namespace, run, wait_for

METADATA_SERVICE = "169.254.169.254"
"""Of clouds for rent: each kubelet would wait 6 s for its answer when it starts."""
TRACK_CONNECTIONS = "iptables -w -A INPUT -m conntrack --ctstate INVALID".split()
"""A rule that does nothing, but has connections tracked from the first on.  On one that began before, what comes to the node is
new, and rules that let nothing new in drop it until the node says something there, a quarter of a minute later."""
CONTAINERD_CONFIG = """\
version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
"""


class Node:
    """
    One machine of the edge, in a network namespace of its own.  ``number`` tells it from others.
    """

    def __init__(self, folder: Path, network: Network, keys: ClusterKeys, number: int, cloud_url: str) -> None:
        self.name = f"edge-{number}"
        self.folder, self.network, self.keys, self.number = folder / self.name, network, keys, number
        self.address = network.address(10 + number)
        self.pod_subnet = f"10.244.{number}.0/24"
        self.folder.mkdir(parents=True)
        self.namespace = network.add(self.name, 10 + number, gateway=1)
        run(["ip", "-n", self.namespace, "route", "add", "unreachable", METADATA_SERVICE])
        self.run(*TRACK_CONNECTIONS)
        keys.issue(self.name, f"system:node:{self.name}", ("system:nodes",), dns=[self.name], ips=[self.address])
        self.cloud_kubeconfig = keys.kubeconfig(self.folder / "cloud.conf", cloud_url, self.name)
        self.processes: dict[str, Process] = {}
        self._write_configuration()

    def _write_configuration(self) -> None:
        (self.folder / "containerd.toml").write_text(CONTAINERD_CONFIG.format(folder=self.folder, pause=PAUSE))
        plugins = [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(self.folder / "ipam"),
                    "ranges": [[{"subnet": self.pod_subnet}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ]
        for name in ("cni", "static-pods"):
            (self.folder / name).mkdir()
        (self.folder / "cni/10-pods.conflist").write_text(json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}))
        kubelet = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": self.keys.file("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": self.keys.file(f"{self.name}.crt"),
            "tlsPrivateKeyFile": self.keys.file(f"{self.name}.key"),
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,  # two kubelets on one machine would clean up each other's pods
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "readOnlyPort": 10255,
            "staticPodPath": str(self.folder / "static-pods"),
            "fileCheckFrequency": "2s",
            "containerLogMaxSize": "200Mi",
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "nodeStatusUpdateFrequency": "2s",
            "nodeLeaseDurationSeconds": 20,
            "syncFrequency": "10s",
            "clusterDNS": ["10.96.0.10"],
            "clusterDomain": "cluster.local",
        }
        (self.folder / "kubelet.json").write_text(json.dumps(kubelet))

    def spawn(self, name: str, argv: list[str]) -> Process:
        """
        Run a daemon of that name in the node's namespace, in the place of an earlier one.
        """
        self.stop(name)
        self.processes[name] = Process(f"{name} of {self.name}", argv, self.folder / f"{name}.log", self.namespace)
        return self.processes[name]

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        if process := self.processes.pop(name, None):
            process.stop(number)

    def run(self, *argv: str, timeout: float = PATIENCE, check: bool = True) -> str:
        """
        Run a command on the node and answer its output.
        """
        return run(in_namespace(self.namespace, argv), timeout=timeout, check=check)

    def start_containerd(self) -> None:
        containerd = self.spawn(
            "containerd", [find_binary("containerd") or "containerd", "-c", str(self.folder / "containerd.toml")]
        )

        def answers() -> bool:
            containerd.check()
            self.ctr("version")
            return True

        wait_for(f"containerd of {self.name}", answers)

    def ctr(self, *arguments: str) -> str:
        return run(["ctr", "-a", str(self.folder / "containerd.sock"), "-n", "k8s.io", *arguments])

    def import_images(self) -> None:
        for path in write_images(self.folder):
            self.ctr("images", "import", "--snapshotter", "native", str(path))

    def start_kubelet(self, kubeconfig: str | None = None) -> Process:
        """
        Start the kubelet, straight to the cloud unless another kubeconfig is given.
        """
        argv = [
            find_binary("kubelet") or "kubelet",
            "--config",
            str(self.folder / "kubelet.json"),
            "--kubeconfig",
            kubeconfig or self.cloud_kubeconfig,
            "--hostname-override",
            self.name,
            "--node-ip",
            self.address,
            "--container-runtime",
            "remote",
            "--container-runtime-endpoint",
            f"unix://{self.folder}/containerd.sock",
            "--root-dir",
            str(self.folder / "kubelet"),
            "--cert-dir",
            str(self.folder / "kubelet-pki"),
            "--v=2",
        ]
        return self.spawn("kubelet", argv)

    def start_kube_proxy(self, kubeconfig: str) -> Process:
        """
        Start kube-proxy.
        """
        argv = [
            find_binary("kube-proxy") or "kube-proxy",
            *("--kubeconfig", kubeconfig),
            *("--proxy-mode", "iptables", "--conntrack-max-per-core", "0", "--cluster-cidr", "10.244.0.0/16"),
            *("--hostname-override", self.name, "--v=2"),
        ]
        return self.spawn("kube-proxy", argv)

    def stop_kube_proxy(self) -> None:
        """
        End it, and take its rules away; it complains of a machine without ipset.
        """
        self.stop("kube-proxy")
        self.run(find_binary("kube-proxy") or "kube-proxy", "--cleanup", check=False)

    def running_containers(self) -> list[str]:
        """
        The ids of the tasks that run, sandboxes among them.
        """
        return [line.split()[0] for line in self.ctr("tasks", "ls").splitlines()[1:] if "RUNNING" in line]

    def power_cut(self) -> None:
        """
        Kill everything on the node at once, and forget what a machine keeps in memory only.
        """
        for process in self.processes.values():
            process.send(signal.SIGKILL)
        for name in tuple(self.processes):
            self.stop(name, signal.SIGKILL)
        names = leftovers.pod_namespaces(self.folder)
        leftovers.kill_containers(self.folder)
        for name in names:
            run(["ip", "netns", "del", name], check=False)
        leftovers.unmount_below(self.folder)
        run(["rm", "-rf", str(self.folder / "containerd-state"), str(self.folder / "containerd.sock"), str(self.folder / "ipam")])
        run(["ip", "-n", self.namespace, "link", "del", "cni0"], check=False)

    def stop_all(self) -> None:
        for name in sorted(self.processes, reverse=True):  # yurthub, kubelet, kube-proxy, containerd
            self.stop(name)
