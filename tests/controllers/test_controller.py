"""
Tests of what is observed, by keys of work; and of the choice of controllers.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from yurt.controllers.choice import choose
from yurt.controllers.controller import Observed, Source

Things = Source[tuple[str, ...]]


def things(what: str) -> Things:
    """
    Objects that say themselves which work they belong to.
    """
    return Source(what, ["/api/v1/things"], lambda body: None, lambda key, thing: thing)


class ObservedTests(SynchronousTestCase):
    """
    Tests of the index.
    """

    def test_change(self) -> None:
        """
        A change makes the work to which the object belonged, and that to which it belongs.
        """
        source, observed = things("things"), Observed()
        self.assertEqual(observed.change(source, "x", None, ("a", "b")), {"a", "b"})
        self.assertEqual(observed.change(source, "x", ("a", "b"), ("b", "c")), {"a", "b", "c"})
        self.assertEqual((observed.related(source, "a"), observed.related(source, "c")), ({}, {"x": ("b", "c")}))
        self.assertEqual(observed.change(source, "x", ("b", "c"), None), {"b", "c"})
        self.assertEqual(observed.work(), set())

    def test_sources(self) -> None:
        """
        Objects of two sources that have the same key are two objects.
        """
        nodes, pods, observed = things("nodes"), things("pods"), Observed()
        observed.change(nodes, "x", None, ("a",))
        observed.change(pods, "x", None, ("a", "b"))
        self.assertEqual((observed.related(nodes, "a"), observed.related(pods, "a")), ({"x": ("a",)}, {"x": ("a", "b")}))
        self.assertEqual(observed.work(), {"a", "b"})

    @given(st.lists(st.tuples(st.sampled_from("xyz"), st.none() | st.frozensets(st.sampled_from("abc")).map(sorted).map(tuple))))
    def test_anything(self, changes: list[tuple[str, tuple[str, ...] | None]]) -> None:
        """
        After any changes each key of work has exactly the objects that belong to it.
        """
        source, observed, held = things("things"), Observed(), dict[str, tuple[str, ...]]()
        for key, new in changes:
            observed.change(source, key, held.pop(key, None), new)
            if new is not None:
                held[key] = new
        for work in "abc":
            wanted = {key: thing for key, thing in held.items() if work in thing}
            self.assertEqual(observed.related(source, work), wanted)
        self.assertEqual(observed.work(), {work for thing in held.values() for work in thing})


class ChoiceTests(SynchronousTestCase):
    """
    Tests of --controllers.
    """

    KNOWN = {"one": ("eins", "first"), "two": ()}

    def test_words(self) -> None:
        """
        All, one, not one; under any of its names; what is left out is so wherever that is said; nothing when nothing is said.
        """
        for words, chosen in (
            (["*"], {"one", "two"}),
            (["two"], {"two"}),
            (["*", "-one"], {"two"}),
            (["-one", "*"], {"two"}),
            (["one", "-first"], set()),
            (["eins"], {"one"}),
            (["-two"], set()),
            ([], set()),
        ):
            self.assertEqual(choose(words, self.KNOWN), chosen, str(words))

    def test_unknown(self) -> None:
        """
        A name that is not known is refused with those that are.
        """
        for words in (["three"], ["*", "-three"]):
            with self.assertRaises(ValueError) as caught:
                choose(words, self.KNOWN)
            self.assertEqual(str(caught.exception), "there is no controller 'three'; there are: one, two")
