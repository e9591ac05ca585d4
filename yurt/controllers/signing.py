"""
CertificateSigningRequests and Nodes, as far as the approver of certificates looks at them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from ipaddress import ip_address

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

from yurt.kube.csr.renewal import ANNOTATION, Renewed, read_renewed
from yurt.kube.csr.wanted import CLIENT_SIGNER, CLIENT_USAGES, NODE_PREFIX, SERVING_SIGNER

AGENT_NAME, PROXY_NAME, SERVER_NAME = "tunnel-agent-client", "tunnel-proxy-client", f"{NODE_PREFIX}tunnel-server"
"""Common names of the tunnel's certificates, as in OpenYurt."""

MAX_OBJECT_BYTES = 16 * 1024
"""Bytes of a request, as an object, that is looked at; those of our daemons have two thousand."""

MIN_RSA_BITS, MIN_EC_BITS = 2048, 256
"""Bits of the weakest keys that are certified; those of our daemons are of 256, on P-256."""

_PEM = re.compile(rb"-----BEGIN CERTIFICATE REQUEST-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE REQUEST-----\s*")
_EXTENSION_REQUEST = ObjectIdentifier("1.2.840.113549.1.9.14")
"""The one attribute of a PKCS#10 request in which signers look for alternative names."""


class Kind(Enum):
    """
    Which certificate of ours; the value is the message of the approval.
    """

    NODE_CLIENT = "Auto approving yurthub node client certificate"
    NODE_SERVING = "Auto approving openyurt tls server certificate"
    AGENT = "Auto approving tunnel-agent client certificate"
    PROXY = "Auto approving tunnel-server proxy client certificate"
    SERVER_SERVING = "Auto approving tunnel-server tls server certificate"


class State(Enum):
    """
    What has become of a request: APPROVED also when it is signed.
    """

    PENDING, APPROVED, OVER = range(3)


@dataclass(frozen=True, slots=True)
class Asked:
    """
    A PKCS#10 request.  ``common_name`` is the one that is ours, if any is; ``flaw`` says what no request of our daemons has.
    """

    common_name: str
    organizations: tuple[str, ...]
    dns: frozenset[str]
    addresses: frozenset[str]
    flaw: str = ""

    @property
    def names(self) -> frozenset[str]:
        """
        All subject alternative names.
        """
        return self.dns | self.addresses


@dataclass(frozen=True, slots=True)
class Request:
    """
    A request of a kind that is ours.

    ``created`` and ``expires`` are seconds since the epoch, the latter of the certificate, if it is there.  ``body`` is the whole
    object, as long as it can be approved.  ``renewed`` is the certificate that it shows, which it is to follow.
    """

    name: str
    uid: str
    api_version: str
    created: float
    kind: Kind
    node: str
    username: str
    groups: frozenset[str]
    usages: frozenset[str]
    asked: Asked
    state: State
    expires: float | None
    body: bytes
    renewed: Renewed | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """
    As much of a Node as is of interest: its names and addresses, whether its kubelet says how it is (Ready is True or False),
    and since when nothing is heard of it.
    """

    name: str
    addresses: frozenset[str]
    lives: bool = False
    lost_at: float | None = None


class _Metadata(msgspec.Struct):
    name: str = ""
    uid: str = ""
    creationTimestamp: datetime | None = None
    annotations: dict[str, str] | None = None


class _Condition(msgspec.Struct):
    type: str = ""
    status: str = "True"
    lastTransitionTime: datetime | None = None


class _RequestSpec(msgspec.Struct):
    request: bytes = b""
    signerName: str = ""
    usages: list[str] | None = None
    username: str = ""
    groups: list[str] | None = None


class _RequestStatus(msgspec.Struct):
    conditions: list[_Condition] | None = None
    certificate: bytes | None = None


class _Request(msgspec.Struct):
    apiVersion: str
    metadata: _Metadata
    spec: _RequestSpec
    status: _RequestStatus | None = None


class _Address(msgspec.Struct):
    address: str = ""


class _NodeStatus(msgspec.Struct):
    addresses: list[_Address] | None = None
    conditions: list[_Condition] | None = None


class _Node(msgspec.Struct):
    metadata: _Metadata
    status: _NodeStatus | None = None


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_node = msgspec.json.Decoder(_Node).decode


