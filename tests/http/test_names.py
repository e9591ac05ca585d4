"""
Names are found although the DNS server may be gone.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.http.resolver import SlowResolver
from yurt.http.names import LOOKUP_PATIENCE, MAX_ADDRESSES, MAX_NAMES, RememberingResolver


@implementer(IResolutionReceiver)
class Asker:
    """
    Notes what it is told.
    """

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.began = 0
        self.ended = 0

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self.began += 1

    def addressResolved(self, address: IAddress) -> None:
        assert isinstance(address, IPv4Address | IPv6Address)
        assert address.port == 6443
        self.addresses.append(address.host)

    def resolutionComplete(self) -> None:
        self.ended += 1


class RememberingResolverTests(SynchronousTestCase):
    """
    A resolver that remembers, over a slow one.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.beneath = SlowResolver(6443)
        self.resolver = RememberingResolver(self.beneath, self.clock)
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))

    def ask(self, name: str = "cloud.example") -> tuple[Asker, IHostResolution]:
        asker = Asker()
        return asker, self.resolver.resolveHostName(asker, name, 6443)

    def test_interface(self) -> None:
        """
        It is what a reactor takes for a resolver.
        """
        self.assertTrue(verifyObject(IHostnameResolver, self.resolver))

    def test_first_time(self) -> None:
        """
        A name never seen is waited for, and all its addresses are told, once.
        """
        asker, _ = self.ask()
        self.clock.advance(20.0)
        self.assertEqual((asker.began, asker.ended), (1, 0))
        self.beneath.answer("10.0.0.1", "10.0.0.2")
        self.assertEqual((asker.addresses, asker.ended), (["10.0.0.1", "10.0.0.2"], 1))

    def test_failure(self) -> None:
        """
        A name never seen that cannot be found has no addresses.
        """
        asker, _ = self.ask()
        self.beneath.answer()
        self.assertEqual((asker.addresses, asker.ended), ([], 1))

    def test_no_name(self) -> None:
        """
        What cannot be put into a question is nobody's name, at once, and nobody is asked.
        """
        for name in ("a..b", ".", "a" * 64):
            asker, _ = self.ask(name)
            self.assertEqual((asker.began, asker.addresses, asker.ended), (1, [], 1))
        self.assertEqual(self.beneath.asked, [])

    def test_one_look_up_at_a_time(self) -> None:
        """
        However many ask, the system's resolver is asked once for each name, so that its threads do not run out.
        """
        askers = [self.ask()[0] for _ in range(100)]
        self.ask("other.example")
        self.assertEqual([name for name, _ in self.beneath.asked], ["cloud.example", "other.example"])
        self.beneath.answer("10.0.0.1")
        self.assertTrue(all(asker.addresses == ["10.0.0.1"] for asker in askers))
        self.beneath.answer()

    def test_silent_server(self) -> None:
        """
        When the answer tarries, that of the time before is taken; the late one is remembered, and told to nobody twice.
        """
        self.ask()
        self.beneath.answer("10.0.0.1")
        asker, _ = self.ask()
        self.clock.advance(LOOKUP_PATIENCE)
        self.assertEqual((asker.addresses, asker.ended), (["10.0.0.1"], 1))
        later, _ = self.ask()
        self.beneath.answer("10.0.0.9")
        self.assertEqual((asker.addresses, asker.ended), (["10.0.0.1"], 1))
        self.assertEqual(later.addresses, ["10.0.0.9"])

    def test_failing_server(self) -> None:
        """
        A look-up that fails does not make a known name unknown.
        """
        self.ask()
        self.beneath.answer("10.0.0.1")
        asker, _ = self.ask()
        self.beneath.answer()
        self.assertEqual(asker.addresses, ["10.0.0.1"])

    def test_new_addresses_are_taken(self) -> None:
        """
        With a DNS server that answers nothing is served from memory.
        """
        for address in ("10.0.0.1", "10.0.0.2"):
            asker, _ = self.ask()
            self.beneath.answer(address)
            self.assertEqual(asker.addresses, [address])

    def test_cancel(self) -> None:
        """
        Who gives up is told nothing.
        """
        self.ask()
        self.beneath.answer("10.0.0.1")
        asker, resolution = self.ask()
        resolution.cancel()
        self.clock.advance(1.0)
        self.beneath.answer("10.0.0.1")
        self.assertEqual((asker.addresses, asker.ended), ([], 0))

    def test_bounded(self) -> None:
        """
        Only so many names are remembered.
        """
        for number in range(MAX_NAMES + 1):
            self.ask(f"host-{number}.example")
            self.beneath.answer("10.0.0.1")
        forgotten, _ = self.ask("host-0.example")
        self.beneath.answer()
        kept, _ = self.ask(f"host-{MAX_NAMES}.example")
        self.beneath.answer()
        self.assertEqual((forgotten.addresses, kept.addresses), ([], ["10.0.0.1"]))


