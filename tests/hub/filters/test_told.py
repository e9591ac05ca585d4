"""
Tests for ``yurt.hub.filters.told``.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MemorySite
from yurt.hub.cache.records import Caller, ViewKey
from yurt.hub.filters.choice import ORDER
from yurt.hub.filters.facts import Facts
from yurt.hub.filters.lens import CLEAR, make_lens
from yurt.hub.filters.told import (
    LIST_TO_WATCH,
    MAX_KEYS,
    MAX_OTHERS,
    MAX_SENT_BACK,
    MAX_VERSIONS,
    SEND_BACK_EVERY,
    Told,
    ToldBook,
)

KEY = ViewKey(Caller("node", "kube-proxy"), "/v1/services")
ONE, OTHER = make_lens(ORDER, Facts("n1", pool="p")), make_lens(ORDER, Facts("n1", pool="q"))


class ToldTests(SynchronousTestCase):
    """
    Tests of what is remembered of clients.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.book = self.another()

    def another(self) -> ToldBook:
        """
        The book of another process on the same disk.
        """
        return ToldBook(self.site.store.table("told"))

    def test_by_version(self) -> None:
        """
        What was told is found by its very version.
        """
        self.book.record(KEY, "10", Told(ONE, frozenset({"a"})))
        self.book.record(KEY, "20", Told(OTHER, frozenset()))
        for version, lens in (("10", ONE), ("20", OTHER)):
            told = self.book.find(KEY, version, OTHER)
            assert told is not None
            self.assertIs(told.lens, lens)

    def test_other_versions(self) -> None:
        """
        Another version counts as told like all others, as long as these were told alike.
        """
        self.book.record(KEY, "10", Told(ONE, frozenset()))
        self.assertEqual(self.book.find(KEY, "11", ONE), Told(ONE))
        self.assertIsNone(self.book.find(KEY, "11", OTHER))
        self.book.record(KEY, "20", Told(OTHER, frozenset()))
        self.assertIsNone(self.book.find(KEY, "21", OTHER))

    def test_never_told(self) -> None:
        """
        A view of which nothing is known was shown as it is.
        """
        self.assertEqual(self.book.find(KEY, "10", CLEAR), Told(CLEAR))
        self.assertIsNone(self.book.find(KEY, "10", ONE))
        self.assertFalse(self.book.knows(KEY))

    def test_another_process(self) -> None:
        """
        Another process knows the last lens, and that there is none any more.
        """
        self.book.record(KEY, "10", Told(ONE, frozenset()))
        self.assertEqual(self.another().find(KEY, "10", ONE), Told(ONE))
        self.assertIsNone(self.another().find(KEY, "10", OTHER))
        self.assertTrue(self.another().knows(KEY))
        self.book.record(KEY, "11", Told(CLEAR, frozenset()))
        self.assertEqual(self.another().find(KEY, "10", CLEAR), Told(CLEAR))
        self.assertFalse(self.another().knows(KEY))

    def test_pages(self) -> None:
        """
        Pages of one list add up.
        """
        self.book.record(KEY, "10", Told(ONE, frozenset({"a"})))
        self.book.record(KEY, "10", Told(ONE, frozenset({"b"})))
        told = self.book.at(KEY, "10")
        assert told is not None
        self.assertEqual(told.hidden, {"a", "b"})

    def test_same_version(self) -> None:
        """
        Of one version told otherwise, soon after, both are remembered: who comes back may be either.
        """
        self.book.record(KEY, "10", Told(ONE, frozenset({"a"}), 0.0))
        for now, lenses in ((LIST_TO_WATCH, [OTHER, ONE]), (LIST_TO_WATCH + 1, [OTHER])):
            self.book.record(KEY, "10", Told(OTHER, frozenset(), now))
            told = self.book.at(KEY, "10")
            assert told is not None
            self.assertEqual([one.lens for one in (told, *told.others)], lenses)
            self.assertEqual([one.hidden for one in told.others], [frozenset({"a"})] * (len(lenses) - 1))

    def test_many_of_one_version(self) -> None:
        """
        Not everything is remembered that was ever told of one version.
        """
        for number in range(2 * MAX_OTHERS):
            self.book.record(KEY, "10", Told(make_lens(ORDER, Facts("n1", pool=f"p{number}")), frozenset()))
        told = self.book.at(KEY, "10")
        assert told is not None
        self.assertEqual([one.lens.facts.pool for one in told.others], ["p3", "p4", "p5", "p6"])
        self.assertEqual([one.others for one in told.others], [()] * MAX_OTHERS)

    def test_bounds(self) -> None:
        """
        Neither versions nor views pile up, in memory or on the disk.
        """
        for number in range(MAX_VERSIONS + 1):
            self.book.record(KEY, str(number), Told(ONE, frozenset()))
        self.assertIsNone(self.book.at(KEY, "0"))
        for number in range(MAX_KEYS + 5):
            self.book.record(KEY._replace(namespace=f"ns-{number}"), "1", Told(ONE, frozenset()))
        self.assertFalse(self.book.knows(KEY))
        self.assertEqual(len(list(self.site.store.table("told").scan())), MAX_KEYS)

    def test_sent_back(self) -> None:
        """
        Clients of a view are told to list anew now and then only.
        """
        times = [*range(MAX_SENT_BACK + 1), SEND_BACK_EVERY - 1, SEND_BACK_EVERY]
        answers = [self.book.may_send_back(KEY, now) for now in times]
        self.assertEqual(answers, [True] * MAX_SENT_BACK + [False, False, True])
        self.assertTrue(self.book.may_send_back(KEY._replace(namespace="x"), 1.0))
