"""
What the cache answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Absent(Enum):
    """
    The answer that an object does not exist.
    """

    ABSENT = "absent"


ABSENT = Absent.ABSENT


@dataclass(frozen=True, slots=True)
class Found:
    """
    A stored object; ``stored_at`` in seconds of the wall clock is when the cloud last confirmed it.
    """

    body: bytes
    stored_at: float
    local: bool


@dataclass(frozen=True, slots=True)
class FoundList:
    """
    A list as its caller would have got it; ``stored_at`` is when its view was last brought up to date.
    """

    body: bytes
    kind: str
    api_version: str
    resource_version: str
    stored_at: float
    items: int


@dataclass(frozen=True, slots=True)
class ViewInfo:
    """
    What is known of a view.  ``frozen``: the disk took no writes, and the view stays what it is there until a list, or a watch
    that tells all that it missed.
    """

    resource_version: str
    complete: bool
    kind: str
    api_version: str
    updated_at: float
    members: int
    frozen: bool
