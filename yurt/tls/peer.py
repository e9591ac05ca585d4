"""
What the two sides of a connection have shown each other.
"""

from __future__ import annotations

from math import inf

from cryptography import x509
from OpenSSL import SSL
from twisted.protocols.tls import TLSMemoryBIOProtocol


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
