"""
A renewal by a certificate whose common name does not tell who its holder is: all agents of the tunnel are called alike.

The API server says of who asks no more than user and groups.  So the request shows the certificate that is to be renewed, in an
annotation, and is signed with its key: whoever approves sees for which node it was, and that its holder asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from yurt.kube.csr.files import read_small
from yurt.kube.csr.pem import has_issued
from yurt.kube.kubeconfig import Kubeconfig

ANNOTATION = "yurt.openyurt.io/renews"
"""Holds, as JSON, the ``certificate`` in PEM, and the ``signature`` by its key, ECDSA with SHA-256, of the PKCS#10 request as it
stands in the object."""


class _Shown(msgspec.Struct):
    certificate: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class Renewed:
    """
    The certificate that a request is to follow, and for which request its holder has signed.
    """

    certificate: x509.Certificate
    signature: bytes
    request: bytes

    @property
    def subject(self) -> tuple[str, ...]:
        """
        Common names, then organizations.
        """
        oids, found = (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME), self.certificate.subject
        return tuple(str(one.value) for oid in oids for one in found.get_attributes_for_oid(oid))

    @property
    def dns(self) -> tuple[str, ...]:
        """
        The DNS names that it certifies for a client; none if it is not a client's.
        """
        try:
            usages = self.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, ValueError):
            return ()
        return tuple(names.get_values_for_type(x509.DNSName)) if ExtendedKeyUsageOID.CLIENT_AUTH in usages else ()

    def flaw(self, authorities: list[x509.Certificate], now: float) -> str:
        """
        Why it proves nothing at ``now``, in seconds since the epoch; empty when its holder asks, and one of ``authorities`` has
        issued it.
        """
        shown = self.certificate
        if not shown.not_valid_before_utc.timestamp() <= now < shown.not_valid_after_utc.timestamp():
            return "is not valid now"
        if not any(has_issued(one, shown) for one in authorities):
            return "was not issued by the cluster's CA, as the controllers' kubeconfig names it"
        key = shown.public_key()
        try:
            if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(self.signature, self.request, ec.ECDSA(hashes.SHA256()))
                return ""
        except InvalidSignature:
            pass
        return "is not that of who signed this request"


def renews(held: bytes, request: bytes) -> dict[str, str]:
    """
    The annotations of a ``request``, as PEM, that is to follow the certificate ``held``, as PEM with its key.
    """
    key = load_pem_private_key(held, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return {}  # of a stranger's making: it was not asked for here
    certificate = x509.load_pem_x509_certificates(held)[0].public_bytes(Encoding.PEM).decode()
    signature = key.sign(request, ec.ECDSA(hashes.SHA256()))
    return {ANNOTATION: msgspec.json.encode(_Shown(certificate, signature)).decode()}


def read_renewed(text: str, request: bytes) -> Renewed | None:
    """
    What the annotation of a ``request`` shows; None when it cannot be read.
    """
    try:
        shown = msgspec.json.decode(text, type=_Shown)
        return Renewed(x509.load_pem_x509_certificate(shown.certificate.encode()), shown.signature, request)
    except ValueError:
        return None


def authorities_of(kubeconfig: Kubeconfig) -> list[x509.Certificate]:
    """
    The CAs that a kubeconfig names now; none when they cannot be read.
    """
    try:
        pem = kubeconfig.ca_data or (read_small(Path(kubeconfig.ca_file)) if kubeconfig.ca_file else b"")
        return x509.load_pem_x509_certificates(pem)
    except (OSError, ValueError):
        return []