def read_request(body: bytes) -> Request | None:
    """
    A request of ours, or None for another one.  Raises ValueError for one that is too large or cannot be read.
    """
    if len(body) > MAX_OBJECT_BYTES:
        raise ValueError(f"it has more than {MAX_OBJECT_BYTES} bytes")
    found = _decode_request(body)
    spec, status = found.spec, found.status or _RequestStatus()
    signer = spec.signerName or _signer_of(found.apiVersion, spec.usages or ())
    if signer not in (CLIENT_SIGNER, SERVING_SIGNER):
        return None
    try:
        asked, expires = _read_pkcs10(spec.request), _expiry(status.certificate)
    except Exception as error:  # of many kinds: whoever has a token may send anything
        raise ValueError(f"it holds nothing that can be read: {error}") from error
    kind = _kind(signer, asked.common_name)
    if kind is None:
        return None
    state = _state({one.type for one in status.conditions or () if one.status == "True"})
    created, shown = found.metadata.creationTimestamp, (found.metadata.annotations or {}).get(ANNOTATION)
    return Request(
        name=found.metadata.name,
        uid=found.metadata.uid,
        api_version=found.apiVersion,
        created=created.timestamp() if created else 0.0,
        kind=kind,
        node=min(asked.dns, default="") if kind is Kind.AGENT else asked.common_name.removeprefix(NODE_PREFIX),
        username=spec.username,
        groups=frozenset(spec.groups or ()),
        usages=frozenset(spec.usages or ()),
        asked=asked,
        state=state,
        expires=expires,
        body=body if state is State.PENDING else b"",
        renewed=read_renewed(shown, spec.request) if shown and state is State.PENDING else None,
    )


def _kind(signer: str, common_name: str) -> Kind | None:
    if signer == CLIENT_SIGNER:
        named = {AGENT_NAME: Kind.AGENT, PROXY_NAME: Kind.PROXY}
        return named.get(common_name) or (Kind.NODE_CLIENT if common_name.startswith(NODE_PREFIX) else None)
    if common_name == SERVER_NAME:
        return Kind.SERVER_SERVING
    return Kind.NODE_SERVING if common_name.startswith(NODE_PREFIX) else None


def _signer_of(version: str, usages: Collection[str]) -> str:
    """
    The signer of a request that names none, as before Kubernetes 1.18, where one signer did what usages say.
    """
    if not version.endswith("/v1beta1"):
        return ""
    return CLIENT_SIGNER if CLIENT_USAGES[-1] in usages else SERVING_SIGNER


def _read_pkcs10(pem: bytes) -> Asked:
    """
    Read a request so that nothing in it can mean something else to the signer, whose parser is another one.
    """
    request = x509.load_pem_x509_csr(pem)
    common_names = [str(one.value) for one in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    organizations = [str(one.value) for one in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    try:
        extensions, unreadable = [one.value for one in request.extensions], ""
    except Exception as error:  # of many kinds, as above
        extensions, unreadable = [], f"what it asks for beside its subject cannot be read: {error}"
    names = [name for one in extensions if isinstance(one, x509.SubjectAlternativeName) for name in one]
    flaws = {
        unreadable: unreadable,
        "it is not one CERTIFICATE REQUEST in PEM and nothing else": not _PEM.fullmatch(pem),
        "it has attributes beside one request for extensions": [one.oid for one in request.attributes]
        not in ([], [_EXTENSION_REQUEST]),
        "it is not signed with its own key": not request.is_signature_valid,
        "its key is none of RSA from 2048 bits on, ECDSA from 256 bits on, Ed25519 and Ed448": not _is_strong(request),
        "its subject holds more than a common name and organizations": len(list(request.subject)) != 1 + len(organizations),
        "it asks for extensions beside subject alternative names": any(
            not isinstance(one, x509.SubjectAlternativeName) for one in extensions
        ),
        "its subject alternative names are not only DNS names and addresses": any(
            not isinstance(name, x509.DNSName | x509.IPAddress) for name in names
        ),
    }
    return Asked(
        next((one for one in common_names if one.startswith(NODE_PREFIX) or one in (AGENT_NAME, PROXY_NAME)), ""),
        tuple(organizations),
        frozenset(name.value for name in names if isinstance(name, x509.DNSName)),
        frozenset(str(name.value) for name in names if isinstance(name, x509.IPAddress)),
        next((flaw for flaw, found in flaws.items() if found), ""),
    )


def _is_strong(request: x509.CertificateSigningRequest) -> bool:
    key = request.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= MIN_RSA_BITS
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.key_size >= MIN_EC_BITS
    return isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)


def _state(conditions: set[str]) -> State:
    if conditions & {"Denied", "Failed"}:
        return State.OVER
    return State.APPROVED if "Approved" in conditions else State.PENDING


def _expiry(pem: bytes | None) -> float | None:
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp() if pem else None


def read_node(body: bytes) -> Node:
    """
    A Node.  Raises msgspec.DecodeError.
    """
    found = _decode_node(body)
    status = found.status or _NodeStatus()
    ready = next((one for one in status.conditions or () if one.type == "Ready"), _Condition(status="Unknown"))
    since = ready.lastTransitionTime
    return Node(
        found.metadata.name,
        frozenset(_canonical(one.address) for one in status.addresses or ()),
        ready.status in ("True", "False"),
        since.timestamp() if ready.status == "Unknown" and since else None,
    )


def _canonical(address: str) -> str:
    try:
        return str(ip_address(address))
    except ValueError:
        return address
