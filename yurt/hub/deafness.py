"""
Watches whose connection stands, and brings nothing any more.

A load balancer may keep a connection open whose API server has lost its power, and answer probes and new connections from another
one.  API servers send a bookmark about once a minute to a watch that asks for them, as the hub's do: an attempt that has brought
one, and nothing for much longer, is taken for deaf, and the watch goes on by a new one from where it is, which costs nothing
if it was not.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from yurt.hub.attempt import Attempt
from yurt.hub.timers import Timers

LOOK_EVERY = 30.0
"""Seconds between two looks at all watches."""

QUIET_LOOKS = 6
"""Looks in a row that have seen nothing come after which an attempt is deaf: more than 150 s, two bookmarks' time and more."""


class Attached(Protocol):
    """
    What a watch has of the cloud.
    """

    attempt: Attempt | None

    def begin_anew(self) -> None: ...


class Listening(Protocol):
    """
    A watch.
    """

    @property
    def attachment(self) -> Attached: ...


class Deafness:
    """
    Looks at the ``watches`` as long as there are any.
    """

    def __init__(self, timers: Timers, watches: Collection[Listening]) -> None:
        self._timers = timers
        self._watches = watches
        self._looking = False

    def begin(self) -> None:
        """
        There is a watch.
        """
        if not self._looking:
            self._looking = True
            self._timers.set("deafness", LOOK_EVERY, self._look)

    def _look(self) -> None:
        self._looking = False
        for watch in list(self._watches):
            attempt = watch.attachment.attempt
            if attempt is not None:
                attempt.quiet += 1
                if attempt.marked and attempt.quiet > QUIET_LOOKS:
                    watch.attachment.begin_anew()
        if self._watches:
            self.begin()
