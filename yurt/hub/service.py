"""
The hub as a Twisted service: its parts wired together, started and stopped in order.

No step of the start waits for the network; a listener on loopback that cannot be bound ends the start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import IServiceCollection, MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt import __version__
from yurt.http.client import HTTPUpstream
from yurt.http.environment import proxy_for
from yurt.http.limits import ClientLimits
from yurt.http.names import RememberingResolver
from yurt.hub.admin import admin_site
from yurt.hub.admittance import AdmittedUpstream, Validity
from yurt.hub.agents import DEFAULT_CACHE_AGENTS
from yurt.hub.cache.store import Store
from yurt.hub.cache.vault import Vault
from yurt.hub.cache.views import GETS, Caller, ViewKey, Views
from yurt.hub.cloud import Cloud, CloudSettings, Server
from yurt.hub.config import HubConfig, NodeCredentials
from yurt.hub.doors import Doors, pod_addresses
from yurt.hub.earlier import remember
from yurt.hub.health import PATIENT_TIMEOUT
from yurt.hub.hub import Hub
from yurt.hub.identity import NODE
from yurt.hub.joining import Joining
from yurt.hub.knowntime import KnownTime
from yurt.hub.metrics import Figures, HubMetrics, LedFigures, ServerFigures
from yurt.hub.nodetoken import NodeToken
from yurt.hub.ota import UpgradePage, Upgrades
from yurt.hub.podlink import PodLink
from yurt.hub.proxy import HubProxy
from yurt.hub.serving import Serving, serving_addresses
from yurt.hub.turns import Steps
from yurt.kube.csr.files import read_small
from yurt.kube.kubeconfig import load_kubeconfig
from yurt.lifecycle import MAX_OPEN_FILES, OnHangup
from yurt.listening import Listen, tcp_endpoint
from yurt.memory import ReturnMemory
from yurt.metrics import ReactorLag, new_registry
from yurt.sdnotify import Notify, watchdog_interval
from yurt.tls import ClientTLS

DRAIN_TIMEOUT = 5.0
"""Seconds that requests in flight have at a stop."""

AWAITED_INTERVAL = 5.0
"""Seconds between two looks at files that somebody else is to write."""

LIMITS = ClientLimits(connect_timeout=PATIENT_TIMEOUT)
"""The way to a server may take as long as a patient probe; of one that was quick and falls silent other probes tell soon."""

KUBELET_PODS = ViewKey(Caller(NODE, "kubelet"), "/v1/pods", "", "", "", "")


class HubService(MultiService):
    """
    All of ``twistd yurthub``.
    """

    log = Logger()

    def __init__(self, reactor: Any, config: HubConfig, open_files: int = MAX_OPEN_FILES) -> None:
        super().__init__()
        self.reactor = reactor
        self.config = config
        self.started_at = 0.0
        self.joining = self.make_joining()
        credentials = config.credentials if self.joining is None else self.joining.credentials()
        self.missing = _unusable(config) if credentials.awaited else ""
        """Why the files that hold the node's identity cannot be used yet."""
        credentials = NodeCredentials() if self.missing else credentials
        self.validity = Validity(credentials.for_tls())
        self.token = NodeToken(credentials)
        self.tls = ClientTLS(credentials.for_tls(), credentials.tls_server_name)
        self.bare_tls = self.tls.without_certificate()
        self.registry = new_registry()
        self.upstreams: list[HTTPUpstream] = []
        self.metrics = HubMetrics(self.registry, __version__, self.figures, {*DEFAULT_CACHE_AGENTS, *config.cache_agents})
        self.vault = Vault(config.root_dir)
        self.store = Store(reactor, config.disk_cache_path, vault=self.vault)
        self.time = KnownTime(reactor, self.store.table("meta"))
        self.cloud = Cloud(
            reactor,
            [self.make_server(url) for url in config.servers],
            CloudSettings(config.lb_mode, config.watch_failover, config.heartbeat_interval),
            self.token.headers,
            memory=self.store.table("meta"),
            heard=self.time.told,
        )
        self.views = Views(self.store, reactor, self.time, config.cache_quota)
        self.hub = Hub(reactor, config, self.cloud, self.store, self.views, self.metrics, self.token, self.time)
        self.serving = self.make_serving()
        self.follow_authorities(credentials)
        proxy, send_pods = HubProxy(self.hub), self.hub.filters.set_address
        self.doors = Doors(reactor, config, proxy, self.serving, self.cloud, open_files, send_pods)
        self.pages: Listen | None = None
        self.link: PodLink | None = None
        self.wire()

    # Wiring

    def make_server(self, url: str) -> Server:
        """
        An API server, reached with the node's certificate and without.
        """
        proxy = proxy_for(url, os.environ)
        with_certificate = HTTPUpstream(self.reactor, url, self.tls, proxy, LIMITS)
        bare = HTTPUpstream(self.reactor, url, self.bare_tls, proxy, LIMITS)
        self.upstreams += [with_certificate, bare]
        return Server(url, AdmittedUpstream(self.reactor, with_certificate, self.refusal), bare)

    def refusal(self) -> str:
        """
        Why the node cannot speak to the cloud; empty when it can.  Asked for each request.
        """
        if self.joining is not None:
            return self.joining.refusal()
        return self.missing or self.validity.refusal()

    def make_joining(self) -> Joining | None:
        """
        What keeps the node's certificate, unless it was given one.
        """
        config = self.config
        if config.join is None:
            return None
        organizations = config.hub_cert_organizations
        return Joining(self.reactor, config.join, config.root_dir, config.node_name, organizations, self.renew)

    def make_serving(self) -> Serving | None:
        """
        What keeps the certificate of the HTTPS doors, if there are any.
        """
        config = self.config
        addresses = (*pod_addresses(config), *config.bind_proxy_addresses)
        if not config.proxy_secure_port or not addresses:
            return None
        names = serving_addresses((*addresses, config.bind_address))
        return Serving(self.reactor, self.cloud, config.root_dir, config.node_name, names, lambda: self.doors.look())

    def wire(self) -> None:
        """
        The child services, in the order of their start.
        """
        config = self.config
        self.add(self.doors)
        if config.serve_port:
            endpoint = tcp_endpoint(self.reactor, config.bind_address, config.serve_port)
            take_token = None if self.joining is None else self.joining.take_token
            site = admin_site(self, self.registry, take_token, UpgradePage(Upgrades(self.hub, config.static_pods)))
            self.pages = Listen(endpoint, site, f"admin pages on {config.bind_address}:{config.serve_port}")
            self.add(self.pages)
        self.add(ReturnMemory(self.reactor))
        self.add(Core(self))
        if self.missing:
            looking = TimerService(AWAITED_INTERVAL, self.look_for_identity)
            looking.clock = self.reactor
            self.add(looking)
        for certificates in (self.joining, self.serving):
            if certificates is not None:
                self.add(certificates)
        if pod_addresses(config) and (config.proxy_port or config.proxy_secure_port):
            self.link = PodLink(self.reactor, config.pod_link, self.doors.bind, self.doors.lose)
        self.add(ReactorLag(self.reactor, self.registry, "node_yurthub"))
        self.add(OnHangup(self.reactor, self.reload))
        self.add(Notify(self.reactor, interval=watchdog_interval()))

    def add(self, child: Service) -> None:
        """
        Make ``child`` start and stop with this service.
        """
        child.setServiceParent(IServiceCollection(self))

    # Running

    @property
    def listeners(self) -> list[Listen]:
        """
        All of them.
        """
        return [*self.doors.listeners, *([] if self.pages is None else [self.pages])]

    def reload(self) -> None:
        """
        Read kubeconfig, certificates and tokens again.
        """
        if self.serving is not None:
            self.serving.certificate.retry()
        if self.joining is not None:
            self.joining.retry()
            return
        try:
            credentials = _named_credentials(self.config)
            self.tls.replace(credentials.for_tls())
            self.bare_tls.replace(credentials.trust_for_tls())
        except ValueError as error:
            self.log.error("credentials stay as they were: {error}", error=str(error))
            return
        for tls in (self.tls, self.bare_tls):
            tls.ask_for(credentials.tls_server_name)
        self.token.replace(credentials)
        self.validity.replace(credentials.for_tls())
        self.follow_authorities(credentials)
        self.log.info("credentials were read again")

    def look_for_identity(self) -> None:
        """
        Use the files that were awaited as soon as they are there, and whole.
        """
        if self.missing:
            before, self.missing = self.missing, _unusable(self.config)
            if not self.missing:
                self.reload()
            elif before != self.missing:
                self.log.warn("{problem}", problem=self.missing)

    def renew(self) -> None:
        """
        Another certificate or another CA is there: it is for new connections, those that are open end with what they carry.
        """
        assert self.joining is not None
        credentials = self.joining.credentials()
        try:
            self.tls.replace(credentials.for_tls())
            self.bare_tls.replace(credentials.trust_for_tls())
        except ValueError as error:
            self.log.error("the new certificate cannot be used: {error}", error=str(error))
            return
        self.validity.replace(credentials.for_tls())
        self.follow_authorities(credentials)
        for upstream in self.upstreams:
            upstream.retire_connections()

    def follow_authorities(self, credentials: NodeCredentials) -> None:
        """
        The cluster may have another CA: pods that trust that one alone need another serving certificate.
        """
        authorities = credentials.ca_data or b""
        with suppress(OSError):
            authorities = read_small(Path(credentials.ca_file)) if credentials.ca_file else authorities
        if self.serving is not None:
            self.serving.follow(authorities)

    # What the admin pages show

    def readiness(self) -> list[str]:
        """
        Why the hub is not ready.
        """
        reasons = [listener.problem for listener in self.listeners if listener.problem]
        if self.serving is not None and self.serving.expired:
            reasons.append(str(self.serving.certificate.problem))
        if self.store.problem:
            reasons.append(f"cache {self.config.disk_cache_path}: {self.store.problem}")
        if self.vault.problem:
            reasons.append(f"key of the cached secrets: {self.vault.problem}")
        if self.link is not None and self.link.problem:
            reasons.append(self.link.problem)
        refusal = self.refusal()
        if refusal:
            reasons.append(refusal)
        if not self.cloud.known:
            reasons.append("the cloud's state is not known yet")
        return reasons

    def warnings(self) -> list[str]:
        """
        What is wrong without keeping the hub from being ready: nobody is sent to a door that was never open.
        """
        serving = self.serving
        problem = None if serving is None or serving.expired else serving.certificate.problem
        return [text for text in (self.validity.mismatch(self.config.node_name), problem, self.time.problem) if text]

    def status(self) -> Deferred[Mapping[str, object]]:
        """
        The hub's state for people; measuring the cache takes several turns of the reactor.
        """
        measured: Deferred[dict[ViewKey, int]] = Deferred()

        def steps() -> Steps:
            try:
                usage: dict[ViewKey, int] | Failure = yield from self.views.upkeep.measure()
            except Exception:
                usage = Failure()
            if not measured.called:
                measured.callback(usage)

        self.hub.turns.run(steps)
        return measured.addCallback(self.describe)

    def describe(self, usage: Mapping[ViewKey, int]) -> Mapping[str, object]:
        """
        The hub's state; ``usage`` tells the bytes that each view holds.
        """
        steady = self.reactor.seconds()
        cloud, store, journal = self.cloud, self.store, self.hub.journal
        return {
            "version": __version__,
            "node": self.config.node_name,
            "uptimeSeconds": round(steady - self.started_at) if self.started_at else 0,
            "cloud": {
                "reachable": cloud.reachable,
                "reason": cloud.reason,
                "sinceSeconds": round(steady - cloud.since),
                "offlineSeconds": round(cloud.offline_seconds(), 1),
                "servers": [
                    {"url": one.name, "healthy": one.healthy, "trusted": cloud.trusts(one), "reason": cloud.doubt(one)}
                    for one in cloud.servers
                ],
            },
            "certificate": None if self.joining is None else self.joining.certificate.status(),
            "servingCertificate": None if self.serving is None else self.serving.certificate.status(),
            "listeners": [
                {"what": one.what, "listening": one.port is not None, "problem": one.problem} for one in self.listeners
            ],
            "passThrough": self.doors.passing.status(),
            "link": None if self.link is None else self.link.state,
            "cache": {
                "path": self.config.disk_cache_path,
                "problem": store.problem,
                "objects": self.views.objects,
                "bytes": self.views.object_bytes,
            },
            "lease": {"kubeletAlive": self.hub.lease.kubelet_alive, "renewedAt": self.hub.lease.renewed_at},
            "journal": {"length": len(journal), "dropped": journal.dropped},
            "watches": len(self.hub.watches),
            "filters": self.hub.filters.describe(),
            "views": [
                {
                    "identity": key.caller.identity,
                    "component": key.caller.component,
                    "resource": key.gvr,
                    "form": key.form,
                    "namespace": "" if key.namespace == GETS else key.namespace,
                    "single": key.namespace == GETS,
                    "labelSelector": key.label_selector,
                    "fieldSelector": key.field_selector,
                    "complete": info.complete,
                    "resourceVersion": info.resource_version,
                    "ageSeconds": round(self.time() - info.updated_at),
                    "objects": info.members,
                    "bytes": usage.get(key, 0),
                }
                for key, info in self.views.views()
            ],
        }

    def pods(self) -> bytes | None:
        """
        The pods of this node as kubelet last knew them.
        """
        selector = f"spec.nodeName={self.config.node_name}"
        for field_selector in (selector, ""):
            key = ViewKey(KUBELET_PODS.caller, KUBELET_PODS.gvr, "", "", "", field_selector)
            found = self.views.read_list(key)
            if found is not None:
                return found.body
        return None

    def figures(self) -> Figures:
        """
        What the metrics ask for at a scrape.
        """
        cloud, store, journal = self.cloud, self.store, self.hub.journal
        return Figures(
            servers={
                one.name: ServerFigures(one.healthy, one.upstream.open_connections + one.bare.open_connections)
                for one in cloud.servers
            },
            cloud_reachable=cloud.reachable,
            offline_seconds=cloud.offline_seconds(),
            certificate_expires_in=(self.validity.expires_in() if self.joining is None else self.joining.certificate.expires_in),
            serving_certificate_expires_in=None if self.serving is None else self.serving.certificate.expires_in,
            led=LedFigures(len(self.doors.passing.connections), self.doors.passing.taken, self.doors.passing.failed),
            cache_objects=self.views.objects,
            cache_bytes=self.views.object_bytes,
            cache_commits=store.commits,
            cache_write_errors=store.write_errors,
            cache_corrupt_records=store.corrupt_records,
            cache_dropped=store.dropped,
            cache_locked_records=store.locked_records,
            cache_quota=self.config.cache_quota.total,
            cache_refused=self.views.refused,
            swept=self.hub.housekeeping.swept,
            journal_length=len(journal),
            journal_dropped=journal.dropped,
            filters_unfiltered=self.hub.filters.unfiltered,
            filters_degraded=self.hub.filters.degraded.keys(),
        )


