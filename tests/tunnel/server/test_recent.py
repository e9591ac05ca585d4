"""
Tests of answers that hold for a while.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.api import ApiError
from yurt.tunnel.server.recent import AT_ONCE, MAX_QUESTIONS, Recent


class RecentTests(SynchronousTestCase):
    """
    Tests of Recent.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.recent: Recent[str] = Recent(self.clock, lambda answer: 60.0 if answer == "yes" else 10.0, 2)
        self.questions: list[Deferred[str]] = []

    def get(self, key: str) -> Deferred[str]:
        """
        Ask; the question stands last in ``questions``.
        """

        async def ask() -> str:
            self.questions.append(Deferred())
            return await self.questions[-1]

        return Deferred.fromCoroutine(self.recent.get(key, ask))

    def test_kept(self) -> None:
        """
        An answer holds for as long as its kind does, and is asked for again then.
        """
        for answer, seconds in (("yes", 60), ("no", 10)):
            asking = self.get(answer)
            self.questions[-1].callback(answer)
            self.assertEqual(self.successResultOf(asking), answer)
            asked = len(self.questions)
            self.clock.advance(seconds - 1)
            self.assertEqual(self.successResultOf(self.get(answer)), answer)
            self.assertEqual(len(self.questions), asked)
            self.clock.advance(1)
            self.assertNoResult(self.get(answer))
            self.assertEqual(len(self.questions), asked + 1)

    def test_errors_are_not_kept(self) -> None:
        """
        An error is everybody's who waited for the answer, and the next one asks again.
        """
        waiting = [self.get("a"), self.get("a")]
        self.assertEqual(len(self.questions), 1)
        self.questions[0].errback(ValueError("no answer"))
        for one in waiting:
            self.failureResultOf(one, ValueError)
        again = self.get("a")
        self.questions[1].callback("yes")
        self.assertEqual(self.successResultOf(again), "yes")

    def test_asked_once(self) -> None:
        """
        Who asks what is being asked gets the same answer, also when the first one does not wait for it any more.
        """
        first, second, other = self.get("a"), self.get("a"), self.get("b")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.questions[0].callback("yes")
        self.assertEqual(self.successResultOf(second), "yes")
        self.assertNoResult(other)
        self.assertEqual(self.successResultOf(self.get("a")), "yes")

    def test_bound(self) -> None:
        """
        No more answers are kept than the limit; the oldest goes first.
        """
        for key in "abc":
            self.get(key)
            self.questions[-1].callback("yes")
        self.assertEqual(len(self.recent), 2)
        self.successResultOf(self.get("c"))
        self.assertNoResult(self.get("a"))

    def test_questions_take_turns(self) -> None:
        """
        Only so many questions are asked at once, in the order in which they came; beyond a bound they are refused.
        """
        waiting = [self.get(f"stranger {number}") for number in range(MAX_QUESTIONS)]
        self.assertEqual(len(self.questions), AT_ONCE)
        self.assertEqual(self.failureResultOf(self.get("one too many"), ApiError).value.code, 503)
        for number in range(MAX_QUESTIONS):
            self.questions[number].callback("no")
            self.assertEqual(self.successResultOf(waiting[number]), "no")
        self.assertNoResult(self.get("one more"))
