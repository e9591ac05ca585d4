"""
Connections to the ClusterIP of the API server, which kube-proxy leads to the hub's HTTPS door: their bytes are passed to an API
server unread.

Their clients know the API server by its ClusterIP, or as ``kubernetes.default.svc``, and the hub's certificate bears neither: who
has such a certificate could pose as the API server.  So TLS goes on to the API server itself, as far as there is a way to it.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.host.destination import local_destination, original_destination
from yurt.http.address import parse_address
from yurt.http.arrival import Arrival
from yurt.http.dial import Build, dial
from yurt.http.environment import proxy_for
from yurt.http.failures import describe
from yurt.http.interfaces import UpstreamError
from yurt.http.upgrade import StreamConnection, join
from yurt.hub.cloud import Cloud, Server

DIAL_TIMEOUT = 5.0
"""Seconds that the way to a server may take."""


class PassThrough:
    """
    Passes connections on, at most ``limit`` at once.

    When the cloud goes away they are cut, as are the hub's own connections to it; while it is away new ones are reset.
    """

    log = Logger()

    def __init__(self, reactor: Any, cloud: Cloud, limit: int) -> None:
        self.connections: set[Led] = set()
        self.taken = 0
        """Connections that came, from the start."""
        self.failed = 0
        """Those of them that were not passed on."""
        self.problem = ""
        """Why the last of these was not."""
        self._reactor = reactor
        self._cloud = cloud
        self._limit = limit
        cloud.subscribe(lambda reachable: None if reachable else self.stop())

    def before(self, factory: IProtocolFactory) -> IProtocolFactory:
        """
        A listener's factory that gives ``factory`` what was meant for the hub itself.
        """
        return cast(IProtocolFactory, _Sorting(self, factory))

    def is_led(self, connection: socket.socket) -> bool:
        """
        Whether a rule led this connection here.
        """
        going = original_destination(connection)
        return going is not None and going != local_destination(connection)

    def take(self) -> Led | None:
        """
        What carries one more connection; None when there are too many.
        """
        self.taken += 1
        if len(self.connections) < self._limit:
            return Led(self)
        self.fail(f"there are {self._limit} already")
        return None

    def fail(self, problem: str) -> None:
        """
        A connection could not be passed on.
        """
        self.failed += 1
        self.problem = problem

    def status(self) -> dict[str, object]:
        """
        All of that for people.
        """
        return {"open": len(self.connections), "taken": self.taken, "failed": self.failed, "lastProblem": self.problem}

    async def open(self) -> StreamConnection:
        """
        A connection to a server that is well.  Raises UpstreamError.
        """
        server = self._cloud.pick()
        if server is None:
            raise UpstreamError(f"the cloud is away: {self._cloud.reason}", sent=False)
        try:
            return await self._dial(server)
        except CancelledError:
            raise
        except Exception as error:  # of many kinds: names, sockets, proxies
            other = self._cloud.other([server])
            if other is None:
                raise UpstreamError(f"{server.name}: {describe(Failure(error))}", sent=False) from error
            return await self._dial(other)

    async def _dial(self, server: Server) -> StreamConnection:
        factory = Build(lambda _: StreamConnection())
        dialling = dial(
            self._reactor, parse_address(server.name), factory, None, proxy_for(server.name, os.environ), DIAL_TIMEOUT
        )
        return cast(StreamConnection, await dialling)

    def stop(self) -> None:
        """
        Cut them all.
        """
        for one in list(self.connections):
            one.cut()


class Led(StreamConnection):
    """
    A client's connection, and the one to the server that it is joined with.
    """

    log = Logger()

    def __init__(self, passing: PassThrough) -> None:
        self._passing = passing
        self._opening: Deferred[None] | None = None

    def connectionMade(self) -> None:
        """
        Find a server.
        """
        super().connectionMade()
        self._passing.connections.add(self)
        self._opening = Deferred.fromCoroutine(self._join())
        self._opening.addErrback(self._failed)

    async def _join(self) -> None:
        there = await self._passing.open()
        self._opening = None
        join(self.stream, there.stream)

    def _failed(self, failure: Failure) -> None:
        self._opening = None
        if failure.check(CancelledError) is None:  # its client waits still
            self._passing.fail(failure.getErrorMessage())
            self.log.debug("a connection to the ClusterIP was not passed on: {why}", why=failure.getErrorMessage())
        self.cut()

    def cut(self) -> None:
        """
        Reset the client; the server's side goes with it.
        """
        self.stream.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The client is gone.
        """
        self._passing.connections.discard(self)
        if self._opening is not None:
            self._opening.cancel()
        super().connectionLost(reason)


class _Sorting(Factory):
    """
    See :meth:`PassThrough.before`.
    """

    noisy = False

    def __init__(self, passing: PassThrough, factory: IProtocolFactory) -> None:
        self.passing = passing
        self.factory = factory

    def doStart(self) -> None:
        super().doStart()
        self.factory.doStart()

    def doStop(self) -> None:
        super().doStop()
        self.factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return Arrival(partial(self._choose, addr))

    def _choose(self, addr: IAddress | None, wire: Any) -> IProtocol | None:
        if self.passing.is_led(wire.getHandle()):
            inner = cast("IProtocol | None", self.passing.take())
        else:
            inner = self.factory.buildProtocol(cast(IAddress, addr))
        if inner is None:
            wire.abortConnection()
        return inner
