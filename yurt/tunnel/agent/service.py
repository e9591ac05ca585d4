"""
The agent as a Twisted service: its parts wired together, started and stopped in order.

No step of the start waits for the network.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from twisted.application.service import IServiceCollection, MultiService, Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from yurt import __version__
from yurt.lifecycle import OnHangup
from yurt.listening import Listen, tcp_endpoint
from yurt.memory import CONNECTION_THRESHOLDS, ReturnMemory
from yurt.metrics import ReactorLag, new_registry
from yurt.sdnotify import Notify, watchdog_interval
from yurt.tls import TLS1_3, ClientTLS
from yurt.tunnel.agent.allowed import Allowed
from yurt.tunnel.agent.certificate import AgentCertificate
from yurt.tunnel.agent.config import AgentConfig
from yurt.tunnel.agent.connector import Connector
from yurt.tunnel.agent.dialler import Dialler
from yurt.tunnel.agent.meta import meta_site
from yurt.tunnel.agent.metrics import PREFIX, AgentMetrics, Figures
from yurt.tunnel.agent.names import Names


class TunnelAgent(MultiService):
    """
    All of ``twistd yurt-tunnel-agent``.
    """

    log = Logger()

    def __init__(self, reactor: Any, config: AgentConfig) -> None:
        super().__init__()
        self.config = config
        self.started_at = 0.0
        self.connecting = False
        registry = new_registry()
        metrics = AgentMetrics(registry, __version__)
        names = Names(reactor)
        allowed = Allowed(config.node_name, config.node_ips, config.ports)
        self.certificate: AgentCertificate | None = None
        credentials = config.credentials
        if not config.credentials.has_certificate:
            self.certificate = AgentCertificate(reactor, config, self.renew)
            credentials = self.certificate.credentials()
        self.tls = tls = ClientTLS(credentials, minimum=TLS1_3)
        self.dialler = Dialler(reactor, allowed, names, metrics)
        self.connector = Connector(reactor, config, tls, names, self.dialler.accept, metrics)
        metrics.read = self.figures
        self.site = meta_site(self, registry)
        if config.meta_port:
            endpoint = tcp_endpoint(reactor, config.meta_host, config.meta_port)
            self._add(Listen(endpoint, self.site, f"meta pages on {config.meta_host}:{config.meta_port}"))
        self._add(ReturnMemory(reactor, thresholds=CONNECTION_THRESHOLDS))
        if self.certificate is not None:
            self.certificate.setServiceParent(IServiceCollection(self))
        self._add(ReactorLag(reactor, registry, PREFIX))
        self._add(OnHangup(reactor, self.retry))
        self._add(Notify(reactor, interval=watchdog_interval()))

    def _add(self, child: Service) -> None:
        child.setServiceParent(IServiceCollection(self))

    # Running

    def startService(self) -> None:
        """
        Begin to connect.
        """
        super().startService()
        self.started_at = time.monotonic()
        self.connect()

    def stopService(self) -> Deferred[None]:
        """
        Let the streams that run end, then leave; the meta pages tell of it until the end.
        """
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.dialler.draining = True
        await self.connector.stop()
        await cast("Deferred[None]", super().stopService())
        self.log.info("the agent has stopped")

    def retry(self) -> None:
        """
        Wait no longer: for a certificate, for another CA, and for servers.
        """
        if self.certificate is not None:
            self.certificate.retry()
        if self.connecting and not self.dialler.draining:
            self.connector.retry()

    def renew(self) -> None:
        """
        Another certificate or CA is there, for links to come; those that there are go on.
        """
        assert self.certificate is not None
        self.tls.replace(self.certificate.credentials())
        if self.started_at and not self.dialler.draining:
            self.connect()

    def connect(self) -> None:
        """
        Begin to connect as soon as there is something to show; wait no longer if that has begun.
        """
        if self.connecting:
            self.connector.retry()
        elif self.certificate is None or self.certificate.problem is None:
            self.connecting = True
            self.connector.start()

    def figures(self) -> Figures:
        """
        What the metrics ask for at a scrape.
        """
        self.tls.refresh()
        expires_at = self.tls.expires_at
        expiry = None if expires_at is None else expires_at - time.time()
        return replace(self.connector.figures(), certificate_expires_in=expiry)

    # What the meta pages show

    def readiness(self) -> tuple[bool, Mapping[str, object]]:
        """
        See :class:`~yurt.tunnel.agent.meta.AgentState`.
        """
        connected = [{"server": route.server, "since": route.status()["since"]} for route in self.connector.connected]
        draining = self.dialler.draining
        reasons = ["the agent is about to stop"] if draining else [] if connected else self.problems
        ready = bool(connected) and not draining
        return ready, {"ready": ready, "servers": connected, "reasons": reasons}

    @property
    def problems(self) -> list[str]:
        """
        What keeps from being connected to all servers, or soon will.
        """
        self.tls.refresh()
        asked_for = None if self.certificate is None else self.certificate.problem
        return [*(problem for problem in (asked_for, self.tls.problem) if problem), *self.connector.problems]

    def status(self) -> Mapping[str, object]:
        """
        See :class:`~yurt.tunnel.agent.meta.AgentState`.
        """
        return {
            "version": __version__,
            "node": self.config.node_name,
            "uptimeSeconds": round(time.monotonic() - self.started_at) if self.started_at else 0,
            "draining": self.dialler.draining,
            "ports": sorted(self.config.ports),
            "servers": [route.status() for route in self.connector.routes],
            "problems": self.problems,
            "certificate": None if self.certificate is None else self.certificate.service.status(),
        }
