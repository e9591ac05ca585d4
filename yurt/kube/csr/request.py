"""
CertificateSigningRequest objects: what is sent, and what an answer says.

Facts: ``k8s.io/api/certificates/v1`` and ``v1beta1``, which clusters before 1.19 have only.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from yurt.kube.csr.wanted import Wanted

VERSIONS = ("v1", "v1beta1")
"""The versions that are spoken, the best first."""


class Verdict(Enum):
    """
    What has become of a request.
    """

    PENDING = "pending"
    APPROVED = "approved, not signed yet"
    DENIED = "denied"
    FAILED = "failed"
    ISSUED = "issued"


@dataclass(frozen=True, slots=True)
class Answer:
    """
    A request as the server has it: why it was denied or failed, since when it is there, and the certificate.
    """

    verdict: Verdict
    reason: str = ""
    since: str = ""
    version: str = ""
    certificate: bytes = field(default=b"", repr=False)


def requests_path(version: str) -> str:
    """
    The path of all requests.
    """
    return f"/apis/certificates.k8s.io/{version}/certificatesigningrequests"


def request_document(
    version: str, name: str, pem: bytes, wanted: Wanted, annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """
    The object that asks for ``wanted`` with the PKCS#10 request ``pem``.
    """
    return {
        "apiVersion": f"certificates.k8s.io/{version}",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name, **({"annotations": dict(annotations)} if annotations else {})},
        "spec": {"request": base64.b64encode(pem).decode(), "signerName": wanted.signer, "usages": list(wanted.usages)},
    }


def read_answer(document: Mapping[str, Any]) -> Answer:
    """
    What the server's state of a request says.
    """
    status, metadata = document.get("status") or {}, document.get("metadata") or {}
    since, version = str(metadata.get("creationTimestamp") or ""), str(metadata.get("resourceVersion") or "")
    found = {one.get("type"): one for one in status.get("conditions") or [] if one.get("status", "True") == "True"}
    for verdict, kind in ((Verdict.DENIED, "Denied"), (Verdict.FAILED, "Failed")):
        if kind in found:
            return Answer(verdict, _reason(found[kind]), since, version)
    certificate = _decode(status.get("certificate"))
    if certificate:
        return Answer(Verdict.ISSUED, "", since, version, certificate)
    return Answer(Verdict.APPROVED if "Approved" in found else Verdict.PENDING, "", since, version)


def find_answer(document: Mapping[str, Any]) -> Answer | None:
    """
    What a list that has at most one request says; ``version`` is the list's, from which it can be watched.
    """
    version = str((document.get("metadata") or {}).get("resourceVersion") or "")
    for one in document.get("items") or []:
        return replace(read_answer(one), version=version)
    return None


def _reason(condition: Mapping[str, Any]) -> str:
    said = [str(condition[key]) for key in ("reason", "message") if condition.get(key)]
    return ": ".join(said) or "no reason was given"


def _decode(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        return b""