def _named_credentials(config: HubConfig) -> NodeCredentials:
    """
    The identity that the node was given, as it stands in files now.  Raises ValueError for a kubeconfig that cannot be used.
    """
    return config.credentials if config.kubeconfig is None else NodeCredentials.of_kubeconfig(load_kubeconfig(config.kubeconfig))


def _unusable(config: HubConfig) -> str:
    """
    Why the identity that is awaited cannot be used; empty when it can.
    """
    try:
        ClientTLS(_named_credentials(config).for_tls())
    except ValueError as error:
        return f"the node has no identity: {error}"
    return ""


class Core(Service):
    """
    The parts in their order: disk, lease, journal, cloud, and the link for pods; and backwards, after the requests.
    """

    log = Logger()

    def __init__(self, parent: HubService) -> None:
        self.whole = parent
        self.resolver: IHostnameResolver | None = None

    def startService(self) -> None:
        """
        Open the disk, and begin to look for the cloud.
        """
        super().startService()
        whole = self.whole
        whole.started_at = whole.reactor.seconds()
        whole.store.open()
        if whole.missing:
            self.log.error("{problem}: the cache is served until it can be used", problem=whole.missing)
        else:
            self.remember_identity(whole.config)
        whole.time.start()
        names = RememberingResolver(whole.reactor.nameResolver, whole.reactor, whole.store.table("meta"))
        self.resolver = whole.reactor.installNameResolver(names)
        whole.hub.journal.load()
        whole.hub.housekeeping.start()
        whole.hub.lease.start()
        whole.cloud.subscribe(whole.hub.cloud_changed)
        whole.cloud.start()
        whole.hub.start_filters()
        whole.doors.begin()
        if whole.link is not None:
            whole.link.startService()

    def remember_identity(self, config: HubConfig) -> None:
        """
        What the node was given works: a start at which it was damaged will know that.
        """
        identity = config.kubeconfig or config.credentials.cert_file or config.credentials.token_file
        if identity is not None and config.join is None:
            remember(config.root_dir, identity, config.servers)

    def stopService(self) -> Deferred[None]:
        """
        Let the requests in flight end, then close.
        """
        closed = [listener.stop_listening() for listener in self.whole.listeners]
        super().stopService()
        return Deferred.fromCoroutine(self.stop(closed))

    async def stop(self, closed: Sequence[Deferred[None]]) -> None:
        """
        Watches end in good order once the ports are ``closed``, requests within DRAIN_TIMEOUT; what is to be kept is on disk
        afterwards.

        The order is client-go's: it asks again as soon as a watch ends.  Where nobody listens it tries until it can watch on from
        where it was; a request that breaks off, on a connection that ends or a port that closes, is an empty watch to it, after
        which it lists everything anew.
        """
        for port in closed:
            await port
        whole = self.whole
        drained = [factory.drain(DRAIN_TIMEOUT) for factory in whole.doors.factories]
        whole.hub.drain()
        for end in drained:
            await end
        if whole.link is not None:
            await whole.link.stopService()
        whole.hub.patience.stop()
        whole.hub.journal.stop()
        whole.hub.issuer_keys.stop()
        whole.hub.housekeeping.stop()
        await whole.hub.lease.stop()
        await whole.cloud.stop()
        for server in whole.cloud.servers:
            server.upstream.close_connections("the hub stops")
            server.bare.close_connections("the hub stops")
        whole.hub.turns.finish()
        whole.time.stop()
        await whole.store.close()
        whole.reactor.installNameResolver(self.resolver)
        self.log.info("the hub has stopped")
