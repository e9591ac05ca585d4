"""
The miniature apiserver as a process of its own: ``python -m tests.miniapi --port 16443 --directory /tmp/mini``.

Writes ``kubeconfig`` (the node's), ``admin.conf``, ``token``, ``ca.crt``, ``tls.crt`` and ``tls.key`` (the node's again, as
files) into the directory, then prints its URL.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from twisted.internet.task import LoopingCall

from .api import MiniAPI


def fill(api: MiniAPI, node: str, configmaps: int, pods: int) -> None:
    """
    Put the node and so many objects of ordinary size into it.
    """
    api.put("nodes", {"metadata": {"name": node, "labels": {"kubernetes.io/hostname": node}}})
    for number in range(configmaps):
        api.put(
            "configmaps",
            {
                "metadata": {"name": f"config-{number:04}", "labels": {"app": f"app-{number % 10}"}},
                "data": {"content": "x" * 1400},
            },
        )
    for number in range(pods):
        api.put("pods", pod(node, number))


def pod(node: str, number: int, note: str = "") -> dict[str, Any]:
    """
    A running pod of some 2 KB.
    """
    return {
        "metadata": {
            "name": f"pod-{number:04}",
            "labels": {"app": f"app-{number % 10}"},
            "annotations": {"note": note, "padding": "x" * 1200},
        },
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "busybox:1"}]},
        "status": {
            "phase": "Running",
            "podIP": f"10.244.{number // 250}.{number % 250}",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "main", "ready": True}],
        },
    }


class Ticker:
    """
    Updates pods in turn, so many times a second.
    """

    PERIOD = 0.005

    def __init__(self, api: MiniAPI, node: str, rate: int, pods: int) -> None:
        self._api, self._node, self._rate, self._pods, self._sent, self._ticks = api, node, rate, max(pods, 1), 0, 0

    def tick(self) -> None:
        self._ticks += 1
        while self._sent < self._ticks * self.PERIOD * self._rate:
            self._sent += 1
            self._api.put("pods", pod(self._node, self._sent % self._pods, f"{self._api.reactor.seconds():.6f}"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.miniapi", description="A miniature kube-apiserver.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--node-name", default="mini-node")
    parser.add_argument("--configmaps", type=int, default=0, help="put so many into it")
    parser.add_argument("--pods", type=int, default=0, help="put so many into it")
    parser.add_argument("--events", type=int, default=0, help="pod updates a second")
    options = parser.parse_args()

    from twisted.internet import reactor

    api = MiniAPI(reactor)
    fill(api, options.node_name, options.configmaps, options.pods)
    url = api.start(port=options.port)
    directory: Path = options.directory
    directory.mkdir(parents=True, exist_ok=True)
    node_user = f"system:node:{options.node_name}"
    api.write_kubeconfig(directory / "kubeconfig", node_user, "system:nodes")
    api.write_kubeconfig(directory / "admin.conf", "admin", "system:masters")
    certificate = api.certificate(node_user, "system:nodes")
    for name, data in (
        ("ca.crt", api.ca.cert_pem),
        ("tls.crt", certificate.cert_pem),
        ("tls.key", certificate.key_pem),
        ("token", api.token().encode()),
    ):
        (directory / name).write_bytes(data)
    print(url, flush=True)
    if options.events:
        LoopingCall(Ticker(api, options.node_name, options.events, options.pods).tick).start(Ticker.PERIOD, now=False)
    getattr(reactor, "run")()


if __name__ == "__main__":
    main()
