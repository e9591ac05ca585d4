"""
The Lease of a node as bytes: what kubelet sends (JSON or protobuf), what the hub keeps, what it sends to the cloud.

Field numbers of the protobuf form: ``generated.proto`` of ``k8s.io/api/coordination/v1``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from yurt.kube.lease import API_VERSION, micro_time
from yurt.kube.protobuf import MAGIC, ProtobufError, messages, read_unknown
from yurt.kube.protoshapes import METADATA, Shape, read_message, read_micro_time, read_number, read_text

Lease = dict[str, Any]

LEASE_NAMESPACE = "kube-node-lease"
STAMPED = ("uid", "creationTimestamp", "resourceVersion")
"""Metadata that a server gives, whatever a client sends."""


class LeaseError(ValueError):
    """
    A body that is no Lease; the message says why.
    """


def read_lease(body: bytes) -> Lease:
    """
    The Lease in a request or response body; the form is told by its first bytes.  Raises LeaseError.
    """
    try:
        lease = _read_protobuf(body) if body.startswith(MAGIC) else msgspec.json.decode(body, type=dict[str, Any])
    except (ProtobufError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LeaseError(f"the body is not a Lease: {error}") from error
    if lease.get("kind", "Lease") != "Lease" or not isinstance(lease.get("metadata"), dict):
        raise LeaseError("the body is not a Lease")
    if not isinstance(lease.setdefault("spec", {}), dict):
        raise LeaseError("the spec of the Lease is not an object")
    return lease


def renewed(kept: Lease, in_cloud: Lease | None, node_name: str, now: float) -> Lease:
    """
    What the cloud is to hold: its own object, with holder, duration and owner as kubelet ``kept`` them, renewed ``now``.
    """
    known = in_cloud or {}
    metadata = {name: value for name, value in known.get("metadata", {}).items() if name != "managedFields"}
    metadata.update(name=node_name, namespace=LEASE_NAMESPACE)
    if owners := kept["metadata"].get("ownerReferences"):
        metadata["ownerReferences"] = owners
    spec = {**known.get("spec", {}), **kept["spec"], "renewTime": micro_time(now)}
    return {"apiVersion": API_VERSION, "kind": "Lease", "metadata": metadata, "spec": spec}


def _read_protobuf(body: bytes) -> Lease:
    head, raw = read_unknown(body)
    if head.kind != "Lease":
        raise LeaseError(f"the body is a {head.kind or 'nameless kind'}, not a Lease")
    parts = messages(raw)
    metadata, spec = read_message(parts.get(1, b""), METADATA), read_message(parts.get(2, b""), _SPEC)
    return {"apiVersion": API_VERSION, "kind": "Lease", "metadata": metadata, "spec": spec}


_SPEC: Shape = {
    1: ("holderIdentity", read_text),
    2: ("leaseDurationSeconds", read_number),
    3: ("acquireTime", read_micro_time),
    4: ("renewTime", read_micro_time),
    5: ("leaseTransitions", read_number),
}
