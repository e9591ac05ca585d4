"""
A resolver in the place of the reactor's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer


@implementer(IHostnameResolver)
class SlowResolver:
    """
    Answers when it is told to, with addresses of that ``port``.
    """

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self.asked: list[tuple[str, IResolutionReceiver]] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        self.asked.append((hostName, resolutionReceiver))
        resolution: Any = object()
        resolutionReceiver.resolutionBegan(resolution)
        return resolution  # type: ignore[no-any-return]  # nobody looks at it

    def answer(self, *addresses: str) -> None:
        """
        To the oldest question; none at all is a failure.
        """
        _, receiver = self.asked.pop(0)
        for address in addresses:
            kind = IPv6Address if ":" in address else IPv4Address
            receiver.addressResolved(kind("TCP", address, self._port))
        receiver.resolutionComplete()
