"""
Tests of :mod:`yurt.tunnel.quiet`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from yurt.tunnel.quiet import QUIET, STEP, QuietStreams


class FakeStream:
    """
    A stream of which only the figures matter.
    """

    def __init__(self) -> None:
        self.bytes_received = self.bytes_sent = 0
        self.is_cut = False

    def abortConnection(self) -> None:
        """
        Cut.
        """
        self.is_cut = True


class QuietStreamsTests(SynchronousTestCase):
    """
    Tests of QuietStreams.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.streams: list[FakeStream] = []
        mux = SimpleNamespace(open_streams=self.streams)
        self.quiet = QuietStreams(self.clock, lambda: [cast(Any, mux)])
        self.addCleanup(self.quiet.stop)

    def test_quiet(self) -> None:
        """
        Nothing said for long enough ends a stream; a byte in either direction lets it live as long again.
        """
        silent, sending, receiving = self.streams[:] = [FakeStream() for _ in range(3)]
        self.quiet.start()
        for _ in range(int(3 * QUIET / STEP)):
            sending.bytes_sent += 1
            receiving.bytes_received += 1
            self.clock.advance(STEP)
            self.assertEqual(silent.is_cut, self.clock.seconds() >= QUIET)
        self.assertEqual([one.is_cut for one in (sending, receiving)], [False, False])
        self.clock.pump([STEP] * int(QUIET / STEP + 1))
        self.assertEqual([one.is_cut for one in (sending, receiving)], [True, True])

    def test_stop(self) -> None:
        """
        Once stopped it cuts nothing and leaves nothing.
        """
        self.streams.append(FakeStream())
        self.quiet.start()
        self.quiet.stop()
        self.clock.advance(2 * QUIET)
        self.assertFalse(self.streams[0].is_cut)
        self.assertEqual(self.clock.getDelayedCalls(), [])
