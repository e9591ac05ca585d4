"""
Names looked up anew each time, without being kept waiting by a name server that is away.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from yurt.http.names import RememberingResolver


class Names:
    """
    Addresses by name, from the reactor's resolver; from the time before when that does not answer.
    """

    def __init__(self, reactor: Any) -> None:
        self._resolver = RememberingResolver(reactor.nameResolver, reactor)

    def addresses(self, name: str) -> Deferred[tuple[str, ...]]:
        """
        Fires with all addresses of ``name``, each once, in the resolver's order; none for a name that is unknown.
        """
        receiver = _Receiver()
        self._resolver.resolveHostName(receiver, name)
        return receiver.complete


@implementer(IResolutionReceiver)
class _Receiver:
    """
    Collects the addresses.
    """

    def __init__(self) -> None:
        self._found: dict[str, None] = {}
        self._resolution: IHostResolution | None = None
        self.complete: Deferred[tuple[str, ...]] = Deferred(self._cancel)

    def _cancel(self, _: object) -> None:
        if self._resolution is not None:
            self._resolution.cancel()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._resolution = resolutionInProgress

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, (IPv4Address, IPv6Address)):
            self._found[address.host] = None

    def resolutionComplete(self) -> None:
        if not self.complete.called:
            self.complete.callback(tuple(self._found))
