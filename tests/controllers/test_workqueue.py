"""
Tests of the queue of work.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from yurt.controllers.workqueue import FIRST_PAUSE, MAX_PAUSE, MAX_STALE, WorkQueue

KEYS = st.sampled_from("abcd")


class OrderTests(SynchronousTestCase):
    """
    Tests of what comes when.
    """

    def setUp(self) -> None:
        self.queue = WorkQueue(lambda: 0.0)

    def test_first_come(self) -> None:
        """
        Keys are taken in the order in which they began to wait, each once.
        """
        for key in "abab":
            self.queue.add(key)
        self.assertEqual(len(self.queue), 2)
        self.assertEqual([self.queue.take(0), self.queue.take(0), self.queue.take(0)], ["a", "b", None])

    def test_one_at_a_time(self) -> None:
        """
        What is added while it is worked on is taken again when that is done, not before, and once.
        """
        self.queue.add("a")
        self.queue.take(0)
        self.queue.add("a")
        self.queue.add("a")
        self.assertIs(self.queue.take(0), None)
        self.queue.finish("a")
        self.assertEqual((self.queue.take(0), self.queue.take(0)), ("a", None))

    def test_pauses(self) -> None:
        """
        Pauses double with each failure in a row, up to the longest, and begin anew after a success.
        """
        pauses = []
        now = 0.0
        self.queue.add("a")
        for _ in range(12):
            self.assertEqual(self.queue.take(now), "a")
            pauses.append(self.queue.retry("a", now))
            now += pauses[-1]
        self.assertEqual(pauses[:3], [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE])
        self.assertEqual(pauses[-1], MAX_PAUSE)
        self.assertEqual((self.queue.take(now), self.queue.failing), ("a", 1))
        self.queue.finish("a")
        self.queue.add("a")
        self.queue.take(now)
        self.assertEqual((self.queue.retry("a", now), self.queue.next_due()), (FIRST_PAUSE, now + FIRST_PAUSE))

    def test_pause_of_the_server(self) -> None:
        """
        A server that says when to come again is not asked before.
        """
        self.queue.add("a")
        self.queue.take(0)
        self.assertEqual(self.queue.retry("a", 0, 7.0), 7.0)
        self.assertEqual((self.queue.take(6.9), self.queue.take(7.0)), (None, "a"))

    def test_changes_do_not_shorten_a_pause(self) -> None:
        """
        A key that failed sits its pause out, also when it was added while the work on it was failing.
        """
        self.queue.add("a")
        self.queue.take(0)
        self.queue.add("a")
        self.queue.retry("a", 0)
        self.queue.add("a")
        self.assertEqual((self.queue.take(FIRST_PAUSE - 0.01), self.queue.take(FIRST_PAUSE)), (None, "a"))

    def test_later(self) -> None:
        """
        Of several times the earliest counts, and a change comes before all of them.
        """
        for due in (9.0, 5.0, 7.0):
            self.queue.add_later("a", due)
        self.assertEqual((self.queue.next_due(), self.queue.take(4.9), self.queue.take(5.0)), (5.0, None, "a"))
        self.queue.finish("a")
        self.queue.add_later("a", 20.0)
        self.queue.add("a")
        self.assertEqual((self.queue.take(8.0), self.queue.next_due()), ("a", None))

    def test_bound(self) -> None:
        """
        Times that changes overtook are forgotten, however far off they are.
        """
        for _ in range(100 * MAX_STALE):
            self.queue.add_later("a", 1e9)
            self.queue.add("a")
            self.queue.take(0)
            self.queue.finish("a")
        self.assertTrue(len(self.queue._heap) <= MAX_STALE + 2)


class QueueMachine(RuleBasedStateMachine):
    """
    A queue to which anything happens in any order, beside what must hold.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queue = WorkQueue(lambda: 0.5)
        self.now = 0.0
        self.running: set[str] = set()
        self.owed: Counter[str] = Counter()
        """Changes that nobody looked at yet."""
        self.until: dict[str, float] = {}
        """When a key that failed may be taken again."""

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.queue.add(key)
        self.owed[key] += 1

    @rule(key=KEYS, seconds=st.floats(0.0, 5.0))
    def add_later(self, key: str, seconds: float) -> None:
        self.queue.add_later(key, self.now + seconds)

    @rule()
    def take(self) -> None:
        key = self.queue.take(self.now)
        if key is None:
            waiting = {one for one, count in self.owed.items() if count and one not in self.running}
            assert all(self.until.get(one, 0.0) > self.now for one in waiting), waiting
            return
        assert key not in self.running
        assert self.until.pop(key, 0.0) <= self.now
        self.running.add(key)
        self.owed[key] = 0

    @precondition(lambda self: bool(self.running))
    @rule(data=st.data(), failed=st.booleans())
    def end(self, data: st.DataObject, failed: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.running.remove(key)
        if failed:
            seconds = self.queue.retry(key, self.now)
            assert FIRST_PAUSE / 2 <= seconds <= MAX_PAUSE
            self.until[key] = self.now + seconds
            self.owed[key] += 1
        else:
            self.queue.finish(key)

    @rule(seconds=st.floats(0.0, 60.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def nothing_is_lost(self) -> None:
        for key, count in self.owed.items():
            known = key in self.queue._ready or key in self.queue._later or key in self.running
            assert known or not count, key
        assert self.queue.running == len(self.running)


class PropertyTests(SynchronousTestCase):
    """
    The queue under anything.
    """

    def test_anything(self) -> None:
        """
        A key is worked on by one at a time; a change is always looked at afterwards; a pause is never cut short.
        """
        run_state_machine_as_test(QueueMachine, settings=settings(max_examples=150, stateful_step_count=40, deadline=None))
