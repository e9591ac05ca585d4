"""
Streams on which nothing is said, at a stop: nobody should wait for them.

An API server keeps a connection to a kubelet for a minute and a half after its last request.  Unread as it is, it looks like a
call that still runs.  While the daemon waits for its end the node cannot be reached; so what is quiet for long enough is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from yurt.mux.connection import MuxConnection, MuxStream

QUIET = 10.0
"""Seconds of a stop within which something must be said on a stream, in either direction, for it to be waited for."""

STEP = 1.0
"""Seconds between two looks."""


class QuietStreams:
    """
    Resets the streams of ``muxes()`` on which nothing was said for ``after`` seconds since it was started.
    """

    log = Logger()

    def __init__(self, reactor: Any, muxes: Callable[[], Iterable[MuxConnection]], after: float = QUIET) -> None:
        self._reactor = reactor
        self._muxes = muxes
        self._after = after
        self._said: dict[MuxStream, tuple[int, float]] = {}
        """How much was said on each stream, and since when no more."""
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def start(self) -> None:
        """
        Begin to look.
        """
        self._looking.start(STEP).addErrback(lambda failure: self.log.failure("quiet streams are waited for", failure))

    def stop(self) -> None:
        """
        Look no more.
        """
        if self._looking.running:
            self._looking.stop()

    def _look(self) -> None:
        before, self._said = self._said, {}
        now = self._reactor.seconds()
        for stream in [stream for mux in self._muxes() for stream in mux.open_streams]:
            count = stream.bytes_received + stream.bytes_sent
            known, since = before.get(stream, (count, now))
            if known != count:
                since = now
            if now - since >= self._after:
                stream.abortConnection()
            else:
                self._said[stream] = count, since
