"""
The address that pods reach: a service that keeps its link, and the firewall rules for it, as they should be.

It works in the background from the start on.  What cannot be had is told in ``problem`` and tried again; the hub serves on
loopback meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from yurt.host.child import HostReactor, RunChild, run_child
from yurt.host.errors import HostError
from yurt.host.firewall import pod_rules
from yurt.host.links import Link, parse_link
from yurt.host.messages import Request, Result
from yurt.host.probe import usable_addresses

LINK_INTERVAL = 5.0
"""Seconds between two looks at the link; a look is a few system calls."""

RULES_INTERVAL = 60.0
"""Seconds between two looks at the firewall rules, as OpenYurt's; a look is a short-lived child."""

FIRST_RETRY = 1.0
"""Seconds before a step that failed is tried again; doubled each time."""

LAST_RETRY = 60.0
"""Seconds that are never exceeded between two tries."""

STOP_TIMEOUT = 15.0
"""Seconds that a clean stop waits for link and rules to be removed: another program may hold the lock of the legacy tables."""


@dataclass(frozen=True, slots=True)
class PodLinkSettings:
    """
    What the operator chose; the names are those of the flags.  ``ports`` are the proxy's ports on this address, of which
    ``tracked_ports`` are reached by way of Services, too.
    """

    enable_dummy_if: bool = True
    link_kind: str = "auto"
    dummy_if_name: str = "yurthub-dummy0"
    dummy_if_ip: tuple[str, ...] = ("169.254.2.1",)
    enable_iptables: bool = False
    ports: tuple[int, ...] = (10261, 10268)
    tracked_ports: tuple[int, ...] = (10268,)

    def link(self) -> Link:
        """
        The link that is wanted.  Raises LinkError, a ValueError, whose message is meant for the operator.
        """
        return parse_link(self.dummy_if_name, self.link_kind, self.dummy_if_ip)


