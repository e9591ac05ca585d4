"""
Tests for :mod:`yurt.host.leftovers`.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from yurt.host.child import HostReactor
from yurt.host.errors import HostError
from yurt.host.leftovers import PAUSE, Leftovers
from yurt.host.messages import Request, Result
from yurt.host.tunnel_rules import TunnelRules

REQUEST = Request("remove", tunnel=TunnelRules())


class FakeSole:
    """
    A name; ``free`` says whether it can be had.
    """

    def __init__(self, free: bool = True) -> None:
        self.free = free
        self.holder: int | None = None if free else 42
        self.taken = self.awaited = False

    def is_awaited(self) -> bool:
        return self.awaited

    def take(self) -> bool:
        self.taken = self.free
        return self.free

    def leave(self) -> None:
        self.taken = False


class LeftoversTests(SynchronousTestCase):
    """
    Tests for :class:`Leftovers` with a pretended child.
    """

    def setUp(self) -> None:
        self.clock = cast(Any, Clock())
        self.asked: list[tuple[Request, Deferred[Result]]] = []
        self.sole = FakeSole()
        self.service = Leftovers(self.clock, REQUEST, cast(Any, self.sole), run=self.run_child)

    def run_child(self, reactor: HostReactor, request: Request, timeout: float = 0.0) -> Deferred[Result]:
        done: Deferred[Result] = Deferred()
        self.asked.append((request, done))
        return done

    def start(self) -> None:
        """
        Start, and let the pause be over.
        """
        self.service.startService()
        self.assertEqual(self.asked, [])
        self.clock.advance(PAUSE)

    def test_once(self) -> None:
        """
        What was left is removed once, and told; the name is held as long as that takes.
        """
        self.start()
        ((request, done),) = self.asked
        self.assertEqual((request, self.sole.taken), (REQUEST, True))
        with capturedLogs() as events:
            done.callback(Result(("deleted it",)))
        self.assertEqual([event["change"] for event in events], ["deleted it"])
        self.assertEqual((self.clock.getDelayedCalls(), self.sole.taken), ([], False))

    def test_kept_by_another(self) -> None:
        """
        Rules of a daemon that runs are not what was left.
        """
        self.sole.free = False
        self.start()
        self.assertEqual(self.asked, [])

    def test_fails(self) -> None:
        """
        A failure is told in the log, and is nobody's problem.
        """
        self.start()
        with capturedLogs() as events:
            self.asked[0][1].errback(HostError("operation not permitted"))
        self.assertEqual([event["problem"] for event in events], ["operation not permitted"])

    def test_stop(self) -> None:
        """
        A stop ends it, before and while the child works.
        """
        self.service.startService()
        self.service.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.start()
        self.service.stopService()
        self.assertFalse(self.sole.taken)
