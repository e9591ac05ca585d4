"""
The tunnel servers of a cluster, who find each other by Leases in kube-system.

Each server has a Lease of its own with the label ``openyurt.io/tunnel-server=true``, and an annotation that says where the
others reach it.  A server is alive for as long after its Lease was last seen to change as the Lease lasts.  While the API
server cannot be reached nobody is declared dead: the tunnel does not depend on it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import msgspec
from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.kube.api import ApiClient, ApiError, Document
from yurt.kube.informer import Informer
from yurt.kube.lease import lease_document, leases_path, micro_time
from yurt.kube.pause import pause
from yurt.options import host_port
from yurt.tunnel.connect import authority

NAMESPACE = "kube-system"
LABEL = "openyurt.io/tunnel-server"
ADDRESS = "openyurt.io/tunnel-server-address"
"""The annotation with ``host:port``, an IPv6 host in brackets."""
NAME_PREFIX = "yurt-tunnel-server-"

DURATION = 30
"""Seconds that a server's Lease lasts."""
RENEWAL = 10.0
"""Seconds between two renewals, sooner by up to a tenth."""
BLIND_AFTER = 1.5 * RENEWAL
"""Seconds after its own last renewal came back to it that a server takes itself for blind."""
GARBAGE_AFTER = 300.0
"""A Lease that did not change for so many seconds is removed: a server that crashed cannot do it."""
LEAVE_TIMEOUT = 2.0
"""Seconds that a stop waits for its Lease to be removed."""
MAX_MEMBERS = 64
"""Servers that are taken note of."""


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """
    Another tunnel server, and where it listens for agents and for its like.
    """

    id: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Presence:
    """
    One state of a server's Lease.
    """

    name: str
    member: Member | None
    duration: int
    renewed: str
    version: str
    uid: str


class _Metadata(msgspec.Struct):
    name: str
    resourceVersion: str = ""
    uid: str = ""
    annotations: dict[str, str] | None = None


class _Spec(msgspec.Struct):
    holderIdentity: str | None = None
    leaseDurationSeconds: int | None = None
    renewTime: str | None = None


