"""
CertificateSigningRequests and Nodes as a cluster holds them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cache
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from yurt.kube.csr.wanted import CLIENT_SIGNER, CLIENT_USAGES, SERVING_SIGNER, SERVING_USAGES

Document = dict[str, Any]

NODE = "edge-1"
NODE_USER = ("system:node:edge-1", ("system:nodes", "openyurt:yurthub", "system:authenticated"))
KUBELET_USER = ("system:node:edge-1", ("system:nodes", "system:authenticated"))
OTHER_NODE = ("system:node:edge-2", ("system:nodes", "openyurt:yurthub", "system:authenticated"))
BOOTSTRAPPER = ("system:bootstrap:abcdef", ("system:bootstrappers", "system:authenticated"))
SERVER_USER = ("yurt-tunnel-server", ("system:authenticated",))
SERVER_ACCOUNT = ("system:serviceaccount:kube-system:yurt-tunnel-server", ("system:serviceaccounts", "system:authenticated"))
AGENT_USER = ("tunnel-agent-client", ("openyurt:yurttunnel", "system:authenticated"))
ADMIN = ("kubernetes-admin", ("system:masters", "system:authenticated"))

HUB = ("openyurt:yurthub", "system:nodes")
TUNNEL = ("openyurt:yurttunnel",)
NODES = ("system:nodes",)


@cache
def key() -> ec.EllipticCurvePrivateKey:
    """
    One key is enough for all.
    """
    return ec.generate_private_key(ec.SECP256R1())


def pkcs10(
    common_name: str,
    organizations: Sequence[str],
    names: Sequence[str] = (),
    *,
    more_subject: Sequence[tuple[x509.ObjectIdentifier, str]] = (),
    extensions: Sequence[x509.ExtensionType] = (),
    other_names: Sequence[x509.GeneralName] = (),
) -> bytes:
    """
    A request, as PEM; ``names`` are DNS names and addresses.
    """
    organization = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in organizations]
    more = [x509.NameAttribute(oid, value) for oid, value in more_subject]
    name = x509.NameAttribute(NameOID.COMMON_NAME, common_name)
    # As Go writes it: all organizations in one set, which cannot hold one twice.
    sets = [organization] if len(set(organizations)) == len(organizations) else [[one] for one in organization]
    parts = [x509.RelativeDistinguishedName(one) for one in (*sets, *([one] for one in (*more, name))) if one]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(parts))
    alternatives = [*map(_general_name, names), *other_names]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key(), hashes.SHA256()).public_bytes(Encoding.PEM)


def two_meanings(shown: str, meant: str) -> bytes:
    """
    The request of node edge-1 for a serving certificate that names ``shown`` in the attribute of another vendor, which some
    parsers take, and ``meant`` in the standard one, which signers take.
    """
    attributes = (("060a2b06010401823702010e", [shown]), ("06092a864886f70d01090e", [meant]))
    return _serving_by_hand(b"".join(_tlv(0x30, bytes.fromhex(oid) + _tlv(0x31, _names(names))) for oid, names in attributes))


def named_twice(*names: str) -> bytes:
    """
    The same with several lists of alternative names, one for each name, in the one attribute.
    """
    return _serving_by_hand(_tlv(0x30, bytes.fromhex("06092a864886f70d01090e") + _tlv(0x31, _names(names))))


def _serving_by_hand(attributes: bytes) -> bytes:
    """
    A request of node edge-1 for a serving certificate with these attributes, in DER.
    """
    named = ((NameOID.ORGANIZATION_NAME, "system:nodes"), (NameOID.COMMON_NAME, f"system:node:{NODE}"))
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in named])
    public = key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    info = _tlv(0x30, b"\x02\x01\x00" + subject.public_bytes() + public + _tlv(0xA0, attributes))
    signature = key().sign(info, ec.ECDSA(hashes.SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    der = _tlv(0x30, info + algorithm + _tlv(0x03, b"\0" + signature))
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE REQUEST-----\n"


def _names(names: Sequence[str]) -> bytes:
    """
    A list of extensions, each of which holds one DNS name.
    """
    lists = (_tlv(0x04, _tlv(0x30, _tlv(0x82, name.encode()))) for name in names)
    return _tlv(0x30, b"".join(_tlv(0x30, bytes.fromhex("0603551d11") + one) for one in lists))


def _tlv(tag: int, content: bytes) -> bytes:
    """
    A value in DER.
    """
    size = len(content)
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([size]) if size < 128 else bytes([0x80 + len(octets)]) + octets) + content


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def request(
    pem: bytes,
    asker: tuple[str, Sequence[str]],
    *,
    name: str = "csr-1",
    serving: bool = False,
    usages: Sequence[str] | None = None,
    signer: str = "",
    created: float = 0.0,
    conditions: Sequence[str] = (),
    certificate: bytes = b"",
    version: str = "v1",
) -> Document:
    """
    The object; ``conditions`` are types such as Approved.
    """
    status: Document = {"conditions": [{"type": one, "status": "True", "reason": "Test"} for one in conditions]}
    if certificate:
        status["certificate"] = base64.b64encode(certificate).decode()
    return {
        "apiVersion": f"certificates.k8s.io/{version}",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name, "uid": f"uid-of-{name}", "resourceVersion": "7", "creationTimestamp": moment(created)},
        "spec": {
            "request": base64.b64encode(pem).decode(),
            "signerName": signer or (SERVING_SIGNER if serving else CLIENT_SIGNER),
            "usages": list(usages if usages is not None else SERVING_USAGES if serving else CLIENT_USAGES),
            "username": asker[0],
            "groups": list(asker[1]),
        },
        "status": status if conditions or certificate else {},
    }


def node(name: str = NODE, *addresses: str, ready: str = "True", since: float = 0.0) -> Document:
    """
    A Node; ``ready`` is the status of its condition, which has none when that is empty.
    """
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": moment(since)}
    kinds = ("InternalIP" if one[0].isdigit() or ":" in one else "Hostname" for one in addresses)
    status = {
        "addresses": [{"type": kind, "address": one} for kind, one in zip(kinds, addresses, strict=True)],
        "conditions": [condition] if ready else [],
    }
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}


def encoded(document: Document) -> bytes:
    return json.dumps(document).encode()
