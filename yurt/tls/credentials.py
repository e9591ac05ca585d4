"""
Where trust and identity come from: PEM, in files or at hand.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from cryptography import x509


class CredentialsError(ValueError):
    """
    A certificate or key cannot be used; the message names the file, never what is in it.
    """


@dataclass(frozen=True, slots=True)
class Credentials:
    """
    Where a CA bundle, a certificate (with its chain) and its key come from: PEM in a file or at hand.  The file wins.
    Without a CA nobody is trusted.  A certificate file may hold the key too.
    """

    ca_file: str | None = None
    ca_data: bytes | None = None
    cert_file: str | None = None
    cert_data: bytes | None = None
    key_file: str | None = None
    key_data: bytes | None = None

    @property
    def has_certificate(self) -> bool:
        """
        Whether they name a certificate.
        """
        return self.cert_file is not None or self.cert_data is not None

    def __repr__(self) -> str:
        return f"Credentials(ca_file={self.ca_file!r}, cert_file={self.cert_file!r}, key_file={self.key_file!r})"

    def stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        """
        Changes when one of the files was replaced or written to.
        """
        return tuple(_stamp(path) for path in (self.ca_file, self.cert_file, self.key_file))


def _stamp(path: str | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def read_pem(path: str | None, data: bytes | None, what: str) -> tuple[bytes, str]:
    """
    The bytes, and how to call their source in an error.  Raises :class:`CredentialsError`.
    """
    if path is None:
        return data or b"", f"the {what} given"
    try:
        with open(path, "rb") as file:
            return file.read(), f"{what} {path}"
    except OSError as error:
        raise CredentialsError(f"{what} {path}: {error.strerror}") from None


def load_certificates(path: str | None, data: bytes | None, what: str) -> list[x509.Certificate]:
    """
    The certificates in a file or at hand.  Raises :class:`CredentialsError`.
    """
    pem, source = read_pem(path, data, what)
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise CredentialsError(f"{source}: holds no valid PEM certificate") from None
