"""
Streams over a link in memory, for tests of how they begin.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.trial.unittest import SynchronousTestCase

from tests.mux.links import HalfCloseable, Link, Memory
from yurt.http.dial import Build
from yurt.mux.connection import MuxStream
from yurt.tunnel.answering import IncomingConnect, read_connect
from yurt.tunnel.connect import ConnectRefused
from yurt.tunnel.opening import StreamEndpoint


class Refusable(HalfCloseable):
    """
    Also remembers why it was refused.
    """

    refused: ConnectRefused | None = None

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        if isinstance(reason.value, ConnectRefused):
            self.refused = reason.value


class StreamCase(SynchronousTestCase):
    """
    A link: the server opens, the client answers.
    """

    def setUp(self) -> None:
        self.link = Link()
        self.inside = Refusable()

    def dial(self, host: str = "10.0.0.8", port: int = 10250, **how: Any) -> Deferred[IProtocol]:
        """
        Open a stream for ``inside``.
        """
        endpoint = StreamEndpoint(self.link.server.mux, host, port, reactor=self.link.clock, **how)
        dialling = endpoint.connect(Build(lambda _: self.inside))
        self.link.flush()
        return dialling

    def incoming(self) -> IncomingConnect:
        """
        What the client reads of the stream opened last.
        """
        self.link.flush()
        return self.incoming_at_once()

    def incoming_at_once(self) -> IncomingConnect:
        """
        The same, when it is there already.
        """
        return self.successResultOf(read_connect(self.link.clock, self.link.client.accepted[-1]))

    def refused(self, dialling: Deferred[IProtocol]) -> ConnectRefused:
        """
        Why a dial came to nothing.
        """
        value = self.failureResultOf(dialling, ConnectRefused).value
        assert isinstance(value, ConnectRefused)
        return value

    def raw(self, data: bytes) -> tuple[Memory, MuxStream]:
        """
        A stream that begins with ``data``: the server's end and the client's.
        """
        here = HalfCloseable()
        stream, peer = self.link.open(here)
        stream.write(data)
        self.link.flush()
        return here, peer
