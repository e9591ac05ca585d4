"""
Tests of :mod:`yurt.tunnel.agent.names`.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from yurt.tunnel.agent.names import Names


@implementer(IHostnameResolver)
class FakeResolver:
    """
    Answers when the test says so.
    """

    def __init__(self) -> None:
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
        return None  # type: ignore[return-value]  # nobody looks at it

    def answer(self, *addresses: IAddress) -> None:
        """
        To the oldest question.
        """
        _, receiver = self.asked.pop(0)
        for address in addresses:
            receiver.addressResolved(address)
        receiver.resolutionComplete()


class NamesTests(SynchronousTestCase):
    """
    Tests of Names.
    """

    def setUp(self) -> None:
        self.resolver = FakeResolver()
        self.reactor = Clock()
        setattr(self.reactor, "nameResolver", self.resolver)
        self.names = Names(self.reactor)

    def test_all_addresses(self) -> None:
        """
        All addresses of a name are given, each once, in their order.
        """
        looking = self.names.addresses("tunnel.test")
        self.assertNoResult(looking)
        one, two = IPv4Address("TCP", "10.0.0.1", 0), IPv6Address("TCP", "fd00::1", 0)
        self.resolver.answer(two, one, two)
        self.assertEqual(self.successResultOf(looking), ("fd00::1", "10.0.0.1"))

    def test_anew(self) -> None:
        """
        Each question is asked anew.
        """
        for address in ("10.0.0.1", "10.0.0.2"):
            looking = self.names.addresses("tunnel.test")
            self.resolver.answer(IPv4Address("TCP", address, 0))
            self.assertEqual(self.successResultOf(looking), (address,))

    def test_unknown(self) -> None:
        """
        A name that is unknown has no addresses.
        """
        looking = self.names.addresses("nowhere.invalid")
        self.resolver.answer()
        self.assertEqual(self.successResultOf(looking), ())

    def test_resolver_away(self) -> None:
        """
        When nobody answers any more, the addresses of the time before are given after a moment.
        """
        self.names.addresses("tunnel.test")
        self.resolver.answer(IPv4Address("TCP", "10.0.0.1", 0))
        looking = self.names.addresses("tunnel.test")
        self.assertNoResult(looking)
        self.reactor.advance(1.0)
        self.assertEqual(self.successResultOf(looking), ("10.0.0.1",))

    def test_cancel(self) -> None:
        """
        Who gives up hears no late answer.
        """
        looking = self.names.addresses("tunnel.test")
        looking.cancel()
        self.failureResultOf(looking, CancelledError)
        self.resolver.answer(IPv4Address("TCP", "10.0.0.1", 0))
