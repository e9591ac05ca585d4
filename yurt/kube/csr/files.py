"""
A certificate with its key on disk, and the key of a request that is on its way.

The names are client-go's: ``NAME-current.pem`` holds certificate, chain and key.  It is one file, replaced as a whole, where
client-go changes a link and leaves all earlier files behind; such a link is read, and replaced.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from yurt.files import write_private
from yurt.kube.csr.pem import Held, PEMError, read_held

MAX_FILE_BYTES = 1024 * 1024
"""A larger file is no certificate."""


def read_small(path: Path) -> bytes:
    """
    What a file holds, up to MAX_FILE_BYTES; empty when it is not there.  Raises OSError.
    """
    try:
        with open(path, "rb") as file:
            return file.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        return b""


class CertificateFiles:
    """
    ``NAME-current.pem`` and ``NAME-pending.key`` of a folder.  ``wall`` is the time of day.
    """

    def __init__(self, folder: str, name: str, wall: Callable[[], float] = time.time) -> None:
        self.path = Path(folder) / f"{name}-current.pem"
        self.pending_path = Path(folder) / f"{name}-pending.key"
        self.problem: str | None = None
        """What was wrong with the file when it was read last."""
        self._wall = wall

    def load(self) -> Held | None:
        """
        The certificate; None where there is none, or one that cannot be used, which ``problem`` tells.
        """
        self.problem = None
        try:
            pem = read_small(self.path)
            return _since(read_held(pem), self.path.stat().st_mtime, self._wall()) if pem else None
        except PEMError as error:
            self.problem = f"{self.path}: {error}"
        except OSError as error:
            self.problem = f"{self.path}: {error.strerror}"
        return None

    def save(self, pem: bytes) -> Held:
        """
        Keep a new certificate with its key; the key is not pending any more.  Raises PEMError and OSError.
        """
        held = read_held(pem)
        write_private(self.path, pem)
        self.discard_pending()
        return _since(held, self._wall(), self._wall())

    def pending(self) -> bytes:
        """
        The key of the request on its way; empty when there is none.
        """
        try:
            return read_small(self.pending_path)
        except OSError:
            return b""

    def save_pending(self, key: bytes) -> None:
        """
        Keep the key of a request, so that its certificate can be used after a restart.  Raises OSError.
        """
        write_private(self.pending_path, key)

    def discard_pending(self) -> None:
        """
        That key is of no use any more.
        """
        with suppress(OSError):
            self.pending_path.unlink()


def _since(held: Held, written: float, now: float) -> Held:
    """
    Signers date certificates back by minutes, which is much of the life of a short one; when it was written tells when it came.
    """
    return replace(held, not_before=written) if held.not_before < written <= now else held
