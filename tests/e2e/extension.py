"""
What extends an API server: an admission webhook that forbids everything, and an aggregated API of things.

usage: python -m tests.e2e.extension PORT CERTIFICATE KEY
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

from .json_server import JSONHandler, serve

GROUP, VERSION = "things.test", "v1"
API = f"/apis/{GROUP}/{VERSION}"
ADMIT = "/admit"
OPINION = "the extension is against it"
SERVICE, NAMESPACE = "extension", "default"
LABEL = "extension.test/asked"
"""Only objects that have this label are shown to the webhook."""

RESOURCES: dict[str, Any] = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": f"{GROUP}/{VERSION}",
    "resources": [{"name": "things", "singularName": "thing", "namespaced": False, "kind": "Thing", "verbs": ["list"]}],
}
THING = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Thing", "metadata": {"name": "one-of-many"}}
THINGS: dict[str, Any] = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "ThingList", "metadata": {}, "items": [THING]}


class Handler(JSONHandler):
    """
    Answers what an API server asks.
    """

    def do_GET(self) -> None:
        document = {API: RESOURCES, f"{API}/things": THINGS}.get(self.path.partition("?")[0])
        self.answer(200 if document else 404, document or {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        response = {"uid": asked["request"]["uid"], "allowed": False, "status": {"message": OPINION}}
        self.answer(200, {"apiVersion": asked["apiVersion"], "kind": asked["kind"], "response": response})


def service(address: str, port: int) -> list[dict[str, Any]]:
    """
    A Service that leads to ``address`` and ``port``.
    """
    metadata = {"name": SERVICE, "namespace": NAMESPACE}
    ports = [{"name": "https", "port": 443, "targetPort": port}]
    subsets = [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port}]}]
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}},
        {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets},
    ]


def api_service(group: str = GROUP, version: str = VERSION) -> dict[str, Any]:
    """
    An API, that of things unless another is given, is served by that Service.
    """
    spec = {
        "group": group,
        "version": version,
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "insecureSkipTLSVerify": True,
        "service": {"name": SERVICE, "namespace": NAMESPACE, "port": 443},
    }
    metadata = {"name": f"{version}.{group}"}
    return {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": metadata, "spec": spec}


def webhook(ca: bytes) -> dict[str, Any]:
    """
    ConfigMaps with :data:`LABEL` are shown to that Service, whose certificate comes from ``ca``, in PEM.
    """
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]
    hook = {
        "name": f"admit.{GROUP}",
        "clientConfig": {
            "service": {"name": SERVICE, "namespace": NAMESPACE, "path": ADMIT, "port": 443},
            "caBundle": base64.b64encode(ca).decode(),
        },
        "rules": rules,
        "objectSelector": {"matchExpressions": [{"key": LABEL, "operator": "Exists"}]},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "timeoutSeconds": 10,
    }
    metadata = {"name": SERVICE}
    kind = "ValidatingWebhookConfiguration"
    return {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": metadata, "webhooks": [hook]}


def main(port: str, certificate: str, key: str) -> None:
    """
    See the module.
    """
    serve(Handler, port, certificate, key)


if __name__ == "__main__":
    main(*sys.argv[1:])
