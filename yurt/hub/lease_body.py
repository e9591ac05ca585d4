"""
The Lease of a node as bytes: what kubelet sends (JSON or protobuf), what the hub keeps, what it sends to the cloud.

Field numbers of the protobuf form: ``generated.proto`` of ``k8s.io/api/coordination/v1`` and of
``k8s.io/apimachinery/pkg/apis/meta/v1``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from yurt.kube.lease import API_VERSION, micro_time
from yurt.kube.protobuf import MAGIC, ProtobufError, fields, messages, read_unknown

Lease = dict[str, Any]

LEASE_NAMESPACE = "kube-node-lease"
MAX_NUMBER = (1 << 32) - 1
"""The largest number that a field of a Lease sensibly holds; as seconds it is a time of the year 2106."""
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
    metadata = _read(parts.get(1, b""), _METADATA)
    return {"apiVersion": API_VERSION, "kind": "Lease", "metadata": metadata, "spec": _read(parts.get(2, b""), _SPEC)}


_Reader = Callable[[int | bytes], Any]


def _read(message: bytes, shape: Mapping[int, tuple[str, _Reader]]) -> dict[str, Any]:
    """
    The fields named in ``shape``; those read to a list or a dict add up where they repeat.
    """
    found: dict[str, Any] = {}
    for number, value in fields(message):
        if number not in shape:
            continue
        name, reader = shape[number]
        read = reader(value)
        if isinstance(read, list):
            found.setdefault(name, []).extend(read)
        elif isinstance(read, dict):
            found.setdefault(name, {}).update(read)
        else:
            found[name] = read
    return found


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ProtobufError("a number where a message or a text should be")
    return value


def _number(value: int | bytes) -> int:
    if not isinstance(value, int) or value > MAX_NUMBER:
        raise ProtobufError("no number where a small one should be")
    return value


def _flag(value: int | bytes) -> bool:
    return _number(value) != 0


def _text(value: int | bytes) -> str:
    return _bytes(value).decode()


def _entry(value: int | bytes) -> dict[str, str]:
    entry = messages(_bytes(value))
    return {_text(entry.get(1, b"")): _text(entry.get(2, b""))}


def _owner(value: int | bytes) -> list[dict[str, Any]]:
    return [_read(_bytes(value), _OWNER)]


def _time(value: int | bytes) -> str:
    parts = dict(fields(_bytes(value)))
    return micro_time(_number(parts.get(1, 0)) + _number(parts.get(2, 0)) / 1e9)


_OWNER: Mapping[int, tuple[str, _Reader]] = {
    5: ("apiVersion", _text),
    1: ("kind", _text),
    3: ("name", _text),
    4: ("uid", _text),
    6: ("controller", _flag),
    7: ("blockOwnerDeletion", _flag),
}
_METADATA: Mapping[int, tuple[str, _Reader]] = {
    1: ("name", _text),
    3: ("namespace", _text),
    11: ("labels", _entry),
    12: ("annotations", _entry),
    13: ("ownerReferences", _owner),
}
_SPEC: Mapping[int, tuple[str, _Reader]] = {
    1: ("holderIdentity", _text),
    2: ("leaseDurationSeconds", _number),
    3: ("acquireTime", _time),
    4: ("renewTime", _time),
    5: ("leaseTransitions", _number),
}
