"""
Bootstrap tokens, and what a token tells of a cluster that is not known yet.

The cluster says of itself in ConfigMap kube-public/cluster-info, which anybody may read: a kubeconfig with its CA, signed for
each token that is meant for that.  Facts: ``k8s.io/cluster-bootstrap/token``, ``kubeadm/app/discovery``.  A secret never gets
into an error.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CLUSTER_INFO_PATH = "/api/v1/namespaces/kube-public/configmaps/cluster-info"

MAX_CLUSTER_INFO_BYTES = 256 * 1024
"""Bytes of a signed kubeconfig that are looked at."""

_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


class BootstrapError(ValueError):
    """
    A token, or what a cluster says of itself, is of no use; the message says why, and what to do.
    """


@dataclass(frozen=True, slots=True)
class BootstrapToken:
    """
    A token as ``kubeadm token create`` prints it.
    """

    id: str
    secret: str = field(repr=False)

    @property
    def bearer(self) -> str:
        """
        The token as a client shows it.
        """
        return f"{self.id}.{self.secret}"


def parse_token(text: str) -> BootstrapToken:
    """
    Read a token.  Raises BootstrapError.
    """
    match = _TOKEN.fullmatch(text.strip())
    if match is None:
        raise BootstrapError("not a bootstrap token; one is abcdef.0123456789abcdef, as kubeadm token create prints it")
    return BootstrapToken(match[1], match[2])


def parse_ca_hash(text: str) -> str:
    """
    Read a pin of a CA's public key.  Raises BootstrapError.
    """
    if not _HASH.fullmatch(text.lower()):
        raise BootstrapError("write sha256: and 64 hexadecimal digits, as kubeadm prints it")
    return text.lower()


def ca_hash(certificate: x509.Certificate) -> str:
    """
    The pin of a CA: the digest of its public key.
    """
    public = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(public).hexdigest()


def signed_kubeconfig(cluster_info: Mapping[str, Any], token: BootstrapToken) -> str:
    """
    The kubeconfig of a ConfigMap cluster-info, when it is signed for ``token``.  Raises BootstrapError.
    """
    data = cluster_info.get("data") or {}
    content, signature = data.get("kubeconfig"), data.get(f"jws-kubeconfig-{token.id}")
    if not isinstance(content, str) or len(content) > MAX_CLUSTER_INFO_BYTES:
        raise BootstrapError("kube-public/cluster-info holds no kubeconfig: kubeadm init phase bootstrap-token makes it")
    if not isinstance(signature, str):
        raise BootstrapError(
            f"the cluster does not know token {token.id} or it has expired; make another one with kubeadm token create"
        )
    if not _is_signed(content.encode(), signature, token):
        raise BootstrapError(f"cluster-info is not signed with token {token.id}: this is not the cluster that the token is of")
    return content


def trusted_authorities(pem: bytes, pins: Collection[str]) -> bytes:
    """
    The CA certificates that are pinned, or all of them without pins.  Raises BootstrapError when none is left.
    """
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise BootstrapError("the cluster's CA is no PEM certificate") from None
    kept = [one for one in found if not pins or ca_hash(one) in pins]
    if not kept:
        has = ", ".join(map(ca_hash, found))
        raise BootstrapError(f"the cluster's CA is another one, {has}: correct --discovery-token-ca-cert-hash, or beware")
    return b"".join(one.public_bytes(Encoding.PEM) for one in kept)


def read_authorities(kubeconfig: str) -> bytes:
    """
    The CA of a kubeconfig that has no user and maybe no context, as that of cluster-info.  Raises BootstrapError.
    """
    import yaml  # costs memory, and is of no use later

    try:
        document = yaml.safe_load(kubeconfig)
        data = document["clusters"][0]["cluster"]["certificate-authority-data"]
        return base64.b64decode("".join(data.split()), validate=True)
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError, RecursionError):
        raise BootstrapError("the kubeconfig of cluster-info names no CA") from None


def _is_signed(content: bytes, signature: str, token: BootstrapToken) -> bool:
    """
    Whether this is the detached signature (RFC 7515, appendix F) by HS256 with the token's secret.
    """
    try:
        header, payload, given = signature.split(".")
        said = msgspec.json.decode(_decode(header), type=dict[str, Any])
        shown = _decode(given)
    except (ValueError, binascii.Error, msgspec.DecodeError, UnicodeError):
        return False
    if payload or said.get("alg") != "HS256" or said.get("kid") != token.id:
        return False
    signed = header.encode() + b"." + base64.urlsafe_b64encode(content).rstrip(b"=")
    return hmac.compare_digest(hmac.new(token.secret.encode(), signed, hashlib.sha256).digest(), shown)


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part.encode("ascii") + b"=" * (-len(part) % 4))
