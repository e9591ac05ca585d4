"""
The ways to the servers: a name, its addresses, and what is done to stay connected to each.

    connecting ──> connected ──> (lost, or the server leaves) ──> connecting
        │              └──> covered: a newer link leads to the same server
        └──> waiting ──> next attempt

A server that is reached by two addresses keeps the newer link, as it does itself; the older one lets its streams end.  Its
route rests until the other one fails to come back.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from yurt.tunnel.agent.links import LOOK, Event, Link
from yurt.tunnel.agent.patience import MAX_WAIT, STABLE_AFTER, wait_before
from yurt.tunnel.connect import NAME_UNKNOWN, authority
from yurt.tunnel.link import LinkError

if TYPE_CHECKING:
    from yurt.tunnel.agent.connector import Connector

LOOK_UP_INTERVAL = 60.0
"""Seconds after which a name is looked up though nothing failed: it may have got another address."""

MAX_ADDRESSES = 16
"""Addresses of one name that are connected to."""

CONNECTING, CONNECTED, WAITING, COVERED, GONE = "connecting", "connected", "waiting", "covered", "gone"


class Endless:
    """
    Something that is done until it is stopped.
    """

    log = Logger()

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self._running: Deferred[None] | None = None

    def start(self) -> None:
        """
        Begin.
        """
        self._running = Deferred.fromCoroutine(self._forever())
        self._running.addErrback(lambda failure: failure.trap(CancelledError) and None)

    def stop(self) -> None:
        """
        Do no more.
        """
        if self._running is not None:
            self._running.cancel()

    def hurry(self) -> None:
        """
        Begin anew, instead of what is waited for.
        """
        Endless.stop(self)
        self.start()

    async def _forever(self) -> None:
        while True:
            try:
                await self.run()
                return
            except CancelledError:
                raise
            except Exception:
                self.log.failure("An attempt to connect broke off; it is begun again")
            await self.connector.sleep(MAX_WAIT)

    async def run(self) -> None:
        """
        What is done.
        """
        raise NotImplementedError


class Route(Endless):
    """
    One address of one server.
    """

    log = Logger()

    def __init__(self, connector: Connector, name: Name, address: str) -> None:
        super().__init__(connector)
        self.name = name
        self.address = address
        self.server = name.label if address == name.host else f"{name.server} ({address})"
        self.state = CONNECTING
        self.since = time.time()
        self.problem: str | None = None
        """Why the last attempt failed or the last link ended; None while connected."""
        self.link: Link | None = None
        self._changed = Event()
        self._failures = 0
        self._reported = ""
        """Why a link was last to be made anew and could not be."""

    async def run(self) -> None:
        """
        Connect, and stay connected as long as the name has this address.
        """
        while True:
            await self.name.look_up()
            if self.address not in self.name.addresses:
                self._turn(GONE)
                self.name.forget(self)
                return
            try:
                link: Link | None = await self.connector.dial(self)
            except LinkError as error:
                await self._fail(error)
            else:
                while link is not None:
                    link = await self._use(link)

    async def _fail(self, error: LinkError) -> None:
        self._failures += 1
        self.connector.metrics.connect_failed(error.word)
        report = self.log.warn if str(error) != self.problem else self.log.debug
        report("no connection: {error}", error=str(error))
        self.problem = str(error)
        if self.state != WAITING:
            self._turn(WAITING)
        await self._wait(answered=error.answered, silent=error.silent, retry_after=error.retry_after)

    async def _wait(self, **how: Any) -> None:
        await self.connector.sleep(wait_before(max(1, self._failures), self.connector.chance(), **how))

    async def _use(self, link: Link) -> Link | None:
        """
        Until it is spent; answers the link that has taken its place, if one has.
        """
        began = self.connector.now()
        self.link, self.problem, self._reported = link, None, ""
        self.connector.metrics.connected()
        self.log.info("connected to {server}", server=self.server)
        self._turn(CONNECTED)
        self.connector.replace_older(self, link)
        newer = await self._wear_out(link)
        self.connector.metrics.ended(link.word)
        if newer is not None:
            return newer
        self.problem = link.why
        self.log.info("no longer connected to {server}: {why}", server=self.server, why=link.why)
        if link.successor is not None:
            await self._rest(link.successor)
        self._failures = 0 if self.connector.now() - began >= STABLE_AFTER else self._failures + 1
        self._turn(CONNECTING)
        await self._wait()
        return None

    async def _wear_out(self, link: Link) -> Link | None:
        """
        Until ``link`` is spent, at the latest when a certificate of either side has expired; answers the link that was made to
        take its place in time, or because this host has another address now.
        """
        while not await self.connector.happens(link.spent.wait(), LOOK):
            now = self.connector.time_of_day()
            if now >= link.valid_until:
                link.spend("expired", "a certificate of it, the agent's or the server's, has expired")
                self.connector.let_end(link)
            elif why := link.outdated(now, self.connector.own_addresses()):
                newer = await self._renew(link, why)
                if newer is not None:
                    return newer
        return None

    async def _renew(self, link: Link, why: str) -> Link | None:
        try:
            newer = await self.connector.dial(self)
        except LinkError as error:
            report = self.log.debug if why == self._reported else self.log.warn
            report("{why}, and another link could not be made yet: {error}", why=why, error=str(error))
            self._reported = why
            link.wear(self.connector.time_of_day(), self.connector.chance())
            return None
        link.spend("renewed", f"another one has taken its place: {why}")
        self.log.info("{server}: the link is made anew: {why}", server=self.server, why=why)
        self.connector.outlast(link)
        return newer

    async def _rest(self, other: Route) -> None:
        """
        Wait until ``other``, which leads to the same server, has failed to come back.
        """
        self._turn(COVERED)
        while other.state in (CONNECTED, CONNECTING, COVERED):
            await other.changed()

    def changed(self) -> Deferred[None]:
        """
        Fires at the next change of ``state``.
        """
        return self._changed.wait()

    def _turn(self, state: str) -> None:
        self.state = state
        self.since = time.time()
        changed, self._changed = self._changed, Event()
        changed.set()

    def status(self) -> dict[str, object]:
        """
        For people.
        """
        status: dict[str, object] = {
            "server": self.name.server,
            "address": self.address,
            "state": self.state,
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.since)),
            "problem": self.problem,
        }
        link = self.link
        if self.state == CONNECTED and link is not None and link.info is not None and link.mux is not None:
            status |= {
                "serverId": link.server_id,
                "version": link.info.server,
                "streams": link.mux.streams,
                "bytesReceived": link.mux.bytes_received,
                "bytesSent": link.mux.bytes_sent,
                "roundTripSeconds": link.mux.rtt,
            }
        return status


class Name(Endless):
    """
    A server as the operator wrote it.  The name of one that is ``proxied`` is looked up by the proxy.
    """

    log = Logger()

    def __init__(self, connector: Connector, host: str, port: int, *, proxied: bool = False) -> None:
        super().__init__(connector)
        self.host = host
        self.port = port
        self.server = authority(host, port)
        self.label = f"{self.server} (by proxy)" if proxied else self.server
        self.routes: dict[str, Route] = {}
        self.addresses: tuple[str, ...] = ()
        self.problem: str | None = None
        self._fixed = proxied or isIPAddress(host) or isIPv6Address(host)

    def stop(self) -> None:
        """
        Try no more.  Links that are there stay.
        """
        super().stop()
        for route in list(self.routes.values()):
            route.stop()

    def hurry(self) -> None:
        """
        Look and try again now, wherever an attempt is waited for.
        """
        super().hurry()
        for route in list(self.routes.values()):
            if route.state == WAITING:
                route.hurry()

    async def run(self) -> None:
        """
        Keep looking, for a name may get another address.
        """
        failures = 0
        while True:
            await self.look_up()
            if self.addresses:
                await self.connector.sleep(LOOK_UP_INTERVAL)
                continue
            failures += 1
            self.connector.metrics.connect_failed(NAME_UNKNOWN)
            await self.connector.sleep(wait_before(failures, self.connector.chance()))

    async def look_up(self) -> None:
        """
        Look up the addresses anew, and begin to connect to those that are new.
        """
        found = (self.host,) if self._fixed else await self.connector.names.addresses(self.host)
        if found:
            self.problem = None
            self._take(found[:MAX_ADDRESSES])
        elif not self.addresses:
            if self.problem is None:
                self.log.warn("{server}: the name is unknown", server=self.server)
            self.problem = f"{self.server}: the name is unknown"

    def _take(self, found: tuple[str, ...]) -> None:
        self.addresses = found
        for address in found:
            if address not in self.routes:
                route = self.routes[address] = Route(self.connector, self, address)
                route.start()

    def forget(self, route: Route) -> None:
        """
        An address is no longer one of this name.
        """
        self.routes.pop(route.address, None)
