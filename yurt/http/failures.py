"""
Failures in words.
"""

from __future__ import annotations

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure


def describe(failure: Failure) -> str:
    """
    A failure in one line, for people.
    """
    value = failure.value
    if isinstance(value, (VerificationError, CertificateError)):
        return "TLS: its certificate is for another name"
    if isinstance(value, SSL.Error) and value.args and isinstance(value.args[0], list):
        return "TLS: " + "; ".join(entry[-1] for entry in value.args[0])
    if isinstance(value, ConnectionLost) and value.args:  # without the words that Twisted puts around it
        return " ".join(str(value.args[0]).split())
    return " ".join((str(value) or type(value).__name__).split())
