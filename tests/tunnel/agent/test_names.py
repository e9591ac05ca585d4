"""
Tests of :mod:`yurt.tunnel.agent.names`.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.http.resolver import SlowResolver
from yurt.tunnel.agent.names import Names


class NamesTests(SynchronousTestCase):
    """
    Tests of Names.
    """

    def setUp(self) -> None:
        self.resolver = SlowResolver()
        self.reactor = Clock()
        setattr(self.reactor, "nameResolver", self.resolver)
        self.names = Names(self.reactor)

    def test_all_addresses(self) -> None:
        """
        All addresses of a name are given, each once, in their order.
        """
        looking = self.names.addresses("tunnel.test")
        self.assertNoResult(looking)
        self.resolver.answer("fd00::1", "10.0.0.1", "fd00::1")
        self.assertEqual(self.successResultOf(looking), ("fd00::1", "10.0.0.1"))

    def test_anew(self) -> None:
        """
        Each question is asked anew.
        """
        for address in ("10.0.0.1", "10.0.0.2"):
            looking = self.names.addresses("tunnel.test")
            self.resolver.answer(address)
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
        self.resolver.answer("10.0.0.1")
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
        self.resolver.answer("10.0.0.1")
