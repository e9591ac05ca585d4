"""
A note that a process leaves when it dies of its cache: what is mapped, and cannot be read, ends it (SIGBUS), and no code of its
own runs any more.  Python's faulthandler writes where it was to a file that stands open for that.
"""

from __future__ import annotations

import faulthandler
import os

from twisted.logger import Logger

CRASH_FILE = "hub.crash"
MAX_NOTE = 4096
"""Bytes of a note that are read."""

log = Logger()


def died_of_it(path: str) -> bool:
    """
    Whether the last process that had the cache in folder ``path`` died with a note.
    """
    try:
        with open(os.path.join(path, CRASH_FILE), "rb") as file:
            note = file.read(MAX_NOTE)
    except OSError:
        return False
    if note:
        where = note.decode("utf-8", "replace").strip()
        log.error("the last process that used the cache in {path} died: {where}", path=path, where=where)
    return bool(note)


def open_note(path: str) -> int | None:
    """
    Have a note left if this process dies from now on; to be closed.  None where the folder takes no file.
    """
    try:
        note = os.open(os.path.join(path, CRASH_FILE), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    faulthandler.enable(note, all_threads=False)
    return note


def close_note(note: int | None) -> None:
    """
    The cache is not used any more.
    """
    if note is not None:
        faulthandler.disable()
        os.close(note)
