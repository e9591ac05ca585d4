"""
TLS to and from others: contexts made of PEM files, and made anew when the files change.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import inf
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

PROTOCOL = b"http/1.1"
"""The only protocol offered by ALPN: upgrades need it."""

TLS1_2: int = SSL.TLS1_2_VERSION
TLS1_3: int = SSL.TLS1_3_VERSION


MAX_RECENT = 64
"""Hosts whose last session a client keeps to resume it; the host not dialled for longest is forgotten first."""


INVALID_PURPOSE = 26
"""From OpenSSL's x509_vfy.h: the certificate's extended key usage does not allow what it is used for."""

MAX_SUBJECT = 200
"""Characters of a subject's name that are told of a certificate that was refused."""

ENABLE_PARTIAL_WRITE = 1
"""From OpenSSL's ssl.h.  pyOpenSSL sets it, so that a write ends with its first record; without it one call encrypts all."""


FAST_WITH_AES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
FAST_WITHOUT_AES = b"TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"
"""
The cipher suites of TLS 1.3 (RFC 8446, appendix B.4), cheapest first for a processor that has instructions for AES, and for one
that has not, as on many small ARM boards.  A server of ours takes the client's first.
"""

CPU_INFO = "/proc/cpuinfo"


NO_CERTIFICATE = "this server has no certificate to show yet"
"""Why hand-shakes fail before there is one: OpenSSL only tells the client that no version of TLS would do."""

_VERIFY_ERRORS = {
    7: "it is not signed by the CA that was given",
    9: "it is not valid yet; is this machine's clock right?",
    10: "it has expired, or this machine's clock is wrong",
    18: "it is signed by itself, not by the CA that was given",
    19: "it is not signed by the CA that was given",
    20: "it is not signed by the CA that was given",
    21: "it is not signed by the CA that was given",
    26: "it is not meant for this use",
}
"""From OpenSSL's x509_vfy.h."""


class CredentialsError(ValueError):
    """
    A certificate or key cannot be used; the message names the file, never what is in it.
    """


@dataclass(frozen=True, slots=True)
class Credentials:
    """
    Where a CA bundle, a certificate (with its chain) and its key come from: PEM in a file or at hand.  The file wins.
    Without a CA nobody is trusted.  A certificate file may hold the key too.
    """

    ca_file: str | None = None
    ca_data: bytes | None = None
    cert_file: str | None = None
    cert_data: bytes | None = None
    key_file: str | None = None
    key_data: bytes | None = None

    @property
    def has_certificate(self) -> bool:
        """
        Whether they name a certificate.
        """
        return self.cert_file is not None or self.cert_data is not None

    def __repr__(self) -> str:
        return f"Credentials(ca_file={self.ca_file!r}, cert_file={self.cert_file!r}, key_file={self.key_file!r})"

    def stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        """
        Changes when one of the files was replaced or written to.
        """
        return tuple(_stamp(path) for path in (self.ca_file, self.cert_file, self.key_file))


