"""
Tests for :mod:`yurt.host.links`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.host.contracts import BOTH, NAME, LinksContract
from tests.host.fakes import FakeLinks
from yurt.host.errors import LinkError
from yurt.host.links import CreateLink, SeenLink, ensure_link, parse_link, plan, plan_removal, remove_link


class FakeLinksTests(LinksContract, SynchronousTestCase):
    """
    The pretended kernel keeps the promises of the real one.
    """

    def setUp(self) -> None:
        self.links = FakeLinks()


class ParseLinkTests(SynchronousTestCase):
    """
    Tests for :func:`parse_link`.
    """

    def test_accepted(self) -> None:
        """
        Addresses are brought into their usual form, each once.
        """
        self.assertEqual(parse_link(NAME, "tap", ("169.254.2.1", "FD00:0::2:1", "fd00::2:1")).addresses, BOTH)

    def test_refused(self) -> None:
        """
        Names the kernel would not take, kinds and addresses that make no sense are refused, and the message names them.
        """
        for name, kind, addresses, named in (
            ("yurthub-dummy-zero", "auto", BOTH, "15 bytes"),
            ("", "auto", BOTH, "15 bytes"),
            ("ä" * 8, "auto", BOTH, "15 bytes"),
            ("a/b", "auto", BOTH, "slash"),
            ("a b", "auto", BOTH, "blank"),
            ("..", "auto", BOTH, "'..'"),
            (NAME, "bridge", BOTH, "bridge"),
            (NAME, "auto", (), "at least one"),
            (NAME, "auto", ("169.254.2.1/32",), "169.254.2.1/32"),
            (NAME, "auto", ("localhost",), "localhost"),
            (NAME, "auto", ("0.0.0.0",), "0.0.0.0"),
            (NAME, "auto", ("fe80::1",), "fe80::1"),
            (NAME, "auto", ("::1",), "::1"),
        ):
            self.assertIn(named, str(self.assertRaises(LinkError, parse_link, name, kind, addresses)))


class PlanTests(SynchronousTestCase):
    """
    Tests for :func:`plan`, :func:`plan_removal` and what applies them.
    """

    wanted = parse_link(NAME, "auto", ("169.254.2.1",))

    def test_kinds(self) -> None:
        """
        ``auto`` prefers a dummy and takes a TAP link elsewhere; a kind asked for by name is the only one tried.
        """
        for kind, kinds in (("auto", ("dummy", "tap")), ("dummy", ("dummy",)), ("tap", ("tap",))):
            self.assertEqual(plan(None, parse_link(NAME, kind, BOTH))[0], CreateLink(NAME, kinds))

    def test_auto_on_kernel_with_dummy(self) -> None:
        """
        Where the kernel has dummy links one is made.
        """
        seen, _, _ = ensure_link(FakeLinks(("dummy", "tap")), self.wanted)
        assert seen is not None
        self.assertEqual(seen.kind, "dummy")

    def test_missing_kind(self) -> None:
        """
        A kernel without the type asked for is a problem that is told; nothing else is tried on a link that is not there.
        """
        seen, changes, problems = ensure_link(FakeLinks(("tap",)), parse_link(NAME, "dummy", BOTH))
        self.assertEqual((seen, changes), (None, []))
        self.assertEqual(len(problems), 1)

    def test_other_kind_of_ours(self) -> None:
        """
        A TAP link is adopted where a dummy is asked for: it carries the address as well.
        """
        seen = SeenLink(NAME, "tap", True, frozenset({"169.254.2.1/32"}))
        self.assertEqual(plan(seen, parse_link(NAME, "dummy", ("169.254.2.1",))), [])

    def test_foreign_link(self) -> None:
        """
        A link of that name that is none of ours is an error that says so; it is neither changed nor removed.
        """
        foreign = SeenLink(NAME, "veth", True, frozenset({"10.0.0.1/24"}))
        message = str(self.assertRaises(LinkError, plan, foreign, self.wanted))
        self.assertIn("kind veth", message)
        self.assertIn("--dummy-if-name", message)
        self.assertEqual(plan_removal(foreign, self.wanted), [])

    def test_foreign_link_that_serves(self) -> None:
        """
        A link made by someone else that is up and has our address is good enough, and stays.
        """
        foreign = SeenLink(NAME, "bridge", True, frozenset({"169.254.2.1/32", "10.0.0.1/24"}))
        self.assertEqual(plan(foreign, self.wanted), [])
        self.assertEqual(plan_removal(foreign, self.wanted), [])

    def test_one_address_refused(self) -> None:
        """
        Where IPv6 is off the IPv4 address still comes, the link is up, and the problem is told.
        """
        links = FakeLinks(refused=("fd00::2:1/128",))
        seen, _, problems = ensure_link(links, parse_link(NAME, "auto", BOTH))
        self.assertEqual(seen, SeenLink(NAME, "tap", True, frozenset({"169.254.2.1/32"})))
        self.assertEqual(len(problems), 1)

    def test_link_local_address(self) -> None:
        """
        The address that the kernel gives every IPv6 link is nobody's: it neither goes nor keeps the link from going.
        """
        links = FakeLinks()
        links.add_foreign(NAME, "dummy", "169.254.2.1/32", "fe80::1/64", up=True)
        self.assertEqual(plan(links.see(NAME), self.wanted), [])
        remove_link(links, self.wanted)
        self.assertIsNone(links.see(NAME))
