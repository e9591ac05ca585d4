"""
Logs that end somewhere and give nothing away.

``twistd --logger yurt.logs.rotating`` writes a bounded set of files, where twistd's own log files rotate but are never
deleted; ``--logger yurt.logs.printed`` is for systemd's journal.  Neither writes what is of level debug, such as the same failure
again and again while a link is away: flash wears out.  Without ``--logger`` all is printed.  :func:`guard` keeps
credentials out of every observer, whichever one runs.

A log that cannot be written stops nobody: lines are lost until it can.  SIGUSR1 opens the file anew, for those who rename it.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import IO, Any, cast

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    LogPublisher,
    eventAsText,
    globalLogPublisher,
    textFileLogObserver,
)
from twisted.python.logfile import LogFile
from zope.interface import provider

DEFAULT_PATH = "/var/log/yurt/yurthub.log"
FILE_BYTES = 5_000_000
"""A log file is rotated when it has this size."""
FILES_KEPT = 4
"""Rotated files that stay beside the one being written."""

HIDDEN = "[redacted]"
_CREDENTIALS = (
    # Authorization: Bearer and Basic, also inside a repr
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{4,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    # the user part of a URL
    (re.compile(r"(://)[^/\s@'\"<>]+@"), rf"\1{HIDDEN}@"),
    # a JSON web token on its own
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"), HIDDEN),
    # a bootstrap token: the identifier may be shown, the secret not
    (re.compile(r"\b([a-z0-9]{6})\.[a-z0-9]{16}\b"), rf"\1.{HIDDEN}"),
)


def redact(text: str) -> str:
    """
    ``text`` without bearer and bootstrap tokens, passwords of basic authentication and user parts of URLs.
    """
    for pattern, replacement in _CREDENTIALS:
        text = pattern.sub(replacement, text)
    return text


@provider(ILogObserver)
def redact_event(event: LogEvent) -> None:
    """
    Replace the text of ``event``, its traceback included, when it holds a credential.
    """
    text = eventAsText(event, includeTraceback=True, includeTimestamp=False, includeSystem=False)
    clean = redact(text)
    if clean == text:
        return
    for key in ("log_failure", "failure", "message", "format", "log_io"):
        event.pop(key, None)
    event["log_format"] = "{log_redacted}"
    event["log_redacted"] = event["log_text"] = clean


def guard(publisher: LogPublisher = globalLogPublisher) -> None:
    """
    Let :func:`redact_event` see every event before the observers that are added after this call.
    """
    publisher.addObserver(redact_event)


class _AppendedFile(LogFile):
    """
    One that goes on at its end where somebody has emptied it.
    """

    def _openFile(self) -> None:
        super()._openFile()
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        fcntl.fcntl(self._file, fcntl.F_SETFL, flags | os.O_APPEND)


class EnduringLog:
    """
    A log file, opened by ``open_file``, whose disk may be full, read-only or away for a while: then its lines are lost, and each
    further one tries again.
    """

    def __init__(self, open_file: Callable[[], LogFile]) -> None:
        self._open_file = open_file
        self._file: LogFile | None = None
        self._is_stale = False
        self._lock = Lock()

    def open(self) -> None:
        """
        Open the file if it is not open.  Raises OSError.
        """
        if self._is_stale:
            self._is_stale, self._file = False, None
        if self._file is None:
            self._file = self._open_file()

    def open_anew(self) -> None:
        """
        Let the next line go to what has the file's name then.  For signal handlers, too.
        """
        self._is_stale = True

    def write(self, text: str) -> None:
        """
        Write text, if that is possible.
        """
        with self._lock:
            try:
                self.open()
                cast(LogFile, self._file).write(text)
            except OSError:
                self._file = None

    def flush(self) -> None:
        """
        Nothing is held back.
        """


def rotating() -> ILogObserver:
    """
    Write to the file that YURT_LOG_FILE names, else to DEFAULT_PATH; at most FILES_KEPT + 1 files of FILE_BYTES.
    """
    path = os.environ.get("YURT_LOG_FILE") or DEFAULT_PATH
    folder, name = os.path.split(os.path.abspath(path))

    def open_file() -> LogFile:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        return _AppendedFile(name, folder, rotateLength=FILE_BYTES, maxRotatedFiles=FILES_KEPT, defaultMode=0o640)

    log = EnduringLog(open_file)
    try:
        log.open()
    except OSError as error:
        with suppress(OSError):
            print(f"no log: cannot write {path}: {error.strerror}; it is tried again", file=sys.stderr, flush=True)
    signal.signal(signal.SIGUSR1, lambda number, frame: log.open_anew())
    return _for_operators(cast(IO[Any], log))


def printed() -> ILogObserver:
    """
    Write to standard output.
    """
    signal.signal(signal.SIGUSR1, lambda number, frame: None)  # There is no file to open anew; it would kill the daemon.
    return _for_operators(sys.stdout)


def _for_operators(file: IO[Any]) -> ILogObserver:
    return FilteringLogObserver(textFileLogObserver(file), [LogLevelFilterPredicate(LogLevel.info)])
