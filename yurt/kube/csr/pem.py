"""
Keys, requests and certificates as PEM.  Nothing of a key ever gets into an error.

The parts of ``cryptography`` that only make something are imported when that is made.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timezone
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from yurt.kube.csr.wanted import Wanted

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

NAME_DIGITS = 20
"""Hexadecimal digits of a request's name."""


class PEMError(ValueError):
    """
    Not a certificate with its key; the message says what is wrong, without quoting it.
    """


@dataclass(frozen=True, slots=True)
class Held:
    """
    A certificate, its chain and its key in one PEM.  Times are seconds since the epoch; ``not_before`` may be later than the
    certificate says, where it is known when it was issued.
    """

    pem: bytes = field(repr=False)
    not_before: float
    not_after: float
    common_name: str
    organizations: frozenset[str]
    dns: frozenset[str]
    addresses: frozenset[str]

    def is_of(self, wanted: Wanted) -> bool:
        """
        Whether it says who is wanted; names and addresses may lag behind.
        """
        return self.common_name == wanted.common_name and self.organizations == set(wanted.organizations)

    def fits(self, wanted: Wanted) -> bool:
        """
        Whether it says who is wanted, and names at least what is wanted.
        """
        return self.is_of(wanted) and self.dns >= set(wanted.dns) and self.addresses >= set(wanted.addresses)


def new_key() -> bytes:
    """
    A new ECDSA key on P-256.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def request_for(key: bytes, wanted: Wanted) -> bytes:
    """
    The PKCS#10 request for ``wanted``, signed with ``key``.  Raises PEMError.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    private = _load_key(key)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise PEMError("the key is not one for ECDSA")
    organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in wanted.organizations]
    subject = x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, wanted.common_name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    names: list[x509.GeneralName] = [x509.DNSName(one) for one in wanted.dns]
    names += [x509.IPAddress(ip_address(one)) for one in wanted.addresses]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM)


def request_name(key: bytes, wanted: Wanted, asker: str = "") -> str:
    """
    The name of the object by which ``asker`` asks for ``wanted`` with ``key``: always the same, so that a request is made once
    however often the answer is lost or the daemon restarted.  Raises PEMError.
    """
    public = _load_key(key).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    said = [wanted.common_name, *wanted.organizations, wanted.signer, *wanted.usages, *wanted.dns, *wanted.addresses]
    said += [asker] if asker else []
    return "csr-" + hashlib.sha256(public + "\0".join(said).encode()).hexdigest()[:NAME_DIGITS]


def read_held(pem: bytes) -> Held:
    """
    Read a certificate, its chain and its key.  Raises PEMError when one is missing, torn, or not the other's.
    """
    try:
        certificate = x509.load_pem_x509_certificates(pem)[0]
    except (ValueError, IndexError):
        raise PEMError("there is no valid certificate in it") from None
    spki = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if _load_key(pem).public_key().public_bytes(*spki) != certificate.public_key().public_bytes(*spki):
        raise PEMError("the key in it is not the certificate's")
    dns, addresses = _alternative_names(certificate)
    common_names = _texts(certificate, NameOID.COMMON_NAME)
    return Held(
        pem,
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        common_names[0] if common_names else "",
        frozenset(_texts(certificate, NameOID.ORGANIZATION_NAME)),
        dns,
        addresses,
    )


def time_text(seconds: float) -> str:
    """
    A time of day for people, in UTC.
    """
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _load_key(pem: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        raise PEMError("there is no valid unencrypted key in it") from None


def _texts(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(one.value) for one in certificate.subject.get_attributes_for_oid(oid)]


def _alternative_names(certificate: x509.Certificate) -> tuple[frozenset[str], frozenset[str]]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return frozenset(), frozenset()
    addresses = (str(one) for one in names.get_values_for_type(x509.IPAddress))
    return frozenset(names.get_values_for_type(x509.DNSName)), frozenset(addresses)


def has_issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    """
    Whether a certificate bears the signature and the name of an authority.
    """
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
