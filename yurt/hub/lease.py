"""
The node's Lease: answered to kubelet by the hub, renewed in the cloud by the hub.

The cloud must see a node whose kubelet lives as ready however weak the link is, and kubelet must never wait for the
cloud with its heartbeat.  So kubelet talks to a Lease kept here, and while it does the hub renews the one in the cloud.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

import msgspec
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.http.fetch import FetchedResponse, FetchTimeout, fetch
from yurt.http.interfaces import UpstreamError
from yurt.http.names import Memory
from yurt.hub.cloud import LOAD_BALANCER_ERRORS, Cloud, Server, is_unserved
from yurt.hub.lease_body import LEASE_NAMESPACE, STAMPED, Lease, LeaseError, read_lease, renewed
from yurt.kube.lease import API_VERSION, micro_time
from yurt.kube.patch import PatchError, apply_patch
from yurt.kube.status import status_body

RENEW_TIMEOUT = 15.0
"""Seconds that one request of a renewal may take: over a new connection it goes there and back three times.  Two that fail
must be less than the 40 s for which a node is believed."""
RENEW_ATTEMPTS = 3
"""Times that a renewal reads the Lease anew after a conflict before it waits for its next turn."""
RENEW_RETRY = 2.0
"""Seconds after which a renewal that failed is tried again."""
RENEW_SPREAD = 1.0
"""After the cloud's return the first renewal waits up to this many seconds, so that nodes do not come all at once."""
JITTER = 0.1
"""Renewals come early by up to this fraction of their interval, and so spare heartbeats, which come late."""
MAX_LEASE_BYTES = 256 * 1024
"""Bytes of an answer to a renewal that are read."""
KEY = b"lease"


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """
    Seconds between renewals, and after kubelet's last Lease call until it is taken for dead.
    """

    renew_interval: float = 10.0
    kubelet_grace: float = 40.0


class RenewalRefused(Exception):
    """
    The cloud answered, but did not renew the Lease.
    """


