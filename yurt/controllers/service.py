"""
The controllers as a daemon: their parts wired together.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Mapping
from typing import Any, cast

from twisted.application.service import IServiceCollection, MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger

from yurt import __version__
from yurt.controllers.config import ControllersConfig
from yurt.controllers.leading import Controllers
from yurt.controllers.metrics import PREFIX, ManagerMetrics
from yurt.controllers.pages import pages
from yurt.controllers.registry import chosen
from yurt.kube.api import client_from_kubeconfig
from yurt.lifecycle import OnHangup
from yurt.listening import Listen, tcp_endpoint
from yurt.memory import ReturnMemory
from yurt.metrics import ReactorLag, new_registry
from yurt.sdnotify import Notify, watchdog_interval

PRODUCT = "yurt-controller-manager"


class ControllerManager(MultiService):
    """
    All of ``twistd yurt-controller-manager``.

    Raises :exc:`~yurt.kube.kubeconfig.KubeconfigError` and :exc:`~yurt.tls.CredentialsError`.
    """

    log = Logger()

    def __init__(self, reactor: Any, config: ControllersConfig) -> None:
        super().__init__()
        self.client = client_from_kubeconfig(reactor, config.kubeconfig, PRODUCT)
        self.prometheus = new_registry()
        self.started_at = 0.0
        self.stopping = False
        self.controllers = Controllers(
            reactor,
            self.client,
            chosen(config),
            f"{socket.gethostname()}_{uuid.uuid4()}",
            ManagerMetrics(self.prometheus, PRODUCT),
            namespace=config.working_namespace,
            resync=config.min_resync_period,
        )
        site = cast(IProtocolFactory, pages(self.readiness, self.status, self.prometheus))
        self.add(ReturnMemory(reactor))
        for host, port in dict.fromkeys(one for one in (config.metrics_addr, config.health_probe_addr) if one):
            self.add(Listen(tcp_endpoint(reactor, host, port), site, f"pages on {host}:{port}"))
        self.add(self.controllers)
        self.add(ReactorLag(reactor, self.prometheus, PREFIX))
        self.add(OnHangup(reactor, self.reload))
        self.add(Notify(reactor, interval=watchdog_interval()))

    def add(self, child: Any) -> None:
        """
        Make ``child`` start and stop with this service.
        """
        cast(Service, child).setServiceParent(IServiceCollection(self))

    def startService(self) -> None:
        """
        Listen, and stand for election.
        """
        self.started_at = time.monotonic()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """
        Write no more, let another one lead, then close.
        """
        self.stopping = True
        return Deferred.fromCoroutine(self.stop())

    async def stop(self) -> None:
        """
        The Lease is given up while there still is a client to do it with.
        """
        await cast("Deferred[None]", super().stopService())
        self.client.close()
        self.log.info("the controllers have stopped")

    def reload(self) -> None:
        """
        Nothing has to be done for a SIGHUP, which must not end the process either.
        """
        self.log.info("certificates, keys and tokens in files are read again whenever they change")

    def readiness(self) -> list[str]:
        """
        Why the controllers are not ready.
        """
        return ["the daemon is stopping"] if self.stopping else self.controllers.unready()

    def status(self) -> Mapping[str, object]:
        """
        The daemon's state for people.
        """
        uptime = round(time.monotonic() - self.started_at) if self.started_at else 0
        return {"version": __version__, "uptimeSeconds": uptime, **self.controllers.status()}
