"""
Names of hosts, looked up so that a dead DNS server does not keep a live host from being reached.

The system's resolver waits many seconds for each server that is silent, in a thread that nobody can stop, and without a
network every look-up ends so.  So there is at most one look-up of a name at a time, and who waits for it longer than a moment
gets the addresses of the time before.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    Asks ``resolver`` and remembers.
    """

    def __init__(self, resolver: IHostnameResolver, clock: IReactorTime) -> None:
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
        self._resolver.resolveHostName(lookup, *key)
        return lookup

    def _completed(self, key: _Key, lookup: _Lookup) -> None:
        del self._lookups[key]
        if lookup.addresses:
            self._remembered[key] = lookup.addresses
            if len(self._remembered) > MAX_NAMES:
                del self._remembered[next(iter(self._remembered))]
        for waiting in lookup.waiting:
            waiting.tell(self._remembered.get(key, []))

    def _lose_patience(self, key: _Key, waiting: _Waiting) -> None:
        if key in self._lookups:
            self._lookups[key].waiting.remove(waiting)
        waiting.tell(self._remembered.get(key, []))
