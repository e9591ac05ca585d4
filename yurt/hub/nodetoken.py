"""
The node's bearer token, when it has one instead of a certificate.
"""

from __future__ import annotations

from yurt import __version__
from yurt.http.interfaces import Headers
from yurt.hub.config import NodeCredentials
from yurt.kube.bearer import BearerToken

USER_AGENT = (b"User-Agent", b"yurthub/" + __version__.encode())


class NodeToken:
    """
    A token given as such, or in a file that is read again when it changes.
    """

    def __init__(self, credentials: NodeCredentials) -> None:
        self.replace(credentials)

    def replace(self, credentials: NodeCredentials) -> None:
        """
        Take other credentials.
        """
        self._bearer = BearerToken(credentials.token, credentials.token_file)

    def read(self) -> bytes | None:
        """
        The token as it is now, or None.
        """
        return self._bearer.read()

    def headers(self) -> Headers:
        """
        The headers of the hub's own requests: its name, and the token if there is one.
        """
        return [USER_AGENT, *self._bearer.headers()]
