"""
A bearer token, given as such or in a file that is read again when it changes.
"""

from __future__ import annotations

import os

from twisted.logger import Logger

from yurt.http.interfaces import Headers


class BearerToken:
    """
    The token of a kubeconfig's user; without ``token`` and ``path`` there is none.
    """

    log = Logger()

    def __init__(self, token: str | None = None, path: str | None = None) -> None:
        self._token = token.encode("latin-1") if token else None
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    def read(self) -> bytes | None:
        """
        The token, or None; a file that cannot be read, or holds no token, leaves the last token in force.
        """
        if self._path is None:
            return self._token
        try:
            stat = os.stat(self._path)
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if seen != self._seen:
                with open(self._path, "rb") as file:
                    words = file.read().split()
                self._seen = seen
                if len(words) == 1:
                    self._token = words[0]
                elif words:
                    self.log.warn("token file {path}: holds other things than one token, and is not used", path=self._path)
        except OSError as error:
            if self._seen is not None:
                self.log.warn("token file {path}: {error}; the last token stays in use", path=self._path, error=error.strerror)
                self._seen = None
        return self._token

    def headers(self) -> Headers:
        """
        The header field that carries the token, if there is one.
        """
        token = self.read()
        return [] if token is None else [(b"Authorization", b"Bearer " + token)]
