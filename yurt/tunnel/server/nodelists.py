"""
How a server tells another which nodes have an agent here: a stream of JSON documents, one a line, the first of which names
all of them.  docs/tunnel-protocol.md, section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.http.heads import serialise_request
from yurt.http.interfaces import RequestHead
from yurt.tunnel.server.registry import Registry

MAX_LINE_BYTES = 1024 * 1024
"""Bytes of a line."""

MAX_NAMES = 2000
"""Names written in one line; one has at most 253 bytes."""

MAX_NODES = 50_000
"""Nodes that another server may have."""


class Line(msgspec.Struct, omit_defaults=True):
    """
    What one line says: all nodes, or which ones were added or removed.
    """

    nodes: list[str] | None = None
    added: list[str] = []
    removed: list[str] = []


_decode = msgspec.json.Decoder(Line).decode


@implementer(IPushProducer)
class NodeListWriter(Protocol):
    """
    Writes the nodes of a registry, and their changes, for as long as the stream is open.  While the other side does not
    read, only the last state of each node that changed is kept.
    """

    TARGET = b"/v1/nodes"

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._changed: dict[str, bool] = {}
        self._paused = False
        self._unsubscribe: Callable[[], None] | None = None

    def connectionMade(self) -> None:
        """
        Write the head, and all nodes.
        """
        wire = cast(Any, self.transport)
        wire.write(serialise_request(RequestHead(b"POST", self.TARGET, [(b"Host", b"server")])))
        names = self._registry.nodes()
        wire.write(_line(Line(nodes=names[:MAX_NAMES])))
        self._changed = dict.fromkeys(names[MAX_NAMES:], True)
        self._unsubscribe = self._registry.subscribe(self._node_changed)
        wire.registerProducer(self, True)
        self._flush()

    def dataReceived(self, data: bytes) -> None:
        """
        The other side answers 200, or refuses and ends the stream; either way there is nothing to do.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Tell no more.
        """
        unsubscribe, self._unsubscribe = self._unsubscribe, None
        if unsubscribe is not None:
            unsubscribe()

    def end(self) -> None:
        """
        Close the stream.
        """
        wire = cast(Any, self.transport)
        wire.unregisterProducer()
        wire.loseConnection()

    def pauseProducing(self) -> None:
        """
        Collect changes.
        """
        self._paused = True

    def resumeProducing(self) -> None:
        """
        Write them.
        """
        self._paused = False
        self._flush()

    def stopProducing(self) -> None:
        """
        The stream is going away.
        """

    def _node_changed(self, node: str, connected: bool) -> None:
        self._changed[node] = connected
        self._flush()

    def _flush(self) -> None:
        while self._changed and not self._paused:
            batch = list(self._changed.items())[:MAX_NAMES]
            for node, _ in batch:
                del self._changed[node]
            added = [node for node, connected in batch if connected]
            removed = [node for node, connected in batch if not connected]
            cast(Any, self.transport).write(_line(Line(added=added, removed=removed)))


def _line(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"


class NodeListReader(Protocol):
    """
    Keeps ``nodes`` as another server tells it; ends a stream that makes no sense.
    """

    log = Logger()

    def __init__(self, nodes: set[str]) -> None:
        self._nodes = nodes
        self._rest = b""

    def dataReceived(self, data: bytes) -> None:
        """
        Take whole lines.
        """
        try:
            for line in self._lines(data):
                self._take(_decode(line))
        except ValueError as error:
            self.log.warn("the nodes of another server: {error}", error=error)
            self._nodes.clear()
            cast(Any, self.transport).abortConnection()

    def _lines(self, data: bytes) -> Iterator[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        yield from lines
        if len(self._rest) > MAX_LINE_BYTES:
            raise ValueError(f"a line of more than {MAX_LINE_BYTES} bytes")

    def _take(self, line: Line) -> None:
        if line.nodes is not None:
            self._nodes.clear()
            self._nodes.update(line.nodes)
        self._nodes.update(line.added)
        self._nodes.difference_update(line.removed)
        if len(self._nodes) > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} nodes")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Nothing is known any more.
        """
        self._nodes.clear()