class _Lease(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec | None = None


_decode = msgspec.json.Decoder(_Lease).decode


def read_presence(body: bytes) -> Presence:
    """
    The Lease of a server; its ``member`` is None if nobody could reach that.  Raises msgspec.DecodeError.
    """
    lease = _decode(body)
    spec, metadata = lease.spec or _Spec(), lease.metadata
    host, port = _place((metadata.annotations or {}).get(ADDRESS, ""))
    member = Member(spec.holderIdentity, host, port) if spec.holderIdentity and port else None
    duration = spec.leaseDurationSeconds or DURATION
    return Presence(metadata.name, member, duration, spec.renewTime or "", metadata.resourceVersion, metadata.uid)


def _place(address: str) -> tuple[str, int]:
    """
    Host and port; port 0 when the address says nothing that can be used.
    """
    try:
        return host_port(address, 0)
    except ValueError:
        return "", 0


class Members(MultiService):
    """
    Keeps this server's Lease, and knows the ``members``: the other servers, sorted.

    ``server_id`` is new at each start of a server, ``host`` and ``port`` are where others reach it.  ``wall`` is the time of
    day in seconds, ``draw`` gives numbers from 0 up to 1.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        client: ApiClient,
        server_id: str,
        host: str,
        port: int,
        *,
        wall: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        super().__init__()
        self.members: tuple[Member, ...] = ()
        self.renewals = 0
        """Renewals of the Lease that the API server took."""
        self._reactor = reactor
        self._client = client
        self._id = server_id
        self._name = NAME_PREFIX + server_id
        self._key = f"{NAMESPACE}/{self._name}"
        self._address = authority(host, port)
        self._wall = wall
        self._draw = draw
        self._path = leases_path(NAMESPACE)
        self._problem: str | None = None
        self._changed_at: dict[str, float] = {}
        self._subscribers: list[Callable[[tuple[Member, ...]], object]] = []
        self._renewing: Deferred[None] | None = None
        self.informer: Informer[Presence] = Informer(
            reactor, client, self._path, read_presence, what="Leases of the tunnel servers", label_selector=f"{LABEL}=true"
        )
        self.informer.subscribe(self._seen)
        self.informer.on_synced(self._review)
        self.informer.setServiceParent(self)

    @property
    def problem(self) -> str | None:
        """
        Why others may not know of this server, or this one not of others.
        """
        return self._problem or self.informer.problem

    def subscribe(self, callback: Callable[[tuple[Member, ...]], object]) -> Callable[[], None]:
        """
        Call ``callback(members)`` when they change; answers how to end that.
        """
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def startService(self) -> None:
        """
        Tell of this server, and look for the others.
        """
        super().startService()
        self._renewing = Deferred.fromCoroutine(self._renew_for_ever())
        self._renewing.addErrback(_cancelled)

    def stopService(self) -> Deferred[None]:
        """
        Remove the Lease, so that the others know at once.
        """
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            renewing.cancel()
        stopped = cast("Deferred[object]", super().stopService())
        return stopped.addCallback(lambda _: Deferred.fromCoroutine(self._leave()))

    # This server

    async def _renew_for_ever(self) -> None:
        while True:
            try:
                await self._renew()
                self.renewals += 1
                self._problem = None
            except ApiError as error:
                problem = f"Lease {self._key}: {error}"
                if problem != self._problem:
                    self.log.warn("{problem}; trying again", problem=problem)
                self._problem = problem
            except CancelledError:
                raise
            except Exception as error:
                self._problem = f"Lease {self._key}: {error}"
                self.log.failure("a mistake of ours in the renewal of a Lease")
            self._review()
            await self._collect_garbage()
            await pause(self._reactor, RENEWAL * (1 - 0.1 * self._draw()))

    async def _renew(self) -> None:
        spec = {"holderIdentity": self._id, "leaseDurationSeconds": DURATION, "renewTime": micro_time(self._wall())}
        metadata = {"labels": {LABEL: "true"}, "annotations": {ADDRESS: self._address}}

        def renewed(found: Document | None) -> Document:
            return lease_document(NAMESPACE, self._name, spec, {**(found or {}).get("metadata", {}), **metadata})

        await self._client.edit(self._path, self._name, renewed)

    async def _leave(self) -> None:
        try:
            await self._client.delete(f"{self._path}/{self._name}", timeout=LEAVE_TIMEOUT)
        except ApiError as error:
            self.log.info("Lease {name} stays until another server removes it: {error}", name=self._name, error=error)

    # The others

    def _seen(self, key: str, old: Presence | None, new: Presence | None) -> None:
        if new is None:
            self._changed_at.pop(key, None)
        else:
            self._changed_at[key] = self._reactor.seconds()
        self._review()

    @property
    def _blind(self) -> bool:
        """
        Whether renewals of others would not be seen: this server's own are not.
        """
        seen = self._changed_at.get(self._key)
        return seen is None or self._reactor.seconds() - seen > BLIND_AFTER

    def _review(self) -> None:
        """
        Who is there now.  Whoever cannot be seen is as alive as when last seen.
        """
        if not self.informer.synced:
            return
        now = self._reactor.seconds()
        if self._blind:
            self._changed_at = {key: seen if key == self._key else now for key, seen in self._changed_at.items()}
        alive = {
            one.member
            for key, one in self.informer.items.items()
            if one.member and one.member.id != self._id and now - self._changed_at[key] <= one.duration
        }
        members = tuple(sorted(alive)[:MAX_MEMBERS])
        if members == self.members:
            return
        self.members = members
        self.log.info("other tunnel servers: {members}", members=", ".join(one.id for one in members) or "none")
        for subscriber in tuple(self._subscribers):
            with self.log.failuresHandled("a subscriber to the members failed"):
                subscriber(members)

    async def _collect_garbage(self) -> None:
        """
        Remove one Lease whose server has been gone for long, if there is one and it still has not changed.
        """
        horizon = self._reactor.seconds() - GARBAGE_AFTER
        for key, one in self.informer.items.items():
            if self._changed_at[key] <= horizon and one.name != self._name:
                try:
                    await self._client.delete(f"{self._path}/{one.name}", uid=one.uid, resource_version=one.version)
                except ApiError as error:
                    self.log.info("Lease {name} of a server that is gone stays: {error}", name=one.name, error=error)
                return


def _cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)
