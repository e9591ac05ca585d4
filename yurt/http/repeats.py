"""
Requests that come again byte by byte: what was read once need not be read again.
"""

from __future__ import annotations

from yurt.http.interfaces import RequestHead

MAX_REPEATED = 256
"""Heads kept; beyond, the first one goes."""

MAX_REPEATED_BYTES = 2048
"""A longer head is read each time, so that what is kept stays small."""


class Repeats:
    """
    Heads by the very bytes that they were read from, each a whole request without a body whose connection stays open, or a
    CONNECT.

    Who reads the same bytes by the same rules gets the same head, so that nobody is taken for anybody else.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, RequestHead] = {}
        self.find = self._heads.get

    def keep(self, data: bytes, head: RequestHead) -> None:
        """
        ``data`` was nothing but this request.
        """
        if len(self._heads) >= MAX_REPEATED:
            del self._heads[next(iter(self._heads))]
        head.memo = {}
        self._heads[data] = head
