"""
The place where things are measured: a real kube-apiserver with its etcd, callers of it, and the controllers beside it.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

from bench.children import Child
from bench.place import TWISTD, Place
from tests.e2e.apiserver import NEEDED, ControlPlane
from tests.e2e.process import E2EError, find_binary, missing_binaries
from tests.ports import free_port

ROOT = Path(__file__).parent.parent.parent
MANIFEST = ROOT / "etc/kubernetes/yurt-controller-manager.yaml"
USER = "yurt-controller-manager"
TIMEOUT = 120.0

Document = dict[str, Any]


class Site(Place):
    """
    The API server, and the kubeconfig of the controllers.
    """

    def prepare(self) -> None:
        """
        Start the API server.
        """
        if missing := missing_binaries((*NEEDED, "kube-controller-manager", "kubectl")):
            raise RuntimeError(f"not found: {', '.join(missing)}; make kubernetes, as root, builds them")
        self.plane = ControlPlane(
            self.folder,
            port=free_port(),
            etcd_ports=(free_port(), free_port()),
            extra=(
                *("--disable-admission-plugins", "ServiceAccount", "--endpoint-reconciler-type", "none"),
                "--enable-bootstrap-token-auth",
            ),
        )
        self.at_end(self.plane.stop)
        try:
            self.plane.start()
            self.plane.kubectl("apply", "-f", str(MANIFEST))
        except (E2EError, OSError) as error:
            raise RuntimeError(f"no API server: {error}") from None
        self.plane.authority.issue(USER, USER)
        self.kubeconfig = self.plane.authority.kubeconfig(self.folder / "controllers.conf", self.plane.url, USER)

    def controllers(self) -> Child:
        """
        The controllers, once they work.
        """
        port = free_port()
        child = self.child(
            "controllers", TWISTD, "--nodaemon", "--pidfile=", "yurt-controller-manager",
            f"--kubeconfig={self.kubeconfig}", f"--metrics-addr=127.0.0.1:{port}",
        )  # fmt: skip

        def works() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status", timeout=1) as answer:
                    return "waiting" in str(json.load(answer)["controllers"])
            except OSError:
                return False

        child.wait_until(works, "the lead")
        return child

    def signer(self) -> Child:
        """
        Kubernetes' own controllers that sign cluster-info and certificates.
        """
        file = self.plane.authority.file
        return self.child(
            "signer", find_binary("kube-controller-manager") or "kube-controller-manager", "--kubeconfig", self.plane.admin,
            "--controllers=bootstrapsigner,csrsigning", "--leader-elect=false", "--port=0", "--secure-port=0",
            "--cluster-signing-cert-file", file("ca.crt"), "--cluster-signing-key-file", file("ca.key"),
        )  # fmt: skip

    def caller(self, name: str, *groups: str) -> Caller:
        """
        Somebody who calls the API server.
        """
        self.plane.authority.issue(name, name, groups)
        return Caller(self.plane, name)


class Caller:
    """
    Calls of one user, over one connection.
    """

    def __init__(self, plane: ControlPlane, name: str) -> None:
        self._context = ssl.create_default_context(cafile=plane.authority.file("ca.crt"))
        self._context.load_cert_chain(plane.authority.file(f"{name}.crt"), plane.authority.file(f"{name}.key"))
        self._port = plane.port
        self._connection = self._connect()

    def _connect(self) -> HTTPSConnection:
        return HTTPSConnection("127.0.0.1", self._port, timeout=TIMEOUT, context=self._context)

    def ask(self, method: str, path: str, document: Document | None = None) -> Document:
        """
        One call; raises RuntimeError when it fails.
        """
        body = None if document is None else json.dumps(document)
        self._connection.request(method, path, body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer: Document = json.loads(response.read())
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status} {answer.get('message')}")
        return answer

    def watch(self, path: str, version: str) -> Iterator[Document]:
        """
        The objects of a watch, over a connection of its own, until that ends.
        """
        with closing(self._connect()) as connection:
            connection.request("GET", f"{path}?watch=true&resourceVersion={version}&timeoutSeconds={TIMEOUT:.0f}")
            for line in connection.getresponse():
                yield json.loads(line)["object"]


class Approvals(threading.Thread):
    """
    Notes when each request for a certificate is approved.
    """

    def __init__(self, caller: Caller, path: str) -> None:
        super().__init__(daemon=True)
        self._caller, self._path = caller, path
        self._version = caller.ask("GET", f"{path}?limit=1")["metadata"]["resourceVersion"]
        self.times: dict[str, float] = {}

    def run(self) -> None:
        for document in self._caller.watch(self._path, self._version):
            conditions = document.get("status", {}).get("conditions", ())
            if any(one["type"] == "Approved" for one in conditions):
                self.times.setdefault(document["metadata"]["name"], time.monotonic())

    def wait(self, count: int) -> None:
        """
        Until so many are approved; raises RuntimeError when that does not come.
        """
        deadline = time.monotonic() + TIMEOUT
        while len(self.times) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(self.times)} of {count} requests were approved within {TIMEOUT:g} s")
            time.sleep(0.01)
