"""
The place where things are measured: a temporary folder, certificates, a cloud, and the hub in front of it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeVar

from bench.children import Child
from bench.hub.clients import Caller
from bench.nginx import NginxCloud, NginxProxy
from bench.place import TWISTD, Place
from tests.certs import issue, make_ca
from tests.ports import free_port

NODE = "bench-node"
KUBELET = "kubelet/v1.30.0 (linux/amd64) kubernetes/bench"
"""A component that is cached."""
UNCACHED = "bench/1.0"

_Stoppable = TypeVar("_Stoppable")


class Site(Place):
    """
    Certificates, and what stands on both sides of the hub.
    """

    def prepare(self) -> None:
        """
        Make the certificates.
        """
        self.certs = self.folder / "certs"
        self.certs.mkdir()
        ca = make_ca()
        (self.certs / "ca.crt").write_bytes(ca.cert_pem)
        people = {
            "server": issue(ca, "cloud", [], ["localhost"], ["127.0.0.1"]),
            "node": issue(ca, f"system:node:{NODE}", ["system:nodes"]),
        }
        for name, identity in people.items():
            (self.certs / f"{name}.crt").write_bytes(identity.cert_pem)
            (self.certs / f"{name}.key").write_bytes(identity.key_pem)

    def cloud(self) -> NginxCloud:
        cloud = NginxCloud(self.folder / "cloud", self.certs)
        self.at_end(cloud.stop)
        return cloud

    def proxy(self, cloud: NginxCloud) -> NginxProxy:
        proxy = NginxProxy(self.folder / "proxy", self.certs, cloud.port)
        self.at_end(proxy.child.stop)
        return proxy

    def hub(self, cloud_port: int) -> HubUnderTest:
        hub = HubUnderTest(self, cloud_port)
        self.at_end(lambda: hub.child.stop())
        return hub

    def installed(self) -> dict[str, str]:
        """
        The environment of a daemon that is installed: pip has compiled its modules then, which a checkout's may never be.  The
        first start compiles them here.
        """
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return {**environment, "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode")}

    def kubeconfig(self, cloud_port: int) -> Path:
        """
        The node's, for the cloud on that port.
        """
        files = {name: str(self.certs / name) for name in ("ca.crt", "node.crt", "node.key")}
        path = self.folder / "kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [
                        {
                            "name": "c",
                            "cluster": {"server": f"https://127.0.0.1:{cloud_port}", "certificate-authority": files["ca.crt"]},
                        }
                    ],
                    "users": [{"name": "u", "user": {"client-certificate": files["node.crt"], "client-key": files["node.key"]}}],
                }
            )
        )
        return path


class HubUnderTest:
    """
    ``twistd yurthub`` in front of the cloud on ``cloud_port``.
    """

    def __init__(self, site: Site, cloud_port: int) -> None:
        self.port = free_port()
        self.admin_port = free_port()
        self._site = site
        self._cloud_port = cloud_port
        self.start()

    def command(self) -> list[str]:
        """
        How it is started.
        """
        return [
            TWISTD,
            "--nodaemon",
            "--pidfile=",
            "yurthub",
            f"--kubeconfig={self._site.kubeconfig(self._cloud_port)}",
            f"--node-name={NODE}",
            f"--root-dir={self._site.folder / 'own'}",
            f"--disk-cache-path={self._site.folder / 'cache'}",
            f"--proxy-port={self.port}",
            "--proxy-secure-port=0",
            f"--serve-port={self.admin_port}",
            "--enable-dummy-if=false",
        ]

    def start(self) -> None:
        """
        Start it, without waiting.
        """
        self.child = Child(self.command(), self._site.folder / "hub.log", self._site.installed())

    def wait_for_source(self, path: str, source: str, agent: str = KUBELET) -> None:
        """
        Until ``path`` is answered from the cloud, or from the cache.
        """
        caller = Caller(self.port, agent)
        try:
            self.child.wait_until(lambda: caller.source(path) == source, f"{path} from the {source}")
        finally:
            caller.close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"
