"""
Secrets at rest: what the store encrypts, with a key that lies outside the folder of the cache.

AES-256-GCM.  Each record has a nonce of its own, 96 random bits in front of it: chosen so, NIST SP 800-38D (8.3) allows 2**32
records under one key, which is one a second for 136 years; a value that has not changed is not written again.  The whole key
of the record, its table among it, is bound as associated data, so that a record opens in its own place only.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from twisted.logger import Logger

from yurt.files import write_private

KEY_FILE = "cache.key"
KEY_SIZE = 32
NONCE_SIZE = 12


class LostKey(Exception):
    """
    A record does not open: the key that it was made with is gone, or it lay in another place.
    """


class Vault:
    """
    The key in the folder ``folder``, made at the first start.

    There is always a key to encrypt with.  ``problem`` says why it is not the one of the file, None when it is: then it lasts
    as long as this process.
    """

    log = Logger()

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / KEY_FILE
        self.problem: str | None = None
        self._key = AESGCM.generate_key(8 * KEY_SIZE)
        self._cipher = AESGCM(self._key)
        self.is_kept = False
        """Whether the key is that of the file."""

    def open(self) -> None:
        """
        Read the key, or keep the one of this process where there is none.
        """
        if self.is_kept:
            return
        try:
            self._take(self._read())
            self.problem, self.is_kept = None, True
        except OSError as error:
            problem = f"{error.filename or self.path}: {error.strerror or error}"
            if problem != self.problem:
                message = "the key of the cached secrets cannot be kept, they last until the hub stops: {problem}"
                self.log.error(message, problem=problem)
            self.problem = problem

    def put_back(self) -> None:
        """
        Write the key again if its file was removed, so that the next process can read what this one encrypts.
        """
        was_kept = self.is_kept
        if not (was_kept and self.path.exists()):
            self.is_kept = False
            self.open()
            if was_kept and self.is_kept:
                self.log.warn("{path} was removed while it was in use: it was written anew", path=str(self.path))

    def lock(self, place: bytes, value: bytes) -> bytes:
        """
        Encrypt the value of the record ``place``.  For any thread.
        """
        nonce = os.urandom(NONCE_SIZE)
        return nonce + self._cipher.encrypt(nonce, value, place)

    def unlock(self, place: bytes, locked: bytes) -> bytes:
        """
        Undo :meth:`lock`.  Raises LostKey.
        """
        try:
            return self._cipher.decrypt(locked[:NONCE_SIZE], locked[NONCE_SIZE:], place)
        except (InvalidTag, ValueError):
            raise LostKey(place) from None

    def _take(self, key: bytes) -> None:
        if len(key) == KEY_SIZE:
            self._key, self._cipher = key, AESGCM(key)
            return
        if key:
            message = "{path} holds {size} bytes, which is no key: a new one is made, and what was encrypted before is lost"
            self.log.error(message, path=str(self.path), size=len(key))
        write_private(self.path, self._key)

    def _read(self) -> bytes:
        try:
            with open(self.path, "rb") as file:
                if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                    os.fchmod(file.fileno(), 0o600)
                    self.log.warn("{path} could be read by others than its owner: no longer", path=str(self.path))
                return file.read(KEY_SIZE + 1)
        except FileNotFoundError:
            return b""
