"""
Tests for :mod:`yurt.host.probe`, on the loopback link that every machine has.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from yurt.host.probe import usable_addresses


class UsableAddressesTests(SynchronousTestCase):
    """
    Tests for :func:`usable_addresses`.
    """

    def test_present(self) -> None:
        """
        Addresses the link has are found among others; those it has not are not.
        """
        self.assertEqual(usable_addresses("lo", ("192.0.2.1", "127.0.0.1", "2001:db8::1")), ("127.0.0.1",))

    def test_no_link(self) -> None:
        """
        A link that is not there has no address.
        """
        self.assertEqual(usable_addresses("yt-absent0", ("127.0.0.1", "::1")), ())
