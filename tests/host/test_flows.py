"""
Tests for :mod:`yurt.host.flows`.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import error
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from yurt.host.flows import CONNTRACK_TIMEOUT, Flows, conntrack_command
from yurt.host.tunnel_rules import MAX_FLOWS, Flow


class FakeReactor(Clock):
    """
    A reactor whose processes end when they are told to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[list[str]] = []
        self.signals: list[str] = []
        self.refused = False
        self.protocol: Any = None

    def spawnProcess(self, protocol: Any, executable: str, args: list[str], env: dict[str, str], path: str) -> None:
        if self.refused:
            raise OSError(11, "Resource temporarily unavailable")
        self.spawned.append(args)
        self.protocol = protocol
        protocol.makeConnection(self)

    def signalProcess(self, signal: str) -> None:
        self.signals.append(signal)

    def end(self) -> None:
        """
        Have the process that runs end: it had nothing to delete, which is a failure to conntrack.
        """
        self.protocol.processEnded(Failure(error.ProcessTerminated(1)))


def flow(number: int) -> Flow:
    return Flow("ipv4", f"10.0.{number // 256}.{number % 256}", 10250)


class FlowsTests(SynchronousTestCase):
    """
    Tests for :class:`Flows`.
    """

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.flows = Flows(cast(Any, self.reactor), lambda: "/usr/sbin/conntrack")

    def test_command(self) -> None:
        """
        The connections to one address and port are meant, by where they were going before any rule; without an address those to a
        port that nobody has answered.
        """
        command = " ".join(conntrack_command(Flow("ipv6", "fd00::1", 10250)))
        self.assertEqual(command, "conntrack -D -f ipv6 -p tcp --orig-dst fd00::1 --dport 10250")
        command = " ".join(conntrack_command(Flow("ipv4", "", 10250)))
        self.assertEqual(command, "conntrack -D -f ipv4 -p tcp --state SYN_SENT --dport 10250")

    def test_one_by_one(self) -> None:
        """
        One call at a time, whatever the last one ended with; each destination once.
        """
        self.flows.forget([flow(1), flow(2), flow(1)])
        self.flows.forget([flow(2), flow(3)])
        self.assertEqual(len(self.reactor.spawned), 1)
        for _ in range(3):
            self.reactor.end()
        self.assertEqual(self.reactor.spawned, [conntrack_command(flow(number)) for number in (1, 2, 3)])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_before(self) -> None:
        """
        Each destination is told before its connections are forgotten, and none where nothing can be forgotten.
        """
        told: list[tuple[Flow, int]] = []

        def before(flow: Flow) -> None:
            told.append((flow, len(self.reactor.spawned)))

        Flows(cast(Any, self.reactor), lambda: None, before).forget([flow(1)])
        self.assertEqual(told, [])
        Flows(cast(Any, self.reactor), lambda: "/usr/sbin/conntrack", before).forget([flow(1), flow(2)])
        self.reactor.end()
        self.assertEqual(told, [(flow(1), 0), (flow(2), 1)])

    def test_hangs(self) -> None:
        """
        A call that takes too long is killed, and the next one made.
        """
        self.flows.forget([flow(1), flow(2)])
        self.reactor.advance(CONNTRACK_TIMEOUT)
        self.assertEqual(self.reactor.signals, ["KILL"])
        self.reactor.end()
        self.assertEqual(len(self.reactor.spawned), 2)

    def test_bounded(self) -> None:
        """
        No more than MAX_FLOWS wait.
        """
        self.flows.forget(map(flow, range(2 * MAX_FLOWS)))
        self.flows.forget(map(flow, range(3 * MAX_FLOWS, 4 * MAX_FLOWS)))
        ended = 0
        while ended < len(self.reactor.spawned):
            self.reactor.end()
            ended += 1
        self.assertEqual(ended, MAX_FLOWS + 1)

    def test_no_tool(self) -> None:
        """
        Without the tool nothing happens, and nothing waits.
        """
        self.flows = Flows(cast(Any, self.reactor), lambda: None)
        self.flows.forget([flow(1)])
        self.assertEqual(self.reactor.spawned, [])

    def test_cannot_spawn(self) -> None:
        """
        A machine without room for another process is no error; later calls are made.
        """
        self.reactor.refused = True
        self.flows.forget([flow(1)])
        self.reactor.refused = False
        self.flows.forget([flow(2)])
        self.assertEqual(self.reactor.spawned, [conntrack_command(flow(2))])

    def test_stop(self) -> None:
        """
        A stop ends the call that runs, and makes no other.
        """
        self.flows.forget([flow(1), flow(2)])
        self.flows.stop()
        self.reactor.end()
        self.assertEqual((self.reactor.signals, len(self.reactor.spawned)), (["KILL"], 1))
