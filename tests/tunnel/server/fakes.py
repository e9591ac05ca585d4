"""
Stand-ins for the parts around the server's core.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from yurt.http.interfaces import Headers
from yurt.tunnel.server.registry import Agent, Carrier


@dataclass(eq=False)
class FakeCarrier:
    """
    A link of which only the figures matter.
    """

    closing: bool = False
    peer_going_away: bool = False
    heard_at: float = 0.0
    silent_for: float = 0.0
    streams: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    rtt: float | None = None
    aborted: list[str] = field(default_factory=list)

    def go_away(self) -> None:
        """
        No new streams.
        """
        self.closing = True

    def when_idle(self) -> Deferred[None]:
        """
        Idle at once without streams, else never.
        """
        return Deferred() if self.streams else succeed(None)

    def abort(self, why: str) -> None:
        """
        The link is cut.
        """
        self.aborted.append(why)


def agent(node: str, carrier: Carrier | None = None) -> Agent:
    """
    A connection of ``node``.
    """
    return Agent(node, carrier or FakeCarrier())


@implementer(IStreamClientEndpoint)
class FakeEndpoint:
    """
    Connects each protocol at once to a StringTransport, or fails as told.
    """

    def __init__(self, opened: FakeStreams, words: tuple[object, ...], answered: Callable[[], object]) -> None:
        self.opened = opened
        self.words = words
        self.answered = answered

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Keep the protocol in ``opened.protocols``.
        """
        self.opened.asked.append(self.words)
        if self.words[0] in self.opened.unanswered:
            return Deferred()
        error = self.opened.errors.get(self.words[0], self.opened.error)
        if error is not None:
            return fail(error)
        self.answered()
        protocol = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]  # as endpoints of other kinds do
        assert protocol is not None
        protocol.makeConnection(StringTransport())
        self.opened.protocols.append(protocol)
        return succeed(protocol)


@dataclass
class FakeStreams:
    """
    In the place of the endpoint that opens streams: ``asked`` is what was dialled, ``error`` how dials fail, ``errors`` how
    those by one carrier do; those by the carriers in ``unanswered`` come to nothing.
    """

    asked: list[tuple[object, ...]] = field(default_factory=list)
    protocols: list[IProtocol] = field(default_factory=list)
    error: Exception | None = None
    errors: dict[object, Exception] = field(default_factory=dict)
    unanswered: list[object] = field(default_factory=list)

    def __call__(
        self, carrier: Carrier, host: str, port: int, *, headers: Headers, early: bool, answered: Callable[[], object]
    ) -> IStreamClientEndpoint:
        return FakeEndpoint(self, (carrier, host, port, headers, early), answered)
