"""
The controllers as a whole: they run while this process leads, and no longer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from twisted.application.service import IServiceCollection, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from yurt.controllers.config import LEASE
from yurt.controllers.controller import Controller
from yurt.controllers.metrics import ControllerMetrics, ManagerMetrics
from yurt.controllers.runner import Runner
from yurt.kube.api import ApiClient
from yurt.kube.election import LeaderElection


class Controllers(MultiService):
    """
    Stands for election as ``identity``, and runs ``chosen`` while it leads.  Who lost the lead goes on as a candidate.

    ``resync`` is in seconds, ``wall`` the time of day.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        client: ApiClient,
        chosen: Sequence[Controller],
        identity: str,
        metrics: ManagerMetrics,
        *,
        namespace: str,
        resync: float,
        wall: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        super().__init__()
        self.chosen = chosen
        self.runners: list[Runner] = []
        self._reactor = reactor
        self._client = client
        self._metrics = metrics
        self._of_each = {controller.name: ControllerMetrics(metrics, controller.name) for controller in chosen}
        self._resync = resync
        self._wall = wall
        self._draw = draw
        self.election = LeaderElection(
            reactor, client, namespace, LEASE, identity, on_started=self._begin, on_stopped=self._end, wall=wall, draw=draw
        )
        self.election.setServiceParent(IServiceCollection(self))

    def _begin(self) -> None:
        self._metrics.leader.set(1)
        self._metrics.transitions.inc()
        for controller in self.chosen:
            runner = Runner(
                self._reactor,
                self._client,
                controller,
                self._of_each[controller.name],
                resync=self._resync,
                wall=self._wall,
                draw=self._draw,
            )
            self.runners.append(runner)
            runner.setServiceParent(IServiceCollection(self))

    def _end(self) -> None:
        self._metrics.leader.set(0)
        runners, self.runners = self.runners, []
        for runner in runners:
            stopped = cast("Deferred[Any] | None", runner.disownServiceParent())
            if stopped is not None:
                stopped.addErrback(lambda failure: self.log.failure("a controller did not stop in good order", failure))

    def stopService(self) -> Deferred[Any]:
        """
        Write no more, and give the Lease up.
        """
        return cast("Deferred[Any]", super().stopService())

    # What is shown

    def unready(self) -> list[str]:
        """
        Why it does not do its work, one sentence each: a candidate is ready when it knows who leads.
        """
        if not self.election.leading:
            who = [] if self.election.leader else ["nobody leads, as far as is known"]
            return [self.election.problem] if self.election.problem else who
        return [f"{one.controller.name}: {one.problem()}" for one in self.runners if not one.ready]

    def status(self) -> Mapping[str, object]:
        """
        The state for people.
        """
        running = {runner.controller.name: runner for runner in self.runners}
        return {
            "identity": self.election.identity,
            "leading": self.election.leading,
            "leader": self.election.leader,
            "problems": [*self._problems()],
            "controllers": {
                one.name: running[one.name].status() if one.name in running else "waits for the lead" for one in self.chosen
            },
        }

    def _problems(self) -> list[str]:
        found = [self.election.problem] if self.election.problem else []
        return found + [f"{one.controller.name}: {problem}" for one in self.runners if (problem := one.problem())]
