"""
Files that are replaced as a whole.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """
    Put ``content`` in the place of a file, whole or not at all even if the power fails, readable by its owner alone; folders on
    the way to it are made.  Raises OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")  # hidden: kubelet takes what else lies in its folder of manifests for pods
    with suppress(FileNotFoundError):
        new.unlink()
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:  # The system names no file here.
        raise OSError(error.errno, error.strerror, str(path)) from error
    os.replace(new, path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """
    Let the names in a folder outlast a loss of power.  Raises OSError.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
