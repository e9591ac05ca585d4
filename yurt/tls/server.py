"""
TLS for listeners.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.tls.context import PROTOCOL, TLS1_2, ContextSource, FollowsFiles
from yurt.tls.credentials import Credentials
from yurt.tls.verification import INVALID_PURPOSE, explain

MAX_SUBJECT = 200
"""Characters of a subject's name that are told of a certificate that was refused."""

NO_CERTIFICATE = "this server has no certificate to show yet"
"""Why hand-shakes fail before there is one: OpenSSL only tells the client that no version of TLS would do."""


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS(FollowsFiles):
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
        self._source = ContextSource(credentials, SSL.TLS_SERVER_METHOD, minimum)
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
        self._source = ContextSource(credentials, SSL.TLS_SERVER_METHOD, self._minimum)
        self._asks = credentials.ca_file is not None or credentials.ca_data is not None
        self._shows = credentials.has_certificate
        self._configure()

    def _verified(self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
        if not ok and not depth and error == INVALID_PURPOSE:
            ok = self._any_purpose(certificate.to_cryptography())
        if not ok:
            protocol: TLSMemoryBIOProtocol | None = connection.get_app_data()  # Twisted has set it
            whose = certificate.to_cryptography().subject.rfc4514_string()[:MAX_SUBJECT]
            explain(protocol, error, f" (of {whose!r})")
        return bool(ok)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """
        See :class:`IOpenSSLServerConnectionCreator`.
        """
        self.refresh()
        if not self._shows:
            vars(tlsProtocol)["_reason"] = Failure(SSL.Error([("ssl", "", NO_CERTIFICATE)]))
        connection = SSL.Connection(self._source.context, None)
        connection.set_accept_state()
        return connection


def _select_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    return PROTOCOL if PROTOCOL in offered else SSL.NO_OVERLAPPING_PROTOCOLS
