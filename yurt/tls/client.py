"""
TLS to servers.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.tls.context import PROTOCOL, TLS1_2, ContextSource, FollowsFiles
from yurt.tls.credentials import Credentials
from yurt.tls.verification import explain

MAX_RECENT = 64
"""Hosts whose last session a client keeps to resume it; the host not dialled for longest is forgotten first."""


class ClientTLS(FollowsFiles):
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
        self._source = ContextSource(credentials, SSL.TLS_CLIENT_METHOD, minimum)
        self._configure()

    def _configure(self) -> None:
        # A session belongs to the certificate that was shown when it began.
        self._source.context.set_alpn_protos([PROTOCOL])
        self._recent: dict[str, SSL.Connection] = {}

    def replace(self, credentials: Credentials) -> None:
        """
        Take other credentials for new connections.  Raises :class:`CredentialsError`, and keeps the old ones then.
        """
        self._source = ContextSource(credentials, SSL.TLS_CLIENT_METHOD, self._minimum)
        self._credentials = credentials
        self._configure()

    def ask_for(self, server_name: str | None) -> None:
        """
        Verify that name from now on, or the host dialled.
        """
        self._server_name = server_name

    def without_certificate(self) -> ClientTLS:
        """
        The same trust, but the client certificate is never shown.
        """
        bare = replace(self._credentials, cert_file=None, cert_data=None, key_file=None, key_data=None)
        return ClientTLS(bare, self._server_name, minimum=self._minimum, verify=self._verify)

    def creator(self, hostname: str) -> IOpenSSLClientConnectionCreator:
        """
        For one connection to ``hostname`` (a name or an address), with the files as they are now.  The dot behind a name, which
        says that it is a whole one, is only for who looks it up: certificates and TLS's own name have none (RFC 6066, section 3).
        """
        self.refresh()
        return _ClientCreator(self._source.context, (self._server_name or hostname).removesuffix("."), self._recent, self._verify)


@implementer(IOpenSSLClientConnectionCreator)
class _ClientCreator:
    """
    Makes connections that verify the host, and resume the session of the connection before.
    """

    log = Logger()

    def __init__(self, context: SSL.Context, hostname: str, recent: dict[str, SSL.Connection], verify: bool) -> None:
        self._context = context
        self._hostname = hostname
        self._is_address = isIPAddress(hostname) or isIPv6Address(hostname)
        self._recent = recent
        self._verify = verify

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """
        See :class:`IOpenSSLClientConnectionCreator`.
        """
        connection = SSL.Connection(self._context, None)
        if not self._is_address:
            connection.set_tlsext_host_name(self._hostname.encode("idna"))
        if self._verify:
            connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._verifier(tlsProtocol))
        else:
            connection.set_verify(SSL.VERIFY_NONE, None)
        self._resume(connection)
        connection.set_connect_state()
        return connection

    def _verifier(self, tlsProtocol: TLSMemoryBIOProtocol) -> Callable[[SSL.Connection, crypto.X509, int, int, int], bool]:
        """
        What OpenSSL asks about each certificate of the chain that the server shows.
        """
        # Kept connections outlive their protocols, and must not keep them alive.
        protocol = weakref.ref(tlsProtocol)
        verify: Any = verify_certificate_ip_address if self._is_address else verify_certificate_hostname

        def verified(_: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
            if not ok:
                explain(protocol(), error)
            if depth or not ok:
                return bool(ok)
            try:
                verify(certificate.to_cryptography(), self._hostname)
            except (VerificationError, CertificateError):
                failed = protocol()
                if failed is not None:
                    failed.failVerification(Failure())
                return False
            except Exception:
                self.log.failure("Cannot verify the certificate of {name}", name=self._hostname)
                return False
            return True

        return verified

    def _resume(self, connection: SSL.Connection) -> None:
        """
        Go on with the session of the connection before, and keep this one for the next.
        """
        # Tickets of TLS 1.3 come after the hand-shake, so the session is asked for as late as possible: now.
        before = self._recent.pop(self._hostname, None)
        session = None if before is None else before.get_session()
        if session is not None:
            connection.set_session(session)
        self._recent[self._hostname] = connection
        if len(self._recent) > MAX_RECENT:
            del self._recent[next(iter(self._recent))]
