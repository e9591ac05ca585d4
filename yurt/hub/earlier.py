"""
What earlier runs have left that a start depends on when what the operator gave was damaged: a power cut while somebody writes the
node's kubeconfig leaves an empty or a torn one, and the node must live on its cache nevertheless.

A file that has worked before was damaged; one that never has is a mistake of who names it.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.logger import Logger

from yurt.files import write_private

WORKED_FILE = "identity"
"""Below the root folder: the file with the node's identity that has worked last, and the URLs of the API servers, one a line."""

MAX_BYTES = 16 * 1024

log = Logger()


def has_worked(root_dir: str, identity: str) -> bool:
    """
    Whether this file has given the node its identity at the last start.
    """
    return _lines(root_dir)[:1] == [identity]


def known_servers(root_dir: str) -> tuple[str, ...]:
    """
    The servers of that start.
    """
    return tuple(_lines(root_dir)[1:])


def remember(root_dir: str, identity: str, servers: tuple[str, ...]) -> None:
    """
    Keep both for a start at which they cannot be read.
    """
    lines = [identity, *servers]
    if _lines(root_dir) == lines:
        return
    path = Path(root_dir, WORKED_FILE)
    try:
        write_private(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
    except OSError as error:
        log.warn("{path}: not written: {error}", path=str(path), error=error.strerror)


def _lines(root_dir: str) -> list[str]:
    try:
        with open(os.path.join(root_dir, WORKED_FILE), "rb") as file:
            return file.read(MAX_BYTES).decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
