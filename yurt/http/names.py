"""
Names of hosts, looked up so that a dead DNS server does not keep a live host from being reached.

The system's resolver waits many seconds for each server that is silent, in a thread that nobody can stop, and without a
network every look-up ends so.  So there is at most one look-up of a name at a time, and who waits for it longer than a moment
gets the addresses of the time before, also those of the time before a restart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IReactorTime,
    IResolutionReceiver,
)
from zope.interface import implementer

LOOKUP_PATIENCE = 0.3
"""Seconds after which the addresses of the time before are taken, if there are any."""
MAX_NAMES = 64
"""Names whose addresses are remembered; the one looked up first is forgotten first."""

MAX_ADDRESSES = 32
"""Addresses of one name that outlive a restart."""
KEPT_KIND = [None, "TCP"]
"""The kind of question whose answer does: any addresses, for TCP."""


class Memory(Protocol):
    """
    Where things are remembered over a restart.
    """

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None: ...


_Key = tuple[str, int, tuple[type[IAddress], ...] | None, str]


@implementer(IHostResolution)
class _Waiting:
    """
    One who wants to know; ``resolution`` as Twisted calls it.
    """

    def __init__(self, name: str, receiver: IResolutionReceiver) -> None:
        self.name = name
        self.timer: IDelayedCall | None = None
        self._receiver: IResolutionReceiver | None = receiver

    def cancel(self) -> None:
        """
        Be told nothing more.
        """
        self._receiver = None
        self._end_timer()

    def tell(self, addresses: Sequence[IAddress]) -> None:
        """
        Answer, once.
        """
        receiver, self._receiver = self._receiver, None
        self._end_timer()
        if receiver is not None:
            for address in addresses:
                receiver.addressResolved(address)
            receiver.resolutionComplete()

    def _end_timer(self) -> None:
        if self.timer is not None and self.timer.active():
            self.timer.cancel()


@implementer(IResolutionReceiver)
class _Lookup:
    """
    One look-up by the resolver beneath, for all who wait.
    """

    def __init__(self) -> None:
        self.waiting: list[_Waiting] = []
        self.addresses: list[IAddress] = []
        self.complete = False
        self.completed = lambda: None

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """
        Of no interest.
        """

    def addressResolved(self, address: IAddress) -> None:
        self.addresses.append(address)

    def resolutionComplete(self) -> None:
        self.complete = True
        self.completed()


@implementer(IHostnameResolver)
class RememberingResolver:
    """
    Asks ``resolver`` and remembers; in ``memory``, too, if there is one.
    """

    def __init__(self, resolver: IHostnameResolver, clock: IReactorTime, memory: Memory | None = None) -> None:
        self._memory = memory
        self._resolver = resolver
        self._clock = clock
        self._lookups: dict[_Key, _Lookup] = {}
        self._remembered: dict[_Key, list[IAddress]] = {}

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """
        As :meth:`twisted.internet.interfaces.IHostnameResolver.resolveHostName`; what it returns can be cancelled.
        """
        key = (hostName, portNumber, None if addressTypes is None else tuple(addressTypes), transportSemantics)
        waiting = _Waiting(hostName, resolutionReceiver)
        resolutionReceiver.resolutionBegan(waiting)
        if key not in self._remembered:
            self._recall(key)
        lookup = self._lookups.get(key) or self._look_up(key)
        if lookup.complete:
            waiting.tell(self._remembered.get(key, []))
            return waiting
        lookup.waiting.append(waiting)
        if key in self._remembered:
            waiting.timer = self._clock.callLater(LOOKUP_PATIENCE, self._lose_patience, key, waiting)
        return waiting

    def _look_up(self, key: _Key) -> _Lookup:
        lookup = self._lookups[key] = _Lookup()
        lookup.completed = lambda: self._completed(key, lookup)
        if _can_be_asked(key[0]):
            self._resolver.resolveHostName(lookup, *key)
        else:
            lookup.resolutionComplete()
        return lookup

    def _completed(self, key: _Key, lookup: _Lookup) -> None:
        del self._lookups[key]
        if lookup.addresses:
            self._remembered[key] = lookup.addresses
            self._keep(key, lookup.addresses)
            if len(self._remembered) > MAX_NAMES:
                del self._remembered[next(iter(self._remembered))]
        for waiting in lookup.waiting:
            waiting.tell(self._remembered.get(key, []))

    def _keep(self, key: _Key, addresses: Sequence[IAddress]) -> None:
        """
        Put the addresses of a name where they outlive a restart; in an order of their own, as servers turn them about.
        """
        name, _, *kind = key
        hosts = sorted({one.host for one in addresses if isinstance(one, IPv4Address | IPv6Address)})
        if self._memory is not None and kind == KEPT_KIND and not isIPAddress(name) and not isIPv6Address(name):
            self._memory.put(_memory_key(name), json.dumps(hosts[:MAX_ADDRESSES]).encode())

    def _recall(self, key: _Key) -> None:
        name, port, *kind = key
        kept = self._memory.get(_memory_key(name)) if self._memory is not None and kind == KEPT_KIND else None
        try:
            hosts = json.loads(kept or b"[]")
        except ValueError:
            return
        found: list[IAddress] = []
        for host in hosts if isinstance(hosts, list) else ():
            if isinstance(host, str) and isIPAddress(host):
                found.append(IPv4Address("TCP", host, port))
            elif isinstance(host, str) and isIPv6Address(host):
                found.append(IPv6Address("TCP", host, port))
        if found:
            self._remembered[key] = found

    def _lose_patience(self, key: _Key, waiting: _Waiting) -> None:
        if key in self._lookups:
            self._lookups[key].waiting.remove(waiting)
        waiting.tell(self._remembered.get(key, []))


def _can_be_asked(name: str) -> bool:
    """
    Whether a name can be put into a question at all.  The socket module raises for one that cannot, with an empty or an
    overlong part, and the reactor's resolver then never answers.
    """
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def _memory_key(name: str) -> bytes:
    return b"addresses of " + name.encode()
