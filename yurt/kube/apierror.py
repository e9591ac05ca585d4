"""
How a call to an API server fails.
"""

from __future__ import annotations

NO_ANSWER, TIMEOUT, TOO_LARGE, UNREADABLE = "NoAnswer", "Timeout", "TooLarge", "Unreadable"
"""Reasons of an :class:`ApiError` with code 0, which no server gave."""


class ApiError(Exception):
    """
    A call failed; the message says which one, where, and why.

    ``code`` is the HTTP status and ``reason`` that of the Status (``Conflict``, ``NotFound``, …).  Code 0 says that there was
    no whole answer that can be read.  ``retry_after`` is in seconds, if the server gave it.
    """

    def __init__(self, code: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
