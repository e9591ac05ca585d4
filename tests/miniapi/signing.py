"""
Who signs certificates for the miniature apiserver, as kube-controller-manager does; and how a cluster invites nodes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.certs import Authority, authority_key

from .api import MiniAPI
from .identity import User
from .resources import Document
from .store import Change

BACKDATE = 300
"""Seconds by which kube-controller-manager dates certificates back."""
EXTENDED = {"client auth": ExtendedKeyUsageOID.CLIENT_AUTH, "server auth": ExtendedKeyUsageOID.SERVER_AUTH}


def sign_request(ca: Authority, request: bytes, usages: list[str], seconds: float, now: float) -> bytes:
    """
    The certificate that a PKCS#10 request asks for, as PEM.
    """
    asked = x509.load_pem_x509_csr(request)
    issued = datetime.fromtimestamp(now, timezone.utc)
    builder = x509.CertificateBuilder().subject_name(asked.subject).issuer_name(ca.certificate.subject)
    builder = builder.public_key(asked.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(issued - timedelta(seconds=BACKDATE)).not_valid_after(issued + timedelta(seconds=seconds))
    builder = builder.add_extension(x509.ExtendedKeyUsage([EXTENDED[one] for one in usages if one in EXTENDED]), critical=False)
    builder = builder.add_extension(authority_key(ca.certificate), critical=False)
    for extension in asked.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    return builder.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.PEM)


class Signer:
    """
    Approves, denies and signs the requests of one server.  ``wall`` is the time of day.
    """

    def __init__(
        self, api: MiniAPI, *, version: str = "v1", seconds: float = 3600.0, wall: Callable[[], float] = time.time
    ) -> None:
        self.ca = api.ca
        self.seconds = seconds
        self._api, self._wall = api, wall
        resource = api.catalogue.find("certificates.k8s.io", version, "certificatesigningrequests")
        assert resource is not None
        self._resource = resource

    @property
    def requests(self) -> list[Document]:
        """
        All requests, the oldest first.
        """
        stored = self._api.store.collection(self._resource).objects.values()
        return [one.document for one in stored]

    @property
    def pending(self) -> list[str]:
        """
        The names of the requests that nobody has decided.
        """
        return [one["metadata"]["name"] for one in self.requests if not (one.get("status") or {}).get("conditions")]

    def _write(self, name: str, **status: Any) -> None:
        stored = self._api.store.get(self._resource, "", name)
        whole = {**stored.document, "status": {**(stored.document.get("status") or {}), **status}}
        self._api.store.replace(self._resource, stored, whole)

    def approve(self, name: str) -> None:
        """
        Approve a request; it is not signed by that.
        """
        condition = {"type": "Approved", "status": "True", "reason": "KubectlApprove", "message": "by a test"}
        self._write(name, conditions=[condition])

    def deny(self, name: str, message: str = "by a test") -> None:
        """
        Deny a request.
        """
        condition = {"type": "Denied", "status": "True", "reason": "KubectlDeny", "message": message}
        self._write(name, conditions=[condition])

    def sign(self, name: str, request: bytes = b"") -> None:
        """
        Issue what a request asks for, or what another ``request`` does.
        """
        spec = self._api.store.get(self._resource, "", name).document["spec"]
        request = request or base64.b64decode(spec["request"])
        pem = sign_request(self.ca, request, spec["usages"], self.seconds, self._wall())
        self._write(name, certificate=base64.b64encode(pem).decode())

    def issue(self, name: str) -> None:
        """
        Approve and sign.
        """
        self.approve(name)
        self.sign(name)

    def issue_always(self) -> None:
        """
        Approve and sign all that comes from now on.
        """

        def changed(change: Change) -> None:
            if change.before is None and change.now is not None:
                self._api.reactor.callLater(0, self.issue, change.now.key[1])

        self._api.store.collection(self._resource).listeners.append(changed)

    def remove(self, name: str) -> None:
        """
        Delete a request, as is done with old ones.
        """
        self._api.store.remove(self._resource, self._api.store.get(self._resource, "", name))


def jws(content: str, token: str, **changes: Any) -> str:
    """
    The detached signature of a kubeconfig by a bootstrap token; ``changes`` go into its header.
    """
    identifier, _, secret = token.partition(".")

    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    header = encode(json.dumps({"alg": "HS256", "kid": identifier, **changes}).encode())
    signed = f"{header}.{encode(content.encode())}".encode()
    return f"{header}..{encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest())}"


def cluster_info(ca_pem: bytes, server: str, *tokens: str) -> Document:
    """
    ConfigMap cluster-info, signed for these tokens.
    """
    cluster = {"certificate-authority-data": base64.b64encode(ca_pem).decode(), "server": server}
    content = json.dumps({"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": cluster}]})
    signatures = {f"jws-kubeconfig-{token[:6]}": jws(content, token) for token in tokens}
    return {
        "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": content, **signatures},
    }


def invite(api: MiniAPI, *tokens: str, ca_pem: bytes = b"") -> None:
    """
    Let the holders of these tokens in, and nobody by an earlier one; cluster-info says so.
    """
    for known in [one for one, user in api.issuer.static.items() if user.name.startswith("system:bootstrap:")]:
        del api.issuer.static[known]
    for token in tokens:
        groups = ("system:bootstrappers", "system:authenticated")
        api.issuer.static[token] = User(f"system:bootstrap:{token[:6]}", groups)
    api.put("configmaps", cluster_info(ca_pem or api.ca.cert_pem, api.url, *tokens))
