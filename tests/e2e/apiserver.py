"""
A real kube-apiserver with its etcd.
"""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from tests.certs import Identity, issue, make_ca

from .process import PATIENCE, E2EError, Process, find_binary, in_namespace, run, wait_for, with_hosts

NEEDED = ("etcd", "kube-apiserver")
ADDRESS_TYPES = "--kubelet-preferred-address-types"
ISSUER = "https://kubernetes.default.svc"


def key_pem(key: PrivateKeyTypes) -> bytes:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


class ClusterKeys:
    """
    The cluster's keys, as files of one folder.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ca = make_ca("kubernetes")
        (folder / "ca.crt").write_bytes(self.ca.cert_pem)
        (folder / "ca.key").write_bytes(key_pem(self.ca.key))
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (folder / "sa.key").write_bytes(key_pem(key))

    def file(self, name: str) -> str:
        return str(self.folder / name)

    def issue(
        self, file: str, common_name: str, organizations: Sequence[str] = (), dns: Sequence[str] = (), ips: Sequence[str] = ()
    ) -> Identity:
        """
        A certificate, also written to ``file``.crt and ``file``.key.
        """
        one = issue(self.ca, common_name, list(organizations), list(dns), list(ips))
        (self.folder / f"{file}.crt").write_bytes(one.cert_pem)
        (self.folder / f"{file}.key").write_bytes(one.key_pem)
        return one

    def kubeconfig(self, path: Path, server: str, file: str) -> str:
        """
        Write a kubeconfig for the holder of ``file``.crt; answers its path.
        """
        cluster: dict[str, str] = {"server": server}
        if server.startswith("https"):
            cluster["certificate-authority"] = self.file("ca.crt")
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "x",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [
                {"name": "u", "user": {"client-certificate": self.file(f"{file}.crt"), "client-key": self.file(f"{file}.key")}}
            ],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        }
        path.write_text(json.dumps(document))
        return str(path)


class APIServer(Process):
    """
    A kube-apiserver.  Asked to end it waits a minute for those who watch; nobody waits for that here.
    """

    stop_timeout = 5.0


class ControlPlane:
    """
    etcd and kube-apiserver, on loopback or inside a network namespace.
    """

    def __init__(
        self,
        folder: Path,
        *,
        namespace: str | None = None,
        address: str = "127.0.0.1",
        extra_addresses: Sequence[str] = (),
        port: int = 6443,
        etcd_ports: tuple[int, int] = (2379, 2380),
        extra: Sequence[str] = (),
    ) -> None:
        self.folder, self.namespace, self.address, self.port, self.extra = folder, namespace, address, port, tuple(extra)
        self.authority = ClusterKeys(folder / "pki")
        self.etcd_url = f"http://127.0.0.1:{etcd_ports[0]}"
        self._etcd_peer = f"http://127.0.0.1:{etcd_ports[1]}"
        self.url = self.url_of(port)
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
        self.authority.issue(
            "apiserver", "kube-apiserver", dns=names, ips=sorted({address, "127.0.0.1", "10.96.0.1", *extra_addresses})
        )
        self.authority.issue("admin", "admin", ("system:masters",))
        self.authority.issue("kubelet-client", "kube-apiserver-kubelet-client", ("system:masters",))
        self.admin = self.authority.kubeconfig(folder / "admin.conf", self.url, "admin")
        self.etcd: Process | None = None
        self.apiserver: Process | None = None

    def start(self) -> None:
        """
        Start both and wait until the apiserver is ready.
        """
        argv = [
            find_binary("etcd") or "etcd",
            "--data-dir",
            str(self.folder / "etcd"),
            "--listen-client-urls",
            self.etcd_url,
            "--advertise-client-urls",
            self.etcd_url,
            "--listen-peer-urls",
            self._etcd_peer,
            "--unsafe-no-fsync",
            "--initial-advertise-peer-urls",
            self._etcd_peer,
            "--initial-cluster",
            f"default={self._etcd_peer}",
        ]
        self.etcd = Process("etcd", argv, self.folder / "log/etcd.log", self.namespace)
        self.start_apiserver()

    def start_apiserver(self) -> None:
        """
        Start kube-apiserver and wait until it is ready.
        """
        self.apiserver = self._start("apiserver", self.command(self.port, *self.extra), self.url)

    def start_another(self, name: str, port: int, *extra: str, hosts: Path | None = None, etcd: str = "") -> Process:
        """
        One more kube-apiserver of this cluster, with these options besides, on another port; ``hosts`` is its /etc/hosts,
        ``etcd`` another way to etcd.
        """
        argv = [*self.command(port, *extra), "--endpoint-reconciler-type", "none"]
        if etcd:
            argv[argv.index(self.etcd_url)] = etcd
        return self._start(name, with_hosts(hosts, argv), self.url_of(port))

    def url_of(self, port: int) -> str:
        """
        Where an apiserver of that port is reached.
        """
        return f"https://{self.address}:{port}"

    def command(self, port: int, *extra: str) -> list[str]:
        file = self.authority.file
        return [
            find_binary("kube-apiserver") or "kube-apiserver",
            "--etcd-servers",
            self.etcd_url,
            "--secure-port",
            str(port),
            "--bind-address",
            "127.0.0.1" if self.namespace is None else "0.0.0.0",
            "--advertise-address",
            self.address,
            "--client-ca-file",
            file("ca.crt"),
            "--tls-cert-file",
            file("apiserver.crt"),
            "--tls-private-key-file",
            file("apiserver.key"),
            "--service-account-key-file",
            file("sa.key"),
            "--service-account-signing-key-file",
            file("sa.key"),
            "--service-account-issuer",
            ISSUER,
            "--service-cluster-ip-range",
            "10.96.0.0/16",
            "--authorization-mode",
            "Node,RBAC",
            "--allow-privileged",
            "--kubelet-client-certificate",
            file("kubelet-client.crt"),
            "--kubelet-client-key",
            file("kubelet-client.key"),
            "--kubelet-certificate-authority",
            file("ca.crt"),
            "--cert-dir",
            str(self.folder / "run"),
            *([] if ADDRESS_TYPES in extra else [ADDRESS_TYPES, "InternalIP,Hostname"]),  # given twice it would be both
            *extra,
        ]

    def _start(self, name: str, argv: list[str], url: str) -> Process:
        apiserver = APIServer(f"kube-{name}", argv, self.folder / f"log/{name}.log", self.namespace)

        def ready() -> bool:
            apiserver.check()
            return self.kubectl("--server", url, "get", "--raw", "/readyz", timeout=20) == "ok"

        try:
            wait_for(f"a ready kube-{name}", ready)
        except E2EError:
            apiserver.stop(signal.SIGKILL)
            raise
        return apiserver

    def stop_apiserver(self, number: int = 15) -> None:
        if self.apiserver:
            self.apiserver.stop(number)
            self.apiserver = None

    def kubectl(self, *arguments: str, timeout: float = PATIENCE, stdin: bytes | None = None) -> str:
        """
        Run kubectl as the cluster's administrator.
        """
        return run(self.kubectl_command(*arguments), timeout=timeout, stdin=stdin)

    def kubectl_command(self, *arguments: str) -> list[str]:
        """
        The command that runs kubectl as the cluster's administrator.
        """
        kubectl = ["kubectl", "--kubeconfig", self.admin, "--cache-dir", str(self.folder / "kubectl-cache")]
        return in_namespace(self.namespace, [*kubectl, *arguments])

    def compact(self, revision: int) -> None:
        """
        Make etcd forget all history before ``revision`` (loopback only).
        """
        body = json.dumps({"revision": str(revision)}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.etcd_url}/v3/kv/compaction", body), timeout=10) as answer:
            answer.read()

    def stop(self) -> None:
        for process in (self.apiserver, self.etcd):
            if process:
                process.stop()
        self.apiserver = self.etcd = None
