"""
Listeners that start and stop with a daemon, and fail its start when they must.

``StreamServerEndpointService`` only logs that a port was taken, and the daemon runs on without listener.  What is here
either listens or says why not.
"""

from __future__ import annotations

import errno
import socket
import time
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.abstract import isIPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IReactorTCP,
    IStreamServerEndpoint,
)
from twisted.internet.tcp import Port
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.connected import Connected
from yurt.sockets import set_usual_options

log = Logger()

MAX_ACCEPTS = 64
"""Connections that a listener accepts in one turn of the reactor, at most."""
IN_A_ROW = 0.05
"""Seconds after a turn of a listener within which its next one is of the same row."""
BACKLOG = 4096
"""Connections that the kernel holds for a listener until they are accepted; it may have been told to hold fewer."""

ADVICE: dict[int | None, str] = {
    errno.EADDRINUSE: "end the process that holds it or choose another address",
    errno.EADDRNOTAVAIL: "choose an address that this machine has",
    errno.EACCES: "choose a port from 1024 on, or run it as root",
}
"""What to do about a socket that cannot be bound, by the system's error."""


# twistd takes its pid file away and reports to the parent process only for an Exception; the interpreter prints one line
# instead of a traceback only for a SystemExit.  This is both.
class StartFailed(SystemExit, Exception):
    """
    The daemon cannot start; the message says what failed, on which object, and why.
    """


def tcp_endpoint(reactor: IReactorTCP, address: str, port: int) -> IStreamServerEndpoint:
    """
    An endpoint that listens on an IPv4 or IPv6 address.
    """
    kind = TCP6ServerEndpoint if isIPv6Address(address) else TCP4ServerEndpoint
    return cast(IStreamServerEndpoint, kind(reactor, port, backlog=BACKLOG, interface=address))


def accept_simply(port: IListeningPort) -> None:
    """
    Let a TCP listener accept in fewer steps than Twisted's, which prepares at each for logging what may be the matter.  Where
    that fails, for want of descriptors perhaps, Twisted meets the same a moment later, and deals with it.  What the caller has
    said meanwhile is read in the same turn.

    It accepts one connection a turn; when these come one after the other, twice as many with each turn, up to MAX_ACCEPTS: of
    thousands at once the last must not wait for as many turns.
    """
    if type(port) is Port:
        long_way = port.doRead
        listening = port.socket
        family = int(listening.family)
        set_usual_options(listening)

        batch, until = 1, 0.0

        def accept() -> None:
            nonlocal batch, until
            batch = min(2 * batch, MAX_ACCEPTS) if time.monotonic() < until else 1
            for _ in range(batch):
                try:
                    descriptor, address = cast(Any, listening)._accept()
                except BlockingIOError:
                    until = 0.0
                    return
                except OSError:
                    long_way()
                    return
                _begin(port, socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, descriptor), address)
                if port.disconnecting:
                    return
            until = time.monotonic() + IN_A_ROW

        port.doRead = accept  # type: ignore[method-assign]


def _begin(port: Any, handle: socket.socket, address: tuple[Any, ...]) -> None:
    wire = None
    try:
        if len(address) == 4:  # so that a link-local one has its zone
            host, _ = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
            address = (host, *address[1:])
        made = Connected(handle, address, port.reactor)
        protocol = port.factory.buildProtocol(made.getPeer())
        if protocol is not None:
            wire = made
            wire.begin(protocol)
            _read_at_once(port.reactor, wire)
    except Exception:
        log.failure("a connection to port {port} could not be taken", port=port._realPortNumber)
        if wire is not None:
            wire.abortConnection()
    if wire is None:
        handle.close()


def _read_at_once(reactor: object, wire: Connected) -> None:
    if isinstance(reactor, EPollReactor) and wire.fileno() in reactor._reads:
        why = wire.doRead()
        if why is not None:
            reactor._disconnectSelectable(wire, why, True)


class Listen(Service):
    """
    Listen on ``endpoint`` from the start of the daemon to its stop; ``what`` names the listener for messages.

    A failure to bind raises :exc:`StartFailed` out of the start, so that twistd ends with a message and status 1.
    """

    log = Logger()

    def __init__(self, endpoint: IStreamServerEndpoint, factory: IProtocolFactory, what: str) -> None:
        self.endpoint = endpoint
        self.factory = factory
        self.what = what
        self.port: IListeningPort | None = None
        self.problem: str | None = None
        """Why it does not listen; None while it does, and before it was to."""
        self.advice = "choose another address"
        """What to do about the problem."""

    @property
    def address(self) -> IAddress | None:
        """
        Where it listens, None while it does not.
        """
        return None if self.port is None else self.port.getHost()

    def privilegedStartService(self) -> None:
        """
        Bind, or raise :exc:`StartFailed`.
        """
        super().privilegedStartService()
        if not self.start_listening():
            # The parent process of a daemon shows no more than 100 characters: what and why come first.
            raise StartFailed(f"{self.problem}; {self.advice}")

    def startService(self) -> None:
        """
        Bind unless that is done: some runners leave the privileged start out.
        """
        super().startService()
        if self.port is None:
            self.privilegedStartService()

    def stopService(self) -> Deferred[None]:
        """
        Accept no more; connections that are open stay so.
        """
        super().stopService()
        return self.stop_listening()

    def start_listening(self) -> bool:
        """
        Bind now; true when it listens, else ``problem`` says why not.
        """
        if self.port is not None:
            return True
        outcome: list[IListeningPort | Failure] = []
        waiting = self.endpoint.listen(self.factory)
        waiting.addBoth(outcome.append)
        if not outcome:
            waiting.cancel()
            self.problem = f"{self.what}: the endpoint does not bind at once"
        elif isinstance(outcome[0], Failure):
            error = getattr(outcome[0].value, "socketError", outcome[0].value)
            code = error.errno if isinstance(error, OSError) else None
            self.problem = f"{self.what}: {_reason(outcome[0])}"
            self.advice = ADVICE.get(code, self.advice)
        else:
            self.port, self.problem = outcome[0], None
            accept_simply(self.port)
            self.log.info("listening for {what}", what=self.what)
        return self.port is not None

    def stop_listening(self) -> Deferred[None]:
        """
        Close the port; fires when it is closed.
        """
        port, self.port = self.port, None
        stopped = None if port is None else port.stopListening()
        return succeed(None) if stopped is None else stopped


class ListenLater(Listen):
    """
    A listener whose address may appear, vanish and come back.

    Nothing happens at the start, and a failure is only told in ``problem``.
    """

    def privilegedStartService(self) -> None:
        """
        Wait for :meth:`start_listening`.
        """
        Service.privilegedStartService(self)

    def startService(self) -> None:
        """
        Wait for :meth:`start_listening`.
        """
        Service.startService(self)


def _reason(failure: Failure) -> str:
    error = getattr(failure.value, "socketError", failure.value)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return failure.getErrorMessage()
