"""
What ``kubectl top`` asks for, as metrics-server gives it: an aggregated API of usage, read from the kubelets with a token.

usage: python -m tests.e2e.metrics_server PORT CERTIFICATE KEY CA TOKEN_FILE NODE=URL ...
"""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from .json_server import JSONHandler, serve

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
API = f"/apis/{GROUP}/{VERSION}"
TIMEOUT = 10.0

RESOURCES: dict[str, Any] = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": f"{GROUP}/{VERSION}",
    "resources": [
        {"name": "nodes", "singularName": "", "namespaced": False, "kind": "NodeMetrics", "verbs": ["get", "list"]},
        {"name": "pods", "singularName": "", "namespaced": True, "kind": "PodMetrics", "verbs": ["get", "list"]},
    ],
}


def usage(stats: dict[str, Any]) -> dict[str, str]:
    """
    What a kubelet's statistics of something say that it uses.
    """
    cpu, memory = stats.get("cpu") or {}, stats.get("memory") or {}
    return {"cpu": f"{cpu.get('usageNanoCores', 0)}n", "memory": f"{memory.get('workingSetBytes', 0)}"}


def node_metrics(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """
    The node of a summary.
    """
    node = summary["node"]
    about = {"timestamp": node["cpu"]["time"], "window": "10s", "usage": usage(node)}
    return [{"kind": "NodeMetrics", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {"name": node["nodeName"]}, **about}]


def pod_metrics(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """
    The pods of a summary.
    """
    return [
        {
            "kind": "PodMetrics",
            "apiVersion": f"{GROUP}/{VERSION}",
            "metadata": {"name": pod["podRef"]["name"], "namespace": pod["podRef"]["namespace"]},
            "timestamp": summary["node"]["cpu"]["time"],
            "window": "10s",
            "containers": [{"name": one["name"], "usage": usage(one)} for one in pod.get("containers") or ()],
        }
        for pod in summary.get("pods") or ()
    ]


KINDS: dict[str, tuple[str, Callable[[dict[str, Any]], list[dict[str, Any]]]]] = {
    "nodes": ("NodeMetricsList", node_metrics),
    "pods": ("PodMetricsList", pod_metrics),
}


class Handler(JSONHandler):
    """
    Answers what an API server passes on; each time the kubelets are asked anew.
    """

    kubelets: tuple[str, ...] = ()
    token_file = ""
    context: ssl.SSLContext

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        words = path.removeprefix(f"{API}/namespaces/default").removeprefix(API).strip("/").split("/")
        if path == API:
            self.answer(200, RESOURCES)
        elif words[0] not in KINDS:
            self.answer(404, {})
        else:
            kind, of = KINDS[words[0]]
            items = [item for kubelet in self.kubelets for item in of(self.summary(kubelet))]
            if len(words) > 1:
                found = [item for item in items if item["metadata"]["name"] == words[1]]
                self.answer(200 if found else 404, found[0] if found else {})
            else:
                self.answer(200, {"kind": kind, "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": items})

    def summary(self, kubelet: str) -> dict[str, Any]:
        """
        What a kubelet counted.
        """
        request = Request(f"{kubelet}/stats/summary")
        request.add_header("Authorization", f"Bearer {Path(self.token_file).read_text().strip()}")
        with urlopen(request, timeout=TIMEOUT, context=self.context) as answer:
            summary: dict[str, Any] = json.load(answer)
            return summary


def main(port: str, certificate: str, key: str, ca: str, token_file: str, *kubelets: str) -> None:
    """
    See the module.
    """
    Handler.kubelets, Handler.token_file = kubelets, token_file
    Handler.context = ssl.create_default_context(cafile=ca)
    serve(Handler, port, certificate, key)


if __name__ == "__main__":
    main(*sys.argv[1:])
