"""
DNS mode: names of nodes that resolve to the tunnel where the tunnel is the way to them.

ConfigMap kube-system/yurt-tunnel-nodes holds what CoreDNS's plugin *hosts* reads, and the Service
x-tunnel-server-internal-svc takes what is sent to an edge node's name to the servers, on every port that goes through the
tunnel.  One server among all, the leader, keeps both up to date.  Nothing here is in the way of the tunnel itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, cast

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.kube.api import ApiClient, ApiError, Document
from yurt.kube.election import LeaderElection
from yurt.kube.informer import Informer
from yurt.kube.pause import pause
from yurt.tunnel.server.dns_objects import read_service, read_version, records, service_ports
from yurt.tunnel.server.nodes import Nodes
from yurt.tunnel.server.ports import LivePorts

NAMESPACE = "kube-system"
RECORDS, RECORDS_KEY = "yurt-tunnel-nodes", "tunnel-nodes"
SERVICE = "x-tunnel-server-internal-svc"
LEASE = "tunnel-dns-controller"

CONFIG_MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"

COALESCE = 0.5
"""Seconds that changes are gathered before they are written."""
FIRST_PAUSE, MAX_PAUSE = 1.0, 60.0
"""After a failure the next attempt comes within this many seconds, at random, doubled with each failure in a row."""


class NotNow(Exception):
    """
    What is to be written cannot be known; the message says why.
    """


class DNSRecords(MultiService):
    """
    Keeps the records and the Service's ports like ``nodes`` and ``ports``, while this server is the leader.

    ``identity`` is this server's name in the election.  ``period`` is in seconds: without any event everything is compared
    that often.  ``draw`` gives numbers from 0 up to 1.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        client: ApiClient,
        nodes: Nodes,
        ports: LivePorts,
        identity: str,
        *,
        secure_port: int,
        insecure_port: int,
        period: float = 1800.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        super().__init__()
        self.writes = self.failures = 0
        """Objects written, and attempts that failed."""
        self._reactor = reactor
        self._client = client
        self._nodes = nodes
        self._ports = ports
        self._doors = secure_port, insecure_port
        self._period = period
        self._draw = draw
        self._problem: str | None = None
        self._poked = False
        self._asleep: Deferred[None] | None = None
        self._syncing: Deferred[None] | None = None
        self._unsubscribe: list[Callable[[], None]] = []
        self.election = LeaderElection(
            reactor, client, NAMESPACE, LEASE, identity, on_started=self._started, on_stopped=self._stopped, draw=draw
        )
        self.service = self._follow(SERVICES, SERVICE, "Service", read_service)
        self.config_map = self._follow(CONFIG_MAPS, RECORDS, "ConfigMap", read_version)
        self.election.setServiceParent(self)

    def _follow(self, path: str, name: str, kind: str, decode: Callable[[bytes], Any]) -> Informer[Any]:
        what = f"{kind} {NAMESPACE}/{name}"
        informer: Informer[Any] = Informer(
            self._reactor, self._client, path, decode, what=what, field_selector=f"metadata.name={name}", draw=self._draw
        )
        informer.subscribe(lambda key, old, new: self.poke())
        informer.on_synced(self.poke)
        informer.setServiceParent(self)
        return informer

    @property
    def leading(self) -> bool:
        """
        Whether this server writes the records.
        """
        return self.election.leading

    @property
    def problem(self) -> str | None:
        """
        Why the records may be out of date, or what keeps this server from leading.
        """
        return self.election.problem or (self._problem if self.leading else None)

    def startService(self) -> None:
        """
        Stand for election.
        """
        self._unsubscribe = [
            self._nodes.subscribe(lambda old, new: self.poke()),
            self._ports.subscribe(lambda ports: self.poke()),
        ]
        super().startService()

    def stopService(self) -> Deferred[Any]:
        """
        Write no more, and let another server lead.
        """
        while self._unsubscribe:
            self._unsubscribe.pop()()
        return cast("Deferred[Any]", super().stopService())

    # While leading

    def _started(self) -> None:
        self._syncing = Deferred.fromCoroutine(self._keep_in_step())
        self._syncing.addErrback(_cancelled)

    def _stopped(self) -> None:
        syncing, self._syncing = self._syncing, None
        if syncing is not None:
            syncing.cancel()

    def poke(self) -> None:
        """
        Something changed.
        """
        self._poked = True
        asleep, self._asleep = self._asleep, None
        if asleep is not None:
            asleep.callback(None)

    async def _keep_in_step(self) -> None:
        failures = 0
        while True:
            if not (self._nodes.synced and self._ports.synced and self.service.synced):
                await pause(self._reactor, COALESCE)
                continue
            self._poked = False
            why = await self._sync()
            problem = f"DNS records: {why}" if why else None
            if problem and problem != self._problem:
                self.log.warn("{problem}; trying again", problem=problem)
            self._problem = problem
            failures = failures + 1 if problem else 0
            self.failures += bool(problem)
            ceiling = min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 10))
            await self._sleep(ceiling * self._draw() if problem else self._period)
            await pause(self._reactor, COALESCE)

    async def _sleep(self, seconds: float) -> None:
        """
        Until it is time, or something changes.
        """
        if self._poked:
            return
        timer = self._reactor.callLater(seconds, self.poke)
        self._asleep = Deferred()
        try:
            await self._asleep
        finally:
            self._asleep = None
            if timer.active():
                timer.cancel()

    async def _sync(self) -> str:
        """
        Compare and write both objects, each whatever becomes of the other; why that failed, or an empty text.
        """
        problems = []
        for write in (self._write_records, self._write_ports):
            try:
                self.writes += await write()
            except (ApiError, NotNow) as error:
                problems.append(str(error))
            except CancelledError:
                raise
            except Exception as error:
                problems.append(str(error))
                self.log.failure("a mistake of ours in the DNS records")
        return "; ".join(dict.fromkeys(problems))

    async def _write_records(self) -> bool:
        address, _ = self._found_service()
        if not address:
            raise NotNow(f"Service {NAMESPACE}/{SERVICE} has no ClusterIP, so edge nodes have no address")
        text = records(self._nodes.all(), address)

        def change(found: Document | None) -> Document:
            config_map = found or {"metadata": {"namespace": NAMESPACE, "name": RECORDS}}
            changed = {**config_map, "data": {**(config_map.get("data") or {}), RECORDS_KEY: text}}
            if RECORDS_KEY in (config_map.get("binaryData") or {}):  # a key may be in one of the two only
                changed["binaryData"] = {key: value for key, value in config_map["binaryData"].items() if key != RECORDS_KEY}
            return changed

        return await self._client.edit(CONFIG_MAPS, RECORDS, change)

    async def _write_ports(self) -> bool:
        self._found_service()

        def change(found: Document | None) -> Document | None:
            if found is None:
                return None
            spec = found.get("spec") or {}
            ports = service_ports(spec.get("ports") or [], self._ports.ports.tunnel_ports, *self._doors)
            return {**found, "spec": {**spec, "ports": ports}}

        return await self._client.edit(SERVICES, SERVICE, change)

    def _found_service(self) -> tuple[str, str]:
        found: tuple[str, str] | None = self.service.items.get(f"{NAMESPACE}/{SERVICE}")
        if found is None:
            raise NotNow(f"Service {NAMESPACE}/{SERVICE} is missing; apply the manifest of the tunnel server")
        return found


def _cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)
