"""
Tests for ``yurt.http.arrival``.
"""

from __future__ import annotations

from typing import Any, NoReturn

from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from yurt.http.arrival import Arrival


def fail(wire: Any) -> NoReturn:
    """
    What looking at a connection that is gone ends in.
    """
    raise OSError("Transport endpoint is not connected")


class ArrivalTests(SynchronousTestCase):
    """
    Tests of an accepted connection.
    """

    def setUp(self) -> None:
        self.wire: Any = StringTransport()

    def test_handed_over(self) -> None:
        """
        The chosen protocol gets the transport, and all that comes.
        """
        inner = Protocol()
        Arrival(lambda wire: inner if wire is self.wire else None).makeConnection(self.wire)
        self.assertIs(inner.transport, self.wire)
        self.assertIs(self.wire.protocol, inner)

    def test_dealt_with(self) -> None:
        """
        Nothing is done where there is no protocol for it.
        """
        Arrival(lambda wire: None).makeConnection(self.wire)
        self.assertFalse(self.wire.disconnecting)

    def test_gone(self) -> None:
        """
        A connection that was reset before it was looked at is dropped, without a mistake in the log.
        """
        Arrival(fail).makeConnection(self.wire)
        self.assertTrue(self.wire.disconnected or self.wire.disconnecting or self.wire.aborting)
