"""
Tests for :mod:`yurt.host.chains`.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.host.contracts import KUBELET, RULES, ChainsContract
from tests.host.fakes import FakeChains, apply_edit
from yurt.host import chains
from yurt.host.chains import (
    MAX_DELETIONS,
    Chain,
    ChainSet,
    DeleteText,
    FlushChain,
    SeenChains,
    as_wanted,
    ensure_chains,
    plan,
)
from yurt.host.errors import FirewallError
from yurt.host.firewall import ROUNDS
from yurt.host.tunnel_rules import tunnel_chains

JUMP = '-m comment --comment "us" -j R'
TEXTS = st.sampled_from([f"-d 10.0.0.{n}/32 -j RETURN" for n in range(6)])
TAILS = st.sampled_from(["-j DNAT --to-destination 10.0.0.1:1", "-j DNAT --to-destination 10.0.0.1:2"])
NAMES = st.sampled_from(["R", "R-1", "R-2", "R-3"])


@st.composite
def wanted_sets(draw: st.DrawFn) -> ChainSet:
    """
    Sets of up to four chains, the root among them, with a few rules each.
    """
    names = draw(st.lists(NAMES, unique=True))
    names += ["R"] if names and "R" not in names else []
    made = [Chain(name, tuple(draw(st.lists(TEXTS, unique=True))), tuple(draw(st.lists(TAILS, max_size=2)))) for name in names]
    return ChainSet("nat", "R", "OUTPUT", "us", JUMP, tuple(made))


seen_sets = st.builds(
    SeenChains,
    st.dictionaries(NAMES, st.lists(TEXTS | TAILS).map(tuple)),
    st.lists(st.just(JUMP) | st.just(f"-p tcp {JUMP}"), max_size=3).map(tuple),
)


class FakeChainsTests(ChainsContract, SynchronousTestCase):
    """
    The pretended firewall keeps the promises of the real ones.
    """

    def setUp(self) -> None:
        self.chains = FakeChains()


class PlanTests(SynchronousTestCase):
    """
    Tests for :func:`plan`.
    """

    def applied(self, seen: SeenChains, wanted: ChainSet, others: tuple[str, ...] = ()) -> dict[str, list[str]]:
        """
        The table after the planned edits.
        """
        table = {name: list(rules) for name, rules in seen.chains.items()}
        table["OUTPUT"] = [*others, *seen.jumps]
        for edit in plan(seen, wanted):
            apply_edit(table, edit)
        return table

    @given(seen_sets, wanted_sets())
    def test_reaches_what_is_wanted(self, seen: SeenChains, wanted: ChainSet) -> None:
        """
        Whatever there was, what is wanted is there afterwards, in its order, and a rule of others is where it was.
        """
        table = self.applied(seen, wanted, ("-j THEIRS",))
        output = table.pop("OUTPUT")
        self.assertEqual(sorted(output), sorted(["-j THEIRS", *([JUMP] if wanted.chains else [])]))
        self.assertEqual(set(table), {chain.name for chain in wanted.chains})
        for chain in wanted.chains:
            texts = table[chain.name]
            split_at = len(texts) - len(chain.tail)
            self.assertEqual(texts[split_at:], list(chain.tail))
            self.assertEqual(sorted(texts[:split_at]), sorted(chain.heads))

    @given(wanted_sets())
    def test_nothing_to_do(self, wanted: ChainSet) -> None:
        """
        What is as wanted is not touched.
        """
        self.assertEqual(plan(as_wanted(wanted), wanted), [])

    @given(seen_sets, wanted_sets())
    def test_only_ours(self, seen: SeenChains, wanted: ChainSet) -> None:
        """
        No edit touches a chain of others, but for our jump in the one that leads to us.
        """
        for edit in plan(seen, wanted):
            self.assertTrue(wanted.owns(edit.chain) or (edit.chain == "OUTPUT" and wanted.is_jump(getattr(edit, "text"))))

    def test_few_edits(self) -> None:
        """
        One rule more among thousands is one edit; more than a few less are made by writing the chain anew.
        """
        many = tuple(f"-d 10.0.{n // 256}.{n % 256}/32 -j RETURN" for n in range(5000))

        def of(heads: tuple[str, ...]) -> ChainSet:
            return ChainSet("nat", "R", "OUTPUT", "us", JUMP, (Chain("R-1", heads, ("-j DNAT",)),))

        self.assertEqual(len(plan(as_wanted(of(many[1:])), of(many))), 1)
        self.assertEqual(len(plan(as_wanted(of(many)), of(many[1:]))), 1)
        self.assertEqual(len(plan(as_wanted(of(many)), of(many[MAX_DELETIONS:]))), MAX_DELETIONS)
        fewer = many[MAX_DELETIONS + 1 :]
        self.assertEqual(len(plan(as_wanted(of(many)), of(fewer))), len(fewer) + 2)

    def test_other_spelling(self) -> None:
        """
        Rules that say the same in other words are ours: nothing is done about them.
        """
        wanted = tunnel_chains(RULES, "ipv4")
        said = as_wanted(wanted)

        def respell(text: str) -> str:
            return text.replace("-m tcp ", "").replace('-m comment --comment "return', '-m tcp -m comment --comment "return')

        seen = SeenChains({name: [respell(text) for text in texts] for name, texts in said.chains.items()}, said.jumps)
        self.assertNotEqual(seen.chains, said.chains)
        self.assertEqual(plan(seen, wanted), [])

    def test_unreadable(self) -> None:
        """
        A rule whose quotes do not match, which cannot be understood, is none of ours.
        """
        wanted = tunnel_chains(RULES, "ipv4")
        said = as_wanted(wanted)
        table = {**said.chains, KUBELET: ('-m comment --comment "open -j RETURN', *said.chains[KUBELET])}
        self.assertEqual(self.applied(SeenChains(table, said.jumps), wanted)[KUBELET], list(said.chains[KUBELET]))


class OwnTests(SynchronousTestCase):
    """
    Tests for what is told to be ours.
    """

    wanted = tunnel_chains(RULES, "ipv4")

    def test_names(self) -> None:
        """
        The root and its numbered branches are ours, and nothing else.
        """
        for name in ("TUNNEL-PORT", "TUNNEL-PORT-10250", "TUNNEL-PORT-1"):
            self.assertTrue(self.wanted.owns(name))
        for name in ("TUNNEL-PORT-", "TUNNEL-PORT-x", "TUNNEL-PORT-1-2", "TUNNEL-PORT2", "MY-TUNNEL-PORT", "OUTPUT", ""):
            self.assertFalse(self.wanted.owns(name))

    def test_jump(self) -> None:
        """
        A jump is ours by comment and target together.
        """
        jump = self.wanted.jump
        self.assertTrue(self.wanted.is_jump(jump))
        self.assertTrue(self.wanted.is_jump(f"-d 10.0.0.0/8 {jump}"))
        for other in (jump.replace("yurttunnel", "my"), jump.replace("-j TUNNEL-PORT", "-j ACCEPT"), f'"{jump}'):
            self.assertFalse(self.wanted.is_jump(other))

    def test_target(self) -> None:
        """
        A rule leads to us by jump or by goto.
        """
        self.assertEqual(self.wanted.target("-p tcp -g TUNNEL-PORT"), "TUNNEL-PORT")
        self.assertEqual(self.wanted.target("-p tcp -j TUNNEL-PORT-9"), "TUNNEL-PORT-9")
        self.assertIsNone(self.wanted.target('-m comment --comment "-j TUNNEL-PORT" -j ACCEPT'))


class EnsureChainsTests(SynchronousTestCase):
    """
    Tests for :func:`ensure_chains`.
    """

    wanted = tunnel_chains(RULES, "ipv4")

    def setUp(self) -> None:
        self.patch(chains, "PAUSE", 0.0)

    def test_busy(self) -> None:
        """
        Another program that changes the same table is outlived.
        """
        self.assertEqual(len(ensure_chains(FakeChains(busy=ROUNDS - 1), "ipv4", self.wanted).changes), 4)

    def test_always_busy(self) -> None:
        """
        What never succeeds is an error, not a loop without end.
        """
        self.assertRaises(FirewallError, ensure_chains, FakeChains(busy=ROUNDS), "ipv4", self.wanted)

    def test_told(self) -> None:
        """
        What was done is told in one sentence a chain, however many rules it has.
        """
        outcome = ensure_chains(FakeChains(), "ipv4", self.wanted)
        self.assertEqual(
            outcome.changes,
            (
                "ipv4 chain TUNNEL-PORT-10250: made, 4 rules added",
                "ipv4 chain TUNNEL-PORT-10255: made, 4 rules added",
                "ipv4 chain TUNNEL-PORT: made, 2 rules added",
                "ipv4 chain OUTPUT: 1 rule added",
            ),
        )

    def test_jump_is_back(self) -> None:
        """
        Where the jump to them was missing all chains turn what nothing turned meanwhile; where one chain was, that one does.
        """
        firewall = FakeChains()
        ensure_chains(firewall, "ipv4", self.wanted)
        tails = tuple((chain.name, text) for chain in self.wanted.chains for text in chain.tail)
        firewall.apply("ipv4", "nat", [DeleteText("OUTPUT", self.wanted.jump)])
        self.assertEqual(ensure_chains(firewall, "ipv4", self.wanted).turned, tails)
        firewall.apply("ipv4", "nat", [FlushChain(tails[0][0])])
        self.assertEqual(ensure_chains(firewall, "ipv4", self.wanted).turned, tails[:1])
