"""
Kubelet calls of this host, turned to the doors of this server by firewall rules: a service that keeps those rules as the nodes
and the ports want them.

:mod:`yurt.tunnel.server.rules` decides which rules there are to be; reading and changing them is a short-lived child's work.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger

from yurt.host.child import CHILD_TIMEOUT, HostReactor
from yurt.host.destination import is_own_address
from yurt.host.errors import HostError
from yurt.host.flows import Flows
from yurt.host.kept import KeptChild
from yurt.host.messages import Known, Request, Result
from yurt.host.news import RuleNews
from yurt.host.sole import Sole
from yurt.host.tunnel_rules import TUNNEL_ROOT, TunnelRules
from yurt.tunnel.server.node import Node
from yurt.tunnel.server.nodes import Nodes
from yurt.tunnel.server.ports import LivePorts, Ports, Security
from yurt.tunnel.server.rules import Bound, wanted_rules

GATHER = 0.05
"""Seconds after a first change in which others may come and be made together with it."""

SYNC_LOOK = 0.25
"""Seconds between two looks whether the first list of nodes has come."""

NEWS_PAUSE = 2.0
"""
Seconds between two checks for which there is a reason: the kernel tells of a change, or the last one found one.  Who flushes all
rules, as a reload of firewalld does, is not through at once.
"""

LOST_PAUSE = 5.0
"""The same where so much has changed that the kernel could not tell what: a kube-proxy may write such a large table often."""

FIRST_RETRY = 1.0
"""Seconds before a change that failed is tried again; doubled each time."""

LAST_RETRY = 60.0
"""Seconds that are never exceeded between two tries."""

STOP_TIMEOUT = 5.0
"""Seconds that a clean stop waits for a change to end."""

REMOVE_TIMEOUT = 15.0
"""Seconds that it then waits for the rules to be removed: another program may hold the lock of the legacy tables."""

OTHER_LOOK = 1.0
"""Seconds between two looks whether another server on this host still keeps the rules."""

HAND_OVER = 3.0
"""Seconds in which that other one, when this one stops, looks and has the rules lead to its own doors."""

SOLE_NAME = "yurt-tunnel-server-rules"
"""The name that the server has that keeps the rules of this host; see :mod:`yurt.host.sole`."""


def describe_other(sole: Sole) -> str:
    """
    Say that another server keeps the rules, and which.
    """
    who = f"process {sole.holder}" if sole.holder else "a process of another container"
    return (
        f"firewall rules: another yurt-tunnel-server keeps those of this host ({who}): stop one of them, "
        "or give it --enable-iptables=false"
    )


class Redirect(Service):
    """
    Keeps the rules, from when nodes and ports are known until the stop, which removes them.

    Rules that an earlier run left are kept as they are until both are known: without the list of nodes no rule can be told to be
    wrong.  A change of nodes or ports is made alone, without looking at what else there is; every ``period`` seconds, and soon
    after others have changed them, all is compared, and put right.  Of several servers on a host one keeps them; when it dies,
    another one, and so when it stops: before its doors close, if :meth:`hand_over` is called.
    """

    log = Logger()
    name = "redirect"

    def __init__(
        self,
        reactor: HostReactor,
        nodes: Nodes,
        ports: LivePorts,
        doors: Mapping[Security, Bound],
        *,
        period: float = 60.0,
        child: KeptChild | None = None,
        sole: Sole | None = None,
        flows: Flows | None = None,
        news: Callable[[HostReactor, str, Callable[[bool], object]], RuleNews] = RuleNews,
        hostname: str | None = None,
        is_own: Callable[[str], bool] = is_own_address,
    ) -> None:
        self._reactor = reactor
        self._nodes = nodes
        self._ports = ports
        self._doors = doors
        self._period = period
        self._child = KeptChild(reactor) if child is None else child
        self._sole = Sole(SOLE_NAME) if sole is None else sole
        self._flows = Flows(reactor) if flows is None else flows
        self._hostname = socket.gethostname() if hostname is None else hostname
        self._is_own = is_own
        self._known: Known | None = None
        self._check_at = self._checked_at = 0.0
        self._news = news(reactor, TUNNEL_ROOT, self._heard)
        self._applying = self._given = False
        self._retry = FIRST_RETRY
        self._failed = False
        self._changed = False
        self._timer: IDelayedCall | None = None
        self._loop: Deferred[None] | None = None
        self._ends: list[Any] = []
        self.problem: str | None = "firewall rules: not started"
        """What is missing and why, for readiness; None when nothing is known to be."""
        self.backend: str | None = None
        """The firewall that is used, ``nf_tables`` or ``legacy``; None before it is known."""
        self.reason: str | None = None
        """Why it is that one."""
        self.changes = self.repairs = self.failures = 0
        """Times that rules were changed; that they were found changed by others; that a child failed."""

    @property
    def rules(self) -> TunnelRules:
        """
        The rules that are there, as far as is known.
        """
        return TunnelRules() if self._known is None else self._known.tunnel

    @property
    def state(self) -> dict[str, Any]:
        """
        The state as JSON values, for the status page.
        """
        return {
            "backend": self.backend,
            "reason": self.reason,
            "direct_addresses": len(self.rules.direct),
            "diversions": [{"port": d.port, "destination": d.destination} for d in self.rules.diversions],
            "changes": self.changes,
            "repairs": self.repairs,
            "failures": self.failures,
            "problem": self.problem,
        }

    def startService(self) -> None:
        """
        Begin; returns at once and never fails.
        """
        super().startService()
        self._known, self._check_at, self._failed, self._given = None, 0.0, False, False
        self._ends = [self._nodes.subscribe(self._node_changed), self._ports.subscribe(self._ports_changed)]
        self._news.start()
        self._loop = Deferred.fromCoroutine(self._keep())

    async def hand_over(self) -> None:
        """
        Before a stop: let another server on this host, if one waits, have the rules as they are, and time to lead them to itself.
        """
        if self._loop is not None and self._sole.is_awaited():
            self.log.info("another server on this host is to keep the firewall rules")
            self._given = self._changed = True
            self._wake(0.0)
            await deferLater(self._reactor, HAND_OVER)

    def stopService(self) -> Deferred[None]:
        """
        Remove what is ours; fires when that is done, or after STOP_TIMEOUT and REMOVE_TIMEOUT.
        """
        super().stopService()
        for end in self._ends:
            end()
        self._ends = []
        loop, self._loop = self._loop, None
        if loop is None:
            return succeed(None)
        self._flows.stop()
        self._news.stop()
        self._wake(0.0)
        return Deferred.fromCoroutine(self._remove(loop))

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if self._direct(old) != self._direct(new):
            self._change()

    def _ports_changed(self, ports: Ports) -> None:
        self._change()

    def _direct(self, node: Node | None) -> frozenset[str]:
        """
        The addresses of a node that are reached directly: all of one without an agent.  Those of this very host, too, if it is a
        node: else its agent's connections to its kubelet would be turned to the server, and by that to the agent, without end.
        Its boot tells that it is, or its name; and the address, for the namespaces of one machine are hosts of their own.
        """
        if node is None:
            return frozenset()
        if not node.has_agent:
            return frozenset(node.addresses)
        if node.here or self._hostname.lower() in (node.name, *node.names):
            return frozenset(filter(self._is_own, node.addresses))
        return frozenset()

    def _change(self) -> None:
        self._changed = True
        if self._failed:
            self._wake(FIRST_RETRY)
        else:
            if self._known is not None:
                self._child.prepare()  # if it has ended, it starts while others are gathered
            self._wake(GATHER)

    def _heard(self, lost: bool) -> None:
        """
        Rules of ours, or before them, were changed, or may have been where that was ``lost``.  What is heard while we change them
        is our own doing, or the next check finds it; after one that failed the next comes by itself.
        """
        if not (self._applying or self._failed):
            self._check_soon(LOST_PAUSE if lost else NEWS_PAUSE)
            self._wake(max(GATHER, self._check_at - self._reactor.seconds()))

    def _check_soon(self, pause: float = NEWS_PAUSE) -> None:
        self._check_at = min(self._check_at, self._checked_at + pause)

    def _wake(self, seconds: float) -> None:
        """
        End the wait of the loop after so many seconds, unless it ends before.
        """
        timer = self._timer
        if timer is not None and timer.active() and timer.getTime() > self._reactor.seconds() + seconds:
            timer.reset(seconds)

    def _wait(self, seconds: float) -> Deferred[None]:
        waiting: Deferred[None] = Deferred(lambda _: timer.cancel())
        self._timer = timer = self._reactor.callLater(seconds, waiting.callback, None)
        return waiting

    async def _keep(self) -> None:
        pause = 0.0  # the first child is spawned by a running reactor
        try:
            while self.running:
                await self._wait(pause)
                if self.running:
                    pause = await self._step()
        except CancelledError:
            return

    async def _step(self) -> float:
        """
        Do what there is to do; returns for how long nothing will be, unless something changes.
        """
        if self._given:
            self._sole.leave()
            return self._period
        if not (self._nodes.synced and self._ports.synced):
            self._tell("firewall rules: waiting for the first list of nodes and ports")
            return SYNC_LOOK
        if not self._sole.take():
            self._tell(describe_other(self._sole))
            return OTHER_LOOK
        self._changed = False
        direct = frozenset[str]().union(*map(self._direct, self._nodes.all()))
        wanted = wanted_rules(direct, self._ports.ports.tunnel_ports, self._doors)
        due = self._reactor.seconds() >= self._check_at
        known = None if due or self._failed else self._known
        if known is None or known.tunnel != wanted:
            await self._apply(wanted, known)
        if self._failed:
            pause, self._retry = self._retry, min(2 * self._retry, LAST_RETRY)
            return pause
        self._retry = FIRST_RETRY
        return GATHER if self._changed else max(0.0, self._check_at - self._reactor.seconds())

    async def _apply(self, wanted: TunnelRules, known: Known | None) -> None:
        self._applying = True
        try:
            result = await self._child.ask(Request("ensure", tunnel=wanted, known=known), CHILD_TIMEOUT)
        except HostError as error:
            result = Result(problems=(str(error),))
        self._news.follow(result.flavour)
        self._applying = False
        repaired = self._note(result, None if self._failed else self._known, wanted)
        self._failed = bool(result.problems)
        self.failures += self._failed
        self._note_backend(result)
        if result.flavour is not None and not self._failed:
            self._known = Known(result.flavour, wanted)
        if result.checked:
            self._checked_at = self._reactor.seconds()
            self._check_at = self._checked_at + self._period
        if repaired:
            self._check_soon()
        self._flows.forget(result.flows)
        self._tell(f"firewall rules: {'; '.join(result.problems)}" if result.problems else None)

    def _note(self, result: Result, expected: Known | None, wanted: TunnelRules) -> bool:
        """
        Tell what was changed; and whether ``wanted`` was expected to be there already, so that someone else had changed it.
        """
        for change in result.changes:
            self.log.info("{change}", change=change)
        if not result.changes:
            return False
        self.changes += 1
        repaired = result.checked and expected is not None and expected.tunnel == wanted
        if repaired:
            self.repairs += 1
            self.log.warn("another program had changed the firewall rules of the tunnel; they are as they were")
        return repaired

    def _note_backend(self, result: Result) -> None:
        if result.backend and result.backend != self.backend:
            self.log.info("firewall rules: by {backend}: {reason}", backend=result.backend, reason=result.reason)
        self.backend, self.reason = result.backend or self.backend, result.reason or self.reason

    def _tell(self, problem: str | None) -> None:
        before, self.problem = self.problem, problem
        if problem is not None and problem != before:
            self.log.warn("{problem}", problem=problem)
        elif problem is None and before is not None:
            self.log.info("firewall rules: all is well")

    async def _remove(self, loop: Deferred[None]) -> None:
        # A change that is being made is let end: a tool that is cut off may still make it when all has been removed.
        await _within(loop, STOP_TIMEOUT, self._reactor)
        if not self._sole.take():
            self._child.close()
            return
        try:
            result = await self._child.ask(Request("remove", tunnel=TunnelRules()), REMOVE_TIMEOUT)
        except HostError as error:
            self.log.warn("the firewall rules of the tunnel were not removed: {reason}", reason=str(error))
            return
        finally:
            self._child.close()
            self._sole.leave()
        for problem in result.problems:
            self.log.warn("stopping: {problem}", problem=problem)


def _within(waiting: Deferred[None], seconds: float, reactor: HostReactor) -> Deferred[None]:
    return waiting.addTimeout(seconds, reactor).addErrback(lambda _: None)