def _stamp(path: str | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _read(path: str | None, data: bytes | None, what: str) -> tuple[bytes, str]:
    """
    The bytes, and how to call their source in an error.
    """
    if path is None:
        return data or b"", f"the {what} given"
    try:
        with open(path, "rb") as file:
            return file.read(), f"{what} {path}"
    except OSError as error:
        raise CredentialsError(f"{what} {path}: {error.strerror}") from None


def _load_certificates(path: str | None, data: bytes | None, what: str) -> list[x509.Certificate]:
    pem, source = _read(path, data, what)
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise CredentialsError(f"{source}: holds no valid PEM certificate") from None


@cache
def cipher_suites(path: str = CPU_INFO) -> bytes:
    """
    The cipher suites of TLS 1.3 in the order that is best for this machine, of which ``path`` tells; OpenSSL's names.
    """
    try:
        with open(path, encoding="latin-1") as file:
            lines = [line.partition(":") for line in file]
    except OSError:
        return FAST_WITH_AES
    known = [set(value.split()) for key, _, value in lines if key.strip() in ("flags", "Features")]
    return FAST_WITHOUT_AES if known and not all("aes" in flags for flags in known) else FAST_WITH_AES


def _make_context(credentials: Credentials, method: int, minimum: int) -> SSL.Context:
    """
    A context with the trust and the identity of ``credentials``.
    """
    context = SSL.Context(method)
    context.set_min_proto_version(minimum)
    context.set_tls13_ciphersuites(cipher_suites())
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.clear_mode(ENABLE_PARTIAL_WRITE)
    if credentials.ca_file is not None or credentials.ca_data is not None:
        store = context.get_cert_store()
        assert store is not None
        for authority in _load_certificates(credentials.ca_file, credentials.ca_data, "CA file"):
            store.add_cert(crypto.X509.from_cryptography(authority))
    if credentials.cert_file is not None or credentials.cert_data is not None:
        _use_identity(context, credentials)
    return context


def _use_identity(context: SSL.Context, credentials: Credentials) -> None:
    chain = _load_certificates(credentials.cert_file, credentials.cert_data, "certificate file")
    if credentials.key_file is None and credentials.key_data is None:
        pem, source = _read(credentials.cert_file, credentials.cert_data, "certificate file")
    else:
        pem, source = _read(credentials.key_file, credentials.key_data, "key file")
    try:
        key: Any = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        raise CredentialsError(f"{source}: holds no valid unencrypted PEM private key") from None
    context.use_certificate(chain[0])
    for certificate in chain[1:]:
        context.add_extra_chain_cert(certificate)
    try:
        context.use_privatekey(key)
        context.check_privatekey()
    except SSL.Error:
        raise CredentialsError(f"{source}: does not belong to the certificate") from None


class _Source:
    """
    Gives a context that is as new as its files.
    """

    log = Logger()

    def __init__(self, credentials: Credentials, method: int, minimum: int) -> None:
        self._credentials = credentials
        self._method = method
        self._minimum = minimum
        self._stamp = credentials.stamp()
        self._tried = self._stamp
        self.context = self._make()

    def _make(self) -> SSL.Context:
        return _make_context(self._credentials, self._method, self._minimum)

    def refresh(self) -> bool:
        """
        Read the files again if they changed; true if that made a new context.  Files that cannot be used, such as half
        of a pair being replaced, leave the old context in place and are tried again when they change again.
        """
        stamp = self._credentials.stamp()
        if stamp == self._tried:
            return False
        self._tried = stamp
        try:
            self.context = self._make()
        except CredentialsError as error:
            self.log.error("Changed TLS files cannot be used, the old ones stay in use: {error}", error=str(error))
            return False
        self.log.info("TLS files changed: new connections use them ({credentials})", credentials=self._credentials)
        return True


class ClientTLS:
    """
    TLS to servers whose certificate comes from the CA in ``credentials`` and names the host.

    ``server_name`` is the name to ask for and to verify instead of the host dialled; ``minimum`` the oldest version of TLS
    that is spoken.  Without ``verify`` any certificate will do.  Raises :class:`CredentialsError`.
    """

    def __init__(
        self, credentials: Credentials, server_name: str | None = None, *, minimum: int = TLS1_2, verify: bool = True
    ) -> None:
        self._credentials = credentials
        self._server_name = server_name
        self._minimum = minimum
        self._verify = verify
        self._source = _Source(credentials, SSL.TLS_CLIENT_METHOD, minimum)
        self._configure()

    def _configure(self) -> None:
        self._source.context.set_alpn_protos([PROTOCOL])
        self._recent: dict[str, SSL.Connection] = {}

    def replace(self, credentials: Credentials) -> None:
        """
        Take other credentials for new connections.  Raises :class:`CredentialsError`, and keeps the old ones then.
        """
        self._source = _Source(credentials, SSL.TLS_CLIENT_METHOD, self._minimum)
        self._credentials = credentials
        self._configure()

    def without_certificate(self) -> ClientTLS:
        """
        The same trust, but the client certificate is never shown.
        """
        bare = replace(self._credentials, cert_file=None, cert_data=None, key_file=None, key_data=None)
        return ClientTLS(bare, self._server_name, minimum=self._minimum, verify=self._verify)

    def creator(self, hostname: str) -> IOpenSSLClientConnectionCreator:
        """
        For one connection to ``hostname`` (a name or an address), with the files as they are now.
        """
        if self._source.refresh():
            # A session belongs to the certificate that was shown when it began.
            self._configure()
        return _ClientCreator(self._source.context, self._server_name or hostname, self._recent, self._verify)


@implementer(IOpenSSLClientConnectionCreator)
class _ClientCreator:
    """
    Makes connections that verify the host, and resume the session of the connection before.
    """

    log = Logger()

    def __init__(self, context: SSL.Context, hostname: str, recent: dict[str, SSL.Connection], verify: bool) -> None:
        self._context = context
        self._hostname = hostname
        self._recent = recent
        self._verify = verify

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """
        See :class:`IOpenSSLClientConnectionCreator`.
        """
        connection = SSL.Connection(self._context, None)
        name = self._hostname
        is_address = isIPAddress(name) or isIPv6Address(name)
        if not is_address:
            connection.set_tlsext_host_name(name.encode("idna"))
        # The session keeper below outlives the protocol; it must not keep it alive.
        protocol = weakref.ref(tlsProtocol)
        verify: Any = verify_certificate_ip_address if is_address else verify_certificate_hostname

        def verified(_: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
            if not ok:
                _explain(protocol(), error)
            if depth or not ok:
                return bool(ok)
            try:
                verify(certificate.to_cryptography(), name)
            except (VerificationError, CertificateError):
                failed = protocol()
                if failed is not None:
                    failed.failVerification(Failure())
                return False
            except Exception:
                self.log.failure("Cannot verify the certificate of {name}", name=name)
                return False
            return True

        if self._verify:
            connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verified)
        else:
            connection.set_verify(SSL.VERIFY_NONE, None)
        # Tickets of TLS 1.3 come after the hand-shake, so the session is asked for as late as possible: now.
        before = self._recent.get(name)
        session = None if before is None else before.get_session()
        if session is not None:
            connection.set_session(session)
        self._recent.pop(name, None)
        self._recent[name] = connection
        if len(self._recent) > MAX_RECENT:
            del self._recent[next(iter(self._recent))]
        connection.set_connect_state()
        return connection


def _explain(protocol: TLSMemoryBIOProtocol | None, error: int, whose: str = "") -> None:
    """
    Say in the reason of the end what OpenSSL does not: why the certificate was refused.  The peer still gets its alert.
    """
    if protocol is not None:
        why = _VERIFY_ERRORS.get(error, f"error {error} of OpenSSL's x509_vfy.h")
        vars(protocol)["_reason"] = Failure(SSL.Error([("x509", "", f"certificate verify failed: {why}{whose}")]))


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """
    TLS for a listener with the certificate in ``credentials``; clients may show a certificate from their CA, and must if
    ``require_client_certificate``.  ``minimum`` is the oldest version of TLS that is spoken.  ``any_purpose`` says of which
    certificates it does not matter that they are for servers only.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        require_client_certificate: bool = False,
        minimum: int = TLS1_2,
        any_purpose: Callable[[x509.Certificate], bool] = lambda certificate: False,
    ) -> None:
        self._any_purpose = any_purpose
        self._required = require_client_certificate
        self._minimum = minimum
        self._asks = credentials.ca_file is not None or credentials.ca_data is not None
        self._shows = credentials.has_certificate
        self._source = _Source(credentials, SSL.TLS_SERVER_METHOD, minimum)
        self._configure()

    def _configure(self) -> None:
        context = self._source.context
        context.set_alpn_select_callback(_select_protocol)
        context.set_session_id(b"yurt")
        if self._asks:
            mode = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if self._required else 0)
            context.set_verify(mode, self._verified)

    def replace(self, credentials: Credentials) -> None:
        """
        Take other credentials for new connections.  Raises :class:`CredentialsError`, and keeps the old ones then.
        """
        self._source = _Source(credentials, SSL.TLS_SERVER_METHOD, self._minimum)
        self._asks = credentials.ca_file is not None or credentials.ca_data is not None
        self._shows = credentials.has_certificate
        self._configure()

    def _verified(self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
        if not ok and not depth and error == INVALID_PURPOSE:
            ok = self._any_purpose(certificate.to_cryptography())
        if not ok:
            protocol: TLSMemoryBIOProtocol | None = connection.get_app_data()  # Twisted has set it
            whose = certificate.to_cryptography().subject.rfc4514_string()[:MAX_SUBJECT]
            _explain(protocol, error, f" (of {whose!r})")
        return bool(ok)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """
        See :class:`IOpenSSLServerConnectionCreator`.
        """
        if self._source.refresh():
            self._configure()
        if not self._shows:
            vars(tlsProtocol)["_reason"] = Failure(SSL.Error([("ssl", "", NO_CERTIFICATE)]))
        connection = SSL.Connection(self._source.context, None)
        connection.set_accept_state()
        return connection


def peer_certificate(transport: object) -> x509.Certificate | None:
    """
    The certificate that the other side of a TLS transport showed, verified if that was asked for; ``None`` without one and
    before the hand-shake.
    """
    if not isinstance(transport, TLSMemoryBIOProtocol):
        return None
    connection: SSL.Connection | None = transport.getHandle()
    return None if connection is None else connection.get_peer_certificate(as_cryptography=True)


def valid_until(transport: object) -> float:
    """
    When the first of the certificates that the sides of a TLS transport showed expires, by the time of day; infinite where none
    was shown.
    """
    if not isinstance(transport, TLSMemoryBIOProtocol):
        return inf
    connection: SSL.Connection | None = transport.getHandle()
    own = None if connection is None else connection.get_certificate(as_cryptography=True)
    shown = [one for one in (own, peer_certificate(transport)) if one is not None]
    return min((one.not_valid_after_utc.timestamp() for one in shown), default=inf)


def requested_name(transport: object) -> str:
    """
    The name by which the client of a TLS transport called this server (SNI); empty without one, as from a client that dialled an
    address.
    """
    if not isinstance(transport, TLSMemoryBIOProtocol):
        return ""
    connection: SSL.Connection | None = transport.getHandle()
    name = None if connection is None else connection.get_servername()
    return (name or b"").decode("ascii", "replace")


def _select_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    return PROTOCOL if PROTOCOL in offered else SSL.NO_OVERLAPPING_PROTOCOLS