class NodeLease:
    """
    The Lease kube-node-lease/``node_name``.  ``wall`` is the time of day in seconds, ``draw`` gives numbers from 0 up to 1.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        cloud: Cloud,
        node_name: str,
        memory: Memory,
        settings: LeaseSettings = LeaseSettings(),
        *,
        wall: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._reactor = reactor
        self._cloud = cloud
        self._node_name = node_name
        self._memory = memory
        self._settings = settings
        self._wall = wall
        self._draw = draw
        self._kept: Lease | None = None
        self._in_cloud: Lease | None = None
        self._last_call: float | None = None
        self._timer: IDelayedCall | None = None
        self._renewal: Deferred[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._complaint = ""
        self.renewed_at = 0.0
        """Wall time of the last renewal that the cloud took; 0 before the first."""

    def start(self) -> None:
        self._kept = self._recall()
        self._unsubscribe = self._cloud.subscribe(self._cloud_changed)
        self._wait(self._spread())

    def stop(self) -> Deferred[None]:
        """
        End renewing; fires when nothing is under way.
        """
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.cancel()
        return succeed(None)

    @property
    def kubelet_alive(self) -> bool:
        """
        Whether kubelet called for its Lease within the grace period.
        """
        return self._last_call is not None and self._reactor.seconds() - self._last_call <= self._settings.kubelet_grace

    # Towards kubelet

    def forget(self) -> None:
        """
        The cloud has deleted the Lease.
        """
        self._kept = self._in_cloud = None
        self._memory.put(KEY, b"")

    def answer(self, method: str, body: bytes, content_type: str) -> tuple[int, bytes]:
        """
        Status and JSON body for kubelet's call; the call shows that kubelet lives.
        """
        was_renewing = self.kubelet_alive and self._kept is not None
        self._last_call = self._reactor.seconds()
        status, answer = self._answer(method, body, content_type)
        if self._kept is not None and not was_renewing:
            self._wait(0.0)
        return status, answer

    def _answer(self, method: str, body: bytes, content_type: str) -> tuple[int, bytes]:
        kept = self._kept
        if method == "POST":
            return self._refuse(409, "AlreadyExists", "already exists") if kept else self._take(201, body)
        if method == "PUT":
            return self._take(200 if kept else 201, body)
        if kept is None:
            return self._refuse(404, "NotFound", "not found")
        if method in ("GET", "HEAD"):
            return 200, msgspec.json.encode(kept)
        try:
            return self._take(200, msgspec.json.encode(apply_patch(content_type, kept, body, "Lease")))
        except PatchError as error:
            return self._refuse(400, "BadRequest", str(error))

    def _refuse(self, status: int, reason: str, why: str) -> tuple[int, bytes]:
        details = {"name": self._node_name, "group": "coordination.k8s.io", "kind": "leases"}
        return status, status_body(status, reason, f'leases.coordination.k8s.io "{self._node_name}" {why}', details=details)

    def _take(self, status: int, body: bytes) -> tuple[int, bytes]:
        """
        Keep what kubelet wrote, stamped as a server stamps it.
        """
        try:
            lease = read_lease(body)
        except LeaseError as error:
            return self._refuse(400, "BadRequest", f"cannot be written: {error}")
        if lease["metadata"].get("name", self._node_name) != self._node_name:
            return self._refuse(400, "BadRequest", "is the only Lease that the hub keeps for kubelet")
        kept = self._kept
        stamps = kept["metadata"] if kept else {"uid": str(uuid.uuid4()), "creationTimestamp": _whole_seconds(self._wall())}
        version = max(int(stamps.get("resourceVersion", 0)) + 1, int(self._wall() * 1000))
        lease["metadata"].update({name: stamps[name] for name in STAMPED if name in stamps})
        lease["metadata"].update(name=self._node_name, namespace=LEASE_NAMESPACE, resourceVersion=str(version))
        lease.update(apiVersion=API_VERSION, kind="Lease")
        self._kept = lease
        if kept is None or _lasting(lease) != _lasting(kept):
            self._memory.put(KEY, msgspec.json.encode(lease))
        return status, msgspec.json.encode(lease)

    def _recall(self) -> Lease | None:
        remembered = self._memory.get(KEY)
        if remembered is None:
            return None
        try:
            lease = read_lease(remembered)
        except LeaseError:
            return None
        return lease if lease["metadata"].get("name") == self._node_name else None

    # Towards the cloud

    def _spread(self) -> float:
        return self._settings.renew_interval * (1 - JITTER * self._draw())

    def _cloud_changed(self, reachable: bool) -> None:
        if reachable:
            self._wait(RENEW_SPREAD * self._draw())

    def _wait(self, delay: float) -> None:
        """
        Renew after ``delay`` seconds, instead of whenever it was due before.
        """
        if self._unsubscribe is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._reactor.callLater(delay, self._turn)

    def _turn(self) -> None:
        self._timer = None
        self._wait(self._spread())
        server = self._cloud.pick()
        if server is None or self._kept is None or not self.kubelet_alive or self._renewal is not None:
            return
        self._renewal = Deferred.fromCoroutine(self._renew(self._kept, server))
        self._renewal.addBoth(self._renewal_ended)

    def _renewal_ended(self, result: object) -> None:
        self._renewal = None
        if isinstance(result, Failure):
            self._log.failure("The node's Lease could not be renewed.", result)

    async def _renew(self, kept: Lease, server: Server) -> None:
        """
        Renew once.  What fails for want of an answer is tried again soon; the log is told of a failure when it is a new one.
        """
        complaint = ""
        try:
            await self._write(kept, server)
            self.renewed_at = self._wall()
        except CancelledError:
            return
        except UpstreamError as error:
            complaint = str(error)
            self._wait(RENEW_RETRY)
        except (RenewalRefused, LeaseError) as error:
            complaint = str(error)
        if complaint and complaint != self._complaint:
            self._log.warn("The node's Lease was not renewed: {why}", why=complaint)
        self._complaint = complaint

    async def _write(self, kept: Lease, server: Server) -> None:
        for _ in range(RENEW_ATTEMPTS):
            if self._in_cloud is None:
                read = await self._ask(server, b"GET", None)
                if read.status == 200:
                    self._in_cloud = read_lease(read.body)
                elif read.status != 404:
                    raise RenewalRefused(f"{server.name} answered {read.status} to its reading")
            method = b"PUT" if self._in_cloud else b"POST"
            written = await self._ask(server, method, renewed(kept, self._in_cloud, self._node_name, self._wall()))
            if written.status in (200, 201):
                self._in_cloud = read_lease(written.body)
                return
            self._in_cloud = None
            if written.status not in (404, 409):
                raise RenewalRefused(f"{server.name} answered {written.status} to its writing")
        raise RenewalRefused(f"somebody else writes it too: {RENEW_ATTEMPTS} conflicts in a row at {server.name}")

    async def _ask(self, server: Server, method: bytes, lease: Lease | None) -> FetchedResponse:
        """
        One request about the Lease; what comes of it says something about the server, too.  Raises UpstreamError, also when a
        load balancer has no server for it.
        """
        path = f"/apis/{API_VERSION}/namespaces/{LEASE_NAMESPACE}/leases"
        target = path if method == b"POST" else f"{path}/{quote(self._node_name)}"
        headers = [*self._cloud.node_headers(), (b"Accept", b"application/json")]
        if lease is not None:
            headers.append((b"Content-Type", b"application/json"))
        body = b"" if lease is None else msgspec.json.encode(lease)
        try:
            response = await fetch(
                self._reactor,
                server.upstream,
                method,
                target.encode(),
                headers,
                body,
                timeout=RENEW_TIMEOUT,
                limit=MAX_LEASE_BYTES,
            )
        except FetchTimeout as error:
            server.distrust_connections()
            self._cloud.suspect(server, str(error))
            raise
        except UpstreamError as error:
            self._cloud.failed(server, str(error))
            raise
        if response.status not in LOAD_BALANCER_ERRORS:
            self._cloud.answered(server)
            return response
        if is_unserved(response.status, response.headers):
            self._cloud.unserved(server, response.status)
        self._cloud.suspect(server, f"it answered {response.status} to a renewal of the Lease")
        raise UpstreamError(f"{server.name} answered {response.status}")


def _whole_seconds(seconds: float) -> str:
    return micro_time(seconds)[:19] + "Z"


def _lasting(lease: Lease) -> tuple[dict[str, object], dict[str, object]]:
    """
    What is worth a write to the disk: all but the version and the time of renewal.
    """
    metadata = {name: value for name, value in lease["metadata"].items() if name != "resourceVersion"}
    return metadata, {name: value for name, value in lease["spec"].items() if name != "renewTime"}
