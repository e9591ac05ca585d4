"""
Connections of one listener that go to one protocol or another, by what is known of them when they are accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Protocol


class Arrival(Protocol):
    """
    A connection that has just been accepted.  ``choose`` is given its transport, and finds its protocol; None when it has dealt
    with the connection by itself.
    """

    def __init__(self, choose: Callable[[Any], IProtocol | None]) -> None:
        self._choose = choose

    def connectionMade(self) -> None:
        """
        Let the chosen protocol have the transport.
        """
        wire = cast(Any, self.transport)
        try:
            inner = self._choose(wire)
        except OSError:  # reset before it was looked at
            wire.abortConnection()
            return
        if inner is not None:
            wire.protocol = inner
            inner.makeConnection(wire)
