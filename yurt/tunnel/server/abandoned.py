"""
Connections that their caller has left while what it sent cannot be passed on, as the node takes nothing.  They are not read, so
the end behind those bytes is not seen; and a caller's kernel cannot even send it before there is room.
"""

from __future__ import annotations

import fcntl
import select
import struct
import termios
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall
from twisted.protocols.tls import TLSMemoryBIOProtocol

from yurt.host.destination import Destination, is_own_address, plain_address
from yurt.host.owned import without_owner
from yurt.http.wire import is_tls

LOOK = 5.0
"""Seconds between two looks at the connections that are not read."""

PATIENCE = 30.0
"""Seconds for which nothing of an abandoned connection was passed on after which it is reset."""

LINGER = 60.0
"""The same where all has been passed on: what the node still has to read is not seen here."""


@dataclass(frozen=True, slots=True)
class Open:
    """
    A connection of a caller: its transport, whether its end was read already, and a number that changes when something is passed
    on to the node.
    """

    wire: Any
    ended: bool
    passed_on: int = 0


class Abandoned(Service):
    """
    Resets the connections among ``opened()`` that were abandoned.

    A caller is gone when its kernel says so; when it ended TCP's direction, which with TLS means both; and on this very host when
    the kernel alone has the other end.  One that only waits, however long, is not.  ``report`` is told of each one in a line.
    """

    def __init__(
        self,
        reactor: Any,
        opened: Callable[[], Iterable[Open]],
        report: Callable[[str], object],
        *,
        is_own: Callable[[str], bool] = is_own_address,
    ) -> None:
        self._reactor = reactor
        self._opened = opened
        self._report = report
        self._is_own = is_own
        self._timer: IDelayedCall | None = None
        self._held: set[Any] = set()
        """Those that were not read at the last look."""
        self._since: dict[Any, tuple[tuple[int, int], float]] = {}
        """Of each abandoned one how far it has come, and since when."""

    def startService(self) -> None:
        """
        Look every LOOK seconds.
        """
        super().startService()
        self._timer = self._reactor.callLater(LOOK, self._again)

    def stopService(self) -> None:
        """
        Look no more.
        """
        super().stopService()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _again(self) -> None:
        self._timer = self._reactor.callLater(LOOK, self._again)
        self.look()

    def look(self) -> None:
        """
        Reset what has been abandoned for long enough; what was read at the last look is let be.
        """
        read = set(self._reactor.getReaders())
        held = {tcp: one for one in self._opened() if (tcp := _socket_transport(one.wire)) not in read and tcp.connected}
        now = self._reactor.seconds()
        held_before, self._held = self._held, set(held)
        # One that is just being closed is not read either, and the kernel's tables are long where many come and go.
        stalled = {tcp: one for tcp, one in held.items() if tcp in held_before}
        before, self._since = self._since, {}
        for tcp in self._gone(stalled) if stalled else ():
            one = stalled[tcp]
            come = _unread(tcp), one.passed_on
            known, since = before.get(tcp, (come, now))
            since = since if known == come else now
            patience = LINGER if one.ended else PATIENCE
            if now - since >= patience:
                peer = getattr(tcp.getPeer(), "host", "a socket")
                self._report(f"a caller from {peer} is gone, and for {patience:g} s nothing that it sent was taken: it is reset")
                one.wire.abortConnection()
            else:
                self._since[tcp] = come, since

    def _gone(self, held: dict[Any, Open]) -> list[Any]:
        poller = select.poll()
        files = {tcp.fileno(): tcp for tcp in held}
        for file in files:
            poller.register(file, select.POLLRDHUP)
        ends = {tcp: end for tcp in held if (end := self._own_end(tcp)) is not None}
        orphans = without_owner(set(ends.values()))
        gone = [tcp for tcp, end in ends.items() if end in orphans]
        for file, event in poller.poll(0):
            tcp = files[file]
            closed = event & (select.POLLHUP | select.POLLERR) or is_tls(held[tcp].wire)
            if closed and tcp not in gone:
                gone.append(tcp)
        return gone

    def _own_end(self, tcp: Any) -> Destination | None:
        """
        The other end of a connection, if that is on this host.
        """
        peer = tcp.getPeer()
        host = plain_address(str(getattr(peer, "host", "")))
        return (host, peer.port) if host and self._is_own(host) else None


def _socket_transport(wire: Any) -> Any:
    return wire.transport if isinstance(wire, TLSMemoryBIOProtocol) else wire


def _unread(tcp: Any) -> int:
    """
    Bytes that the kernel holds for us.
    """
    (count,) = struct.unpack("i", fcntl.ioctl(tcp.fileno(), termios.FIONREAD, bytes(4)))
    return int(count)
