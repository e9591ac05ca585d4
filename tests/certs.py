"""
Certificates for tests, made when they are needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Authority:
    """
    A CA: its certificate as PEM, and what it signs with.
    """

    cert_pem: bytes
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Identity:
    """
    A certificate and its key as PEM.
    """

    cert_pem: bytes
    key_pem: bytes


def _name(common_name: str, organizations: list[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization) for organization in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta = timedelta(days=1)
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + lifetime)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def authority_key(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """
    What a certificate that ``ca`` has signed says of it; Python 3.13 accepts none without.
    """
    of_ca = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(of_ca)


def make_ca(common_name: str = "test ca") -> Authority:
    """
    A new CA.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name, [])
    builder = _builder(name, name, key.public_key()).add_extension(x509.BasicConstraints(True, None), critical=True)
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    certificate = builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())
    return Authority(certificate.public_bytes(Encoding.PEM), certificate, key)


def issue(
    ca: Authority,
    common_name: str,
    organizations: list[str] | None = None,
    dns: list[str] | None = None,
    ips: list[str] | None = None,
    usages: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    lifetime: timedelta = timedelta(days=1),
) -> Identity:
    """
    A certificate from ``ca`` for client and server use, or for the ``usages`` given, with a new key; valid for ``lifetime``.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(common_name, organizations or []), ca.certificate.subject, key.public_key(), lifetime)
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns or []]
    names += [x509.IPAddress(ip_address(ip)) for ip in ips or []]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    usage = x509.ExtendedKeyUsage(usages)
    builder = builder.add_extension(usage, critical=False).add_extension(authority_key(ca.certificate), critical=False)
    certificate = builder.sign(ca.key, hashes.SHA256())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Identity(certificate.public_bytes(Encoding.PEM), pem)
