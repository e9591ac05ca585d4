"""
Streams on which nobody asks for anything, at a stop: they are not waited for.

An API server keeps a connection to a kubelet for a minute and a half after its last request, and who follows a log asks once and
listens.  Unread as they are, such streams look like calls that will end.  While the daemon waits for them the node cannot be
reached; so those on which the caller is silent for long enough are cut, unless the node has much to tell.  An exec is none of
them, even when its command is silent: the API server pings through it every 5 s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

QUIET = 10.0
"""Seconds of a stop within which the caller must say something on a stream for it to be waited for."""

MUCH = 64 * 1024
"""Bytes from the node in that time that are as good: somebody downloads."""

STEP = 1.0
"""Seconds between two looks."""


class Talk(Protocol):
    """
    A stream as it is looked at here: bytes that left by it and that came, and a way to reset it.
    """

    @property
    def bytes_sent(self) -> int: ...

    @property
    def bytes_received(self) -> int: ...

    def abortConnection(self) -> None: ...


@dataclass(slots=True)
class _Said:
    """
    What both sides of a stream had said, and when the caller said something last.
    """

    caller: int
    node: int
    at: float


class QuietStreams:
    """
    Resets those of ``streams()`` on which nobody asked for anything for QUIET seconds since it was started; ``at_node`` says
    whether they end at the node, rather than at the callers' side.
    """

    log = Logger()

    def __init__(self, reactor: Any, streams: Callable[[], Iterable[Talk]], *, at_node: bool, after: float = QUIET) -> None:
        self._reactor = reactor
        self._streams = streams
        self._at_node = at_node
        self._after = after
        self._said: dict[Talk, _Said] = {}
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
        for stream in list(self._streams()):
            caller, node = stream.bytes_sent, stream.bytes_received
            if self._at_node:
                caller, node = node, caller
            said = before.get(stream)
            if said is None or caller != said.caller or node - said.node >= MUCH:
                said = _Said(caller, node, now)
            if now - said.at >= self._after:
                stream.abortConnection()
            else:
                self._said[stream] = said
