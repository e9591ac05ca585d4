"""
The node's bearer token, when it has one instead of a certificate.
"""

from __future__ import annotations

import os

from twisted.logger import Logger

from yurt import __version__
from yurt.http.interfaces import Headers
from yurt.hub.config import NodeCredentials

USER_AGENT = (b"User-Agent", b"yurthub/" + __version__.encode())


class NodeToken:
    """
    A token given as such, or in a file that is read again when it changes.
    """

    log = Logger()

    def __init__(self, credentials: NodeCredentials) -> None:
        self.replace(credentials)

    def replace(self, credentials: NodeCredentials) -> None:
        """
        Take other credentials.
        """
        self._path = credentials.token_file
        self._token = credentials.token.encode("latin-1") if credentials.token else None
        self._seen: tuple[int, int, int] | None = None

    def read(self) -> bytes | None:
        """
        The token, or None; a file that cannot be read leaves the last token in force.
        """
        if self._path is None:
            return self._token
        try:
            stat = os.stat(self._path)
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if seen != self._seen:
                with open(self._path, "rb") as file:
                    token = file.read().strip()
                self._seen = seen
                self._token = token or self._token
        except OSError as error:
            if self._seen is not None:
                self.log.warn("token file {path}: {error}; the last token stays in use", path=self._path, error=error.strerror)
                self._seen = None
        return self._token

    def headers(self) -> Headers:
        """
        The headers of the hub's own requests: its name, and the token if there is one.
        """
        token = self.read()
        return [USER_AGENT] if token is None else [USER_AGENT, (b"Authorization", b"Bearer " + token)]
