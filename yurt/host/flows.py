"""
Connections whose way has changed: connection tracking is told to forget them, so that they fail at once and are made anew on
the right way, instead of going on, on the old one, until they end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from twisted.internet import error
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.host.child import HostReactor
from yurt.host.tools import find_conntrack
from yurt.host.tunnel_rules import MAX_FLOWS, Flow

CONNTRACK_TIMEOUT = 5.0
"""Seconds that one call of conntrack may take; it walks the whole table."""


class Flows:
    """
    Calls ``conntrack -D`` for one destination after the other; without that tool nothing happens.  No failure of it is told:
    that there was no such connection is one, too.  Each destination is first given to ``before``, for what can only be done
    while its connections are still known.

    At most MAX_FLOWS destinations wait; what is more is left alone.
    """

    log = Logger()

    def __init__(
        self,
        reactor: HostReactor,
        find: Callable[[], str | None] = find_conntrack,
        before: Callable[[Flow], object] = lambda flow: None,
    ) -> None:
        self._reactor = reactor
        self._find = find
        self._before = before
        self._waiting: deque[Flow] = deque()
        self._call: _Conntrack | None = None

    def forget(self, flows: Iterable[Flow]) -> None:
        """
        Forget the connections to these destinations, soon.
        """
        room = MAX_FLOWS - len(self._waiting)
        fresh = [flow for flow in dict.fromkeys(flows) if flow not in self._waiting]
        if len(fresh) > room:
            self.log.info("connections to {count} destinations go on as they are", count=len(fresh) - room)
        self._waiting += fresh[:room]
        self._next()

    def stop(self) -> None:
        """
        Leave the rest alone.
        """
        self._waiting.clear()
        if self._call is not None:
            self._call.end()

    def _next(self) -> None:
        if self._call is not None or not self._waiting:
            return
        program = self._find()
        if program is None:
            self._waiting.clear()
            return
        flow = self._waiting.popleft()
        self._call = _Conntrack(self._reactor, self._ended)
        try:
            self._before(flow)
            self._reactor.spawnProcess(self._call, program, conntrack_command(flow), {}, "/")
        except OSError as failed:
            self._call = None
            self._waiting.clear()
            self.log.info("open connections go on as they are: {program}: {reason}", program=program, reason=failed.strerror)

    def _ended(self) -> None:
        self._call = None
        self._next()


def conntrack_command(flow: Flow) -> list[str]:
    """
    The command that forgets the connections to a destination, as OpenYurt's.  What waits for an answer is sent again after a
    second, and goes where it is led by then.
    """
    which = ["--orig-dst", flow.address] if flow.address else ["--state", "SYN_SENT"]
    return ["conntrack", "-D", "-f", flow.family, "-p", "tcp", *which, "--dport", str(flow.port)]


class _Conntrack(ProcessProtocol):
    """
    One call, ended when it takes too long.
    """

    def __init__(self, reactor: HostReactor, ended: Callable[[], object]) -> None:
        self._reactor = reactor
        self._ended = ended
        self._deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._deadline = self._reactor.callLater(CONNTRACK_TIMEOUT, self.end)

    def end(self) -> None:
        """
        Kill it if it still runs.
        """
        if self.transport is not None:
            try:
                self.transport.signalProcess("KILL")
            except error.ProcessExitedAlready:
                pass

    def processExited(self, reason: Failure) -> None:
        """
        Wait for processEnded, when its pipes are closed.
        """

    def processEnded(self, reason: Failure) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._ended()
