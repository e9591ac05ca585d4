"""
Contexts made of credentials, and made anew when the files change.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.logger import Logger

from yurt.tls.credentials import Credentials, CredentialsError, load_certificates, read_pem

PROTOCOL = b"http/1.1"
"""The only protocol offered by ALPN: upgrades need it."""

TLS1_2: int = SSL.TLS1_2_VERSION
TLS1_3: int = SSL.TLS1_3_VERSION

ENABLE_PARTIAL_WRITE = 1
"""From OpenSSL's ssl.h.  pyOpenSSL sets it, so that a write ends with its first record; without it one call encrypts all."""

FAST_WITH_AES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
FAST_WITHOUT_AES = b"TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"
"""
The cipher suites of TLS 1.3 (RFC 8446, appendix B.4), cheapest first for a processor that has instructions for AES, and for one
that has not, as on many small ARM boards.  A server of ours takes the client's first.
"""

CPU_INFO = "/proc/cpuinfo"


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


def make_context(credentials: Credentials, method: int, minimum: int) -> SSL.Context:
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
        for authority in load_certificates(credentials.ca_file, credentials.ca_data, "CA file"):
            store.add_cert(crypto.X509.from_cryptography(authority))
    if credentials.cert_file is not None or credentials.cert_data is not None:
        _use_identity(context, credentials)
    return context


def _use_identity(context: SSL.Context, credentials: Credentials) -> None:
    chain = load_certificates(credentials.cert_file, credentials.cert_data, "certificate file")
    if credentials.key_file is None and credentials.key_data is None:
        pem, source = read_pem(credentials.cert_file, credentials.cert_data, "certificate file")
    else:
        pem, source = read_pem(credentials.key_file, credentials.key_data, "key file")
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


class ContextSource:
    """
    Gives a context that is as new as its files.
    """

    log = Logger()

    problem: str | None = None
    """Why files that changed are not used."""

    def __init__(self, credentials: Credentials, method: int, minimum: int) -> None:
        self._credentials = credentials
        self._method = method
        self._minimum = minimum
        self._stamp = credentials.stamp()
        self._tried = self._stamp
        self.context = self._make()

    def _make(self) -> SSL.Context:
        return make_context(self._credentials, self._method, self._minimum)

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
            self.problem = f"changed TLS files cannot be used, the old ones stay in use: {error}"
            self.log.error("{problem}", problem=self.problem)
            return False
        self.problem = None
        self.log.info("TLS files changed: new connections use them ({credentials})", credentials=self._credentials)
        return True


class FollowsFiles:
    """
    TLS whose context is as new as its files.
    """

    _source: ContextSource

    def _configure(self) -> None:
        """
        Put a new context to its use.
        """
        raise NotImplementedError

    def refresh(self) -> None:
        """
        Read the files again if they changed.
        """
        if self._source.refresh():
            self._configure()

    @property
    def problem(self) -> str | None:
        """
        Why files that changed are not used; None when they are.
        """
        return self._source.problem

    @property
    def expires_at(self) -> float | None:
        """
        When the certificate that is shown expires, seconds since the epoch; None without one.
        """
        shown = SSL.Connection(self._source.context, None).get_certificate()
        return None if shown is None else shown.to_cryptography().not_valid_after_utc.timestamp()
