"""
Tests of :mod:`yurt.tunnel.quiet`.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from yurt.tunnel.quiet import MUCH, QUIET, STEP, QuietStreams


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
        self.at_node = QuietStreams(self.clock, lambda: self.streams, at_node=True)
        self.at_callers = QuietStreams(self.clock, lambda: self.streams, at_node=False)
        self.addCleanup(self.at_node.stop)
        self.addCleanup(self.at_callers.stop)

    def test_quiet(self) -> None:
        """
        A silent caller's stream ends, though the node says something now and then; a byte of the caller lets it live as long
        again, and so does much from the node.
        """
        silent, followed, used, downloaded = self.streams[:] = [FakeStream() for _ in range(4)]
        self.at_node.start()
        for _ in range(int(3 * QUIET / STEP)):
            followed.bytes_sent += 100
            used.bytes_received += 1
            downloaded.bytes_sent += int(MUCH * STEP / QUIET) + 1
            self.clock.advance(STEP)
            over = self.clock.seconds() >= QUIET
            self.assertEqual([silent.is_cut, followed.is_cut], [over, over])
        self.assertEqual([used.is_cut, downloaded.is_cut], [False, False])
        self.clock.pump([STEP] * int(QUIET / STEP + 1))
        self.assertEqual([used.is_cut, downloaded.is_cut], [True, True])

    def test_directions(self) -> None:
        """
        Where callers come in, what goes to the node is theirs.
        """
        used, followed = self.streams[:] = [FakeStream(), FakeStream()]
        self.at_callers.start()
        for _ in range(int(2 * QUIET / STEP)):
            used.bytes_sent += 1
            followed.bytes_received += 1
            self.clock.advance(STEP)
        self.assertEqual([used.is_cut, followed.is_cut], [False, True])

    def test_stop(self) -> None:
        """
        Once stopped it cuts nothing and leaves nothing.
        """
        self.streams.append(FakeStream())
        self.at_node.start()
        self.at_node.stop()
        self.clock.advance(2 * QUIET)
        self.assertFalse(self.streams[0].is_cut)
        self.assertEqual(self.clock.getDelayedCalls(), [])