class Shelf(dict[bytes, bytes]):
    """
    What outlives a restart; counts what is put there.
    """

    puts = 0

    def put(self, key: bytes, value: bytes) -> None:
        self.puts += 1
        self[key] = value


class RestartTests(SynchronousTestCase):
    """
    What is remembered over a restart.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.memory = Shelf()
        self.beneath = SlowResolver(6443)
        self.start()

    def start(self) -> None:
        """
        A new process, with the same memory.
        """
        self.resolver = RememberingResolver(self.beneath, self.clock, self.memory)

    def ask(self, name: str = "cloud.example") -> Asker:
        asker = Asker()
        self.resolver.resolveHostName(asker, name, 6443)
        return asker

    def test_silent_server(self) -> None:
        """
        After a restart the addresses of the time before stand in for those of a DNS server that is silent, or gone.
        """
        self.ask()
        self.beneath.answer("10.0.0.2", "10.0.0.1", "fd00::1")
        self.start()
        asker = self.ask()
        self.clock.advance(LOOKUP_PATIENCE)
        self.assertEqual((asker.addresses, asker.ended), (["10.0.0.1", "10.0.0.2", "fd00::1"], 1))
        self.start()
        self.beneath.asked.clear()
        asker = self.ask()
        self.beneath.answer()
        self.assertEqual(len(asker.addresses), 3)
        self.assertEqual(self.ask("other.example").addresses, [])

    def test_answering_server(self) -> None:
        """
        One that answers is believed, and its answer is what is remembered.
        """
        self.ask()
        self.beneath.answer("10.0.0.1")
        self.start()
        asker = self.ask()
        self.beneath.answer("10.0.0.9")
        self.assertEqual(asker.addresses, ["10.0.0.9"])
        self.assertEqual(list(self.memory.values()), [b'["10.0.0.9"]'])

    def test_bounded(self) -> None:
        """
        Of a name with very many addresses only so many are kept.
        """
        self.ask()
        self.beneath.answer(*(f"10.0.0.{number}" for number in range(1, 200)))
        self.start()
        asker = self.ask()
        self.beneath.answer()
        self.assertEqual(len(asker.addresses), MAX_ADDRESSES)

    def test_addresses_are_no_names(self) -> None:
        """
        What is an address already is not remembered.
        """
        self.ask("10.0.0.1")
        self.beneath.answer("10.0.0.1")
        self.assertEqual(self.memory.puts, 0)

    def test_damaged_memory(self) -> None:
        """
        What cannot be read is as nothing.
        """
        self.ask()
        self.beneath.answer("10.0.0.1")
        (key,) = self.memory
        for kept in (b"[", b"{}", b"7", b'["x", 7, null]', b"\xff"):
            self.memory[key] = kept
            self.start()
            asker = self.ask()
            self.beneath.answer()
            self.assertEqual((asker.addresses, asker.ended), ([], 1), kept)
