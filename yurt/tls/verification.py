"""
Why a certificate was refused, which OpenSSL tells by a number and Twisted not at all.
"""

from __future__ import annotations

from OpenSSL import SSL
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

INVALID_PURPOSE = 26
"""From OpenSSL's x509_vfy.h: the certificate's extended key usage does not allow what it is used for."""

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


def explain(protocol: TLSMemoryBIOProtocol | None, error: int, whose: str = "") -> None:
    """
    Say in the reason of the end what OpenSSL does not: why the certificate was refused.  The peer still gets its alert.
    """
    if protocol is not None:
        why = _VERIFY_ERRORS.get(error, f"error {error} of OpenSSL's x509_vfy.h")
        vars(protocol)["_reason"] = Failure(SSL.Error([("x509", "", f"certificate verify failed: {why}{whose}")]))
