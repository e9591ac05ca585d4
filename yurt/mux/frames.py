"""
The frames of yamux, version 0: a head of 12 bytes, and behind that of a data frame its bytes.

The format is that of https://github.com/hashicorp/yamux/blob/master/spec.md.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

VERSION: Final = 0

HEAD = Struct(">BBHII")
"""Version, type, flags, stream, length: big-endian."""

HEAD_BYTES: Final = 12

DATA: Final = 0
WINDOW_UPDATE: Final = 1
PING: Final = 2
GO_AWAY: Final = 3

SYN: Final = 1
ACK: Final = 2
FIN: Final = 4
RST: Final = 8

NORMAL: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2

INITIAL_WINDOW: Final = 256 * 1024
"""What the format gives each stream in each direction before anybody says anything."""

MAX_UINT32: Final = 0xFFFFFFFF


class MuxError(Exception):
    """
    A session ended, or cannot do what was asked; the text says why, for people.
    """


class MuxClosed(MuxError):
    """
    No stream can be opened: the session has ended, either side is going away, or all streams are in use.
    """


class NoStreamLeft(MuxClosed):
    """
    All streams are in use.
    """


class PeerWentAway(MuxError):
    """
    The peer ended the session because of an error that it saw.
    """


class IllegalFrame(MuxError):
    """
    The peer broke yamux.  ``name`` is the kind of mistake in one word, for programs.
    """

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"the peer broke yamux: {what}")
        self.name = name


def head(kind: int, flags: int, stream: int, length: int) -> bytes:
    """
    The head of a frame.
    """
    return HEAD.pack(VERSION, kind, flags, stream, length)
