"""
TLS to and from others: contexts made of PEM files, and made anew when the files change.
"""

from yurt.tls.client import ClientTLS
from yurt.tls.context import TLS1_2, TLS1_3, FollowsFiles
from yurt.tls.credentials import Credentials, CredentialsError
from yurt.tls.peer import peer_certificate, requested_name, valid_until
from yurt.tls.server import ServerTLS

__all__ = [
    "TLS1_2",
    "TLS1_3",
    "ClientTLS",
    "Credentials",
    "CredentialsError",
    "FollowsFiles",
    "ServerTLS",
    "peer_certificate",
    "requested_name",
    "valid_until",
]
