"""
One link of an agent, from the hello to its end.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger

from yurt.mux.connection import MuxConnection
from yurt.mux.frames import IllegalFrame, PeerWentAway
from yurt.tunnel.link import LinkInfo, close_link
from yurt.tunnel.wear import renew_at

if TYPE_CHECKING:
    from yurt.tunnel.agent.routes import Route

LOOK = 2.0
"""
Seconds between two looks at a link: at what is left of its certificates, for the time of day may have been set, and whether this
host still has the address that it goes out from.
"""

CLOSE_TIMEOUT = 1.0
"""Seconds that a link has to close in order, at the end."""


class Event:
    """
    Something that happens once, for any number that wait for it.
    """

    def __init__(self) -> None:
        self.happened = False
        self._waiting: list[Deferred[None]] = []

    def set(self) -> None:
        """
        It happened.
        """
        self.happened = True
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    def wait(self) -> Deferred[None]:
        """
        Fires when it has happened; may be cancelled.
        """
        deferred: Deferred[None] = Deferred(lambda given_up: self._waiting.remove(given_up))
        if self.happened:
            deferred.callback(None)
        else:
            self._waiting.append(deferred)
        return deferred


class Link:
    """
    A connection to a server.  ``spent`` happens when it brings no new streams, ``lost`` when it is gone.
    """

    log = Logger()

    def __init__(self, server: str) -> None:
        self.server = server
        self.spent = Event()
        self.lost = Event()
        self.info: LinkInfo | None = None
        self.mux: MuxConnection | None = None
        self.why = ""
        """Why it is spent, for people."""
        self.word = ""
        """The same for metrics."""
        self.successor: Route | None = None
        """Another route whose newer link leads to the same server."""
        self.renew_at = inf
        """When another one is to take its place, by the time of day."""
        self._address = ""
        """That of this host which it goes out from; empty where the kernel does not list it as one of this host."""
        self._missed = 0

    @property
    def server_id(self) -> str:
        """
        Which server it leads to.
        """
        return "" if self.info is None else self.info.server_id

    @property
    def valid_until(self) -> float:
        """
        When the first of both sides' certificates expires, by the time of day.
        """
        return inf if self.info is None else self.info.valid_until

    def wear(self, now: float, chance: float) -> None:
        """
        Choose when another one is to take its place; ``chance`` is drawn from 0 to 1.
        """
        self.renew_at = renew_at(now, self.valid_until, chance, LOOK)

    def note_address(self, own: frozenset[str]) -> None:
        """
        Remember where it goes out from, if that is one of the addresses ``own``.
        """
        host = str(getattr(cast(Any, self.mux).transport.getHost(), "host", "")).partition("%")[0]
        self._address = host if host in own else ""

    def outdated(self, now: float, own: frozenset[str]) -> str:
        """
        Why another one is to take its place, asked at each look; empty when none is.  The address must be missing at two looks: a
        DHCP client may take it away and give it back.  ``own`` is empty where the kernel does not tell.
        """
        self._missed = self._missed + 1 if self._address and own and self._address not in own else 0
        if self._missed > 1:
            return f"this host's address {self._address} is gone"
        return "a certificate expires soon" if now >= self.renew_at else ""

    def spend(self, word: str, why: str) -> None:
        """
        Expect no new streams.
        """
        if not self.spent.happened:
            self.word, self.why = word, why
            self.spent.set()

    def was_lost(self, reason: Exception) -> None:
        """
        The mux has ended.
        """
        if isinstance(reason, (IllegalFrame, PeerWentAway)):
            word = "protocol"
        else:
            word = "silent" if "no sign of life" in str(reason) else "lost"
        self.spend(word, str(reason))
        self.lost.set()

    def let_end(self, reactor: Any, patience: float | None) -> Deferred[None]:
        """
        Take no new streams, let those that run end, within ``patience`` seconds if given, then close; fires when it is closed.
        """
        return Deferred.fromCoroutine(self._end(reactor, patience))

    async def _end(self, reactor: Any, patience: float | None) -> None:
        mux = self.mux
        if mux is None or self.lost.happened:
            return
        mux.go_away()
        idle = mux.when_idle()
        if patience is not None:
            idle.addTimeout(patience, reactor)
        try:
            await idle
        except TimeoutError:
            self.log.warn("{streams} streams through {server} are cut", streams=mux.streams, server=self.server)
        if self.lost.happened:
            return
        if mux.streams:
            mux.abort("the time for draining is over")
            return
        close_link(mux)
        try:
            await self.lost.wait().addTimeout(CLOSE_TIMEOUT, reactor)
        except TimeoutError:
            mux.abort("the other side does not close")