class PodLink(Service):
    """
    Keeps link and rules.

    ``on_ready`` is called with the addresses that can be bound now, each time one (re)appears or the link was changed; a socket
    bound before a link went away works again by itself when it is back, so the callee binds only what it has not bound yet.
    ``on_lost`` is called with those that are left, each time one is gone.
    """

    log = Logger()
    name = "podlink"

    def __init__(
        self,
        reactor: HostReactor,
        settings: PodLinkSettings,
        on_ready: Callable[[tuple[str, ...]], object],
        on_lost: Callable[[tuple[str, ...]], object] = lambda addresses: None,
        *,
        run: RunChild = run_child,
        look: Callable[[str, tuple[str, ...]], tuple[str, ...]] = usable_addresses,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._link = settings.link()
        self._rules = pod_rules(self._link.addresses, settings.ports, settings.tracked_ports)
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._run = run
        self._look = look
        self._problems: dict[str, str] = {}
        self._addresses: tuple[str, ...] = ()
        self._kind = ""
        self._backend = self._reason = ""
        self._loops: list[Deferred[None]] = []

    @property
    def ready(self) -> bool:
        """
        Whether all that was asked for is there.
        """
        return not self._settings.enable_dummy_if or (self.addresses == self._link.addresses and self.problem is None)

    @property
    def addresses(self) -> tuple[str, ...]:
        """
        The addresses that could be bound at the last look.
        """
        return self._addresses

    @property
    def problem(self) -> str | None:
        """
        What is missing and why, for readiness; None when all is there.
        """
        settings, found = self._settings, self._problems
        texts = [f"{text}; retrying" for _, text in sorted(found.items())]
        if settings.enable_dummy_if and not (self._kind or "link" in found):
            texts.append(f"link {self._link.name}: just started, it is being set up")
        if settings.enable_dummy_if and settings.enable_iptables and not (self._backend or "rules" in found):
            texts.append("firewall rules: just started, they are being set up")
        return "; ".join(texts) or None

    @property
    def state(self) -> dict[str, Any]:
        """
        The state as JSON values, for the status page.
        """
        return {
            "enabled": self._settings.enable_dummy_if,
            "name": self._link.name,
            "kind": self._kind or None,
            "wanted": list(self._link.addresses),
            "addresses": list(self._addresses),
            "iptables": self._settings.enable_iptables,
            "backend": self._backend or None,
            "reason": self._reason or None,
            "ready": self.ready,
            "problem": self.problem,
        }

    def startService(self) -> None:
        """
        Begin; returns at once and never fails.
        """
        super().startService()
        if not self._settings.enable_dummy_if:
            return
        self._loops.append(Deferred.fromCoroutine(self._keep("link", self._check_link, LINK_INTERVAL)))
        if self._settings.enable_iptables:
            self._loops.append(Deferred.fromCoroutine(self._keep("rules", self._check_rules, RULES_INTERVAL)))

    def stopService(self) -> Deferred[None]:
        """
        Remove what is ours; fires when that is done, or after STOP_TIMEOUT.
        """
        super().stopService()
        loops, self._loops = self._loops, []
        for loop in loops:
            loop.cancel()
        return Deferred.fromCoroutine(self._remove() if loops else _nothing())

    async def _keep(self, what: str, check: Callable[[], Awaitable[str | None]], interval: float) -> None:
        """
        Check again and again: every ``interval`` seconds while all is well, with growing pauses while it is not.
        """
        retry = FIRST_RETRY
        pause = 0.0  # the first child is spawned by a running reactor
        try:
            while True:
                await deferLater(self._reactor, pause)
                problem = await self._try(check)
                self._tell(what, problem)
                pause = interval if problem is None else retry
                retry = FIRST_RETRY if problem is None else min(2 * retry, LAST_RETRY)
        except CancelledError:
            return

    async def _try(self, check: Callable[[], Awaitable[str | None]]) -> str | None:
        try:
            return await check()
        except HostError as error:
            return str(error)
        except OSError as error:
            return f"link {self._link.name}: {error.strerror}"

    def _tell(self, what: str, problem: str | None) -> None:
        before = self._problems.pop(what, None)
        if problem is not None:
            self._problems[what] = problem
        if problem is None and before is not None:
            self.log.info("{what} of {name}: all is well again", what=what, name=self._link.name)
        elif problem is not None and problem != before:
            self.log.warn("{problem}; retrying", problem=problem)

    async def _check_link(self) -> str | None:
        # A link left by a crash can be used at once, but may still have to be put in order.
        if self._announce() == self._link.addresses and self._kind:
            return None
        result = await self._ask(Request("ensure", link=self._link))
        self._kind = result.link_kind
        if result.changes:
            # Between two looks it may have gone and come: whoever failed to listen meanwhile is to try again.
            self._addresses = ()
        missing = set(self._link.addresses) - set(self._announce())
        if missing and not result.problems:
            return f"link {self._link.name}: {', '.join(sorted(missing))} cannot be used yet"
        return "; ".join(result.problems) or None

    async def _check_rules(self) -> str | None:
        result = await self._ask(Request("ensure", rules=self._rules))
        self._backend, self._reason = result.backend, result.reason
        return f"firewall rules: {'; '.join(result.problems)}" if result.problems else None

    async def _ask(self, request: Request) -> Result:
        result = await self._run(self._reactor, request)
        for change in result.changes:
            self.log.info("{change}", change=change)
        return result

    def _announce(self) -> tuple[str, ...]:
        """
        Look at the link; tell of addresses that were not there at the last look.
        """
        before, self._addresses = self._addresses, self._look(self._link.name, self._link.addresses)
        if set(self._addresses) - set(before):
            with self.log.failuresHandled("listening on {name}", name=self._link.name):
                self._on_ready(self._addresses)
        elif set(before) - set(self._addresses):
            with self.log.failuresHandled("leaving {name}", name=self._link.name):
                self._on_lost(self._addresses)
        return self._addresses

    async def _remove(self) -> None:
        rules = self._rules if self._settings.enable_iptables else None
        try:
            result = await self._run(self._reactor, Request("remove", self._link, rules), timeout=STOP_TIMEOUT)
        except HostError as error:
            self.log.warn("link {name} was not removed: {reason}", name=self._link.name, reason=str(error))
            return
        for problem in result.problems:
            self.log.warn("stopping: {problem}", problem=problem)


async def _nothing() -> None:
    return
