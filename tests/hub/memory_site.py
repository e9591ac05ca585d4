"""
A hub on a clock: a cloud that is scripted by hand and clients in memory, everything between them real.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.hub.cache.fixtures import InlineWriter
from yurt.http.interfaces import (
    BodyReceiver,
    ByteStream,
    FlowControlled,
    Headers,
    RequestHead,
    ResponseHead,
    ResponseReceiver,
    UpstreamError,
)
from yurt.hub.cache.store import Store
from yurt.hub.cache.vault import Vault
from yurt.hub.cache.views import Views
from yurt.hub.cloud import Cloud, CloudSettings, Server
from yurt.hub.config import HubConfig, NodeCredentials
from yurt.hub.hub import Hub
from yurt.hub.identity import Door
from yurt.hub.knowntime import KnownTime
from yurt.hub.metrics import HubMetrics
from yurt.hub.nodetoken import NodeToken
from yurt.hub.proxy import HubProxy
from yurt.metrics import new_registry

NOW = 1_700_000_000.0
"""The wall clock when the Clock stands at 0."""
NODE = "n1"
PODS = "/api/v1/pods"
MAPS = "/api/v1/namespaces/default/configmaps"
JSON = [(b"Content-Type", b"application/json")]


class HandExchange:
    """
    A request at the cloud, to be answered by hand.
    """

    def __init__(self, upstream: HandUpstream, head: RequestHead, receiver: ResponseReceiver, fresh: bool = False) -> None:
        self.upstream = upstream
        self.fresh = fresh
        self.head = head
        self.receiver = receiver
        self.body = b""
        self.cancelled = False
        self.paused = False
        self.complete = False
        self.source: FlowControlled | None = None

    @property
    def path(self) -> str:
        return self.head.target.decode().partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        pairs = self.head.target.decode().partition("?")[2].split("&")
        return dict(pair.split("=", 1) for pair in pairs if pair)

    @property
    def is_open(self) -> bool:
        return self in self.upstream.open

    # What the test does

    def begin(self, status: int = 200, headers: Headers = JSON) -> None:
        self.receiver.head_received(ResponseHead(status, b"", list(headers)))

    def send(self, data: bytes) -> None:
        if self.is_open:
            self.receiver.data_received(data)

    def end(self) -> None:
        self.upstream.forget(self)
        self.receiver.response_finished([])

    def answer(self, status: int, body: Any = b"", headers: Headers = JSON) -> None:
        if not self.is_open:
            return
        self.begin(status, headers)
        self.send(body if isinstance(body, bytes) else json.dumps(body).encode())
        if self.is_open:
            self.end()

    def fail(self, why: str = "connection reset", *, sent: bool = True) -> None:
        if self.is_open:
            self.upstream.forget(self)
            self.receiver.response_failed(UpstreamError(why, sent=sent))

    # What the hub does

    def write(self, data: bytes) -> None:
        self.body += data

    def finish(self, trailers: Headers) -> None:
        self.complete = True

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def produce_from(self, source: FlowControlled | None) -> None:
        self.source = source

    def cancel(self) -> None:
        self.cancelled = True
        self.upstream.forget(self)


@dataclass(eq=False)
class HandUpstream:
    """
    The way to a cloud: probes answer themselves as ``alive`` says, everything else waits in ``open``, unless it is refused.  A
    ``frozen`` server takes everything and answers nothing.
    """

    clock: Clock
    name: str = "https://cloud.example:6443"
    alive: bool = True
    frozen: bool = False
    pulses: int = 0
    retired: int = 0
    on_request: Callable[[HandExchange], object] | None = None
    open: list[HandExchange] = field(default_factory=list)
    seen: list[HandExchange] = field(default_factory=list)

    def send(self, head: RequestHead, receiver: ResponseReceiver, *, fresh: bool = False, **how: bool) -> HandExchange:
        exchange = HandExchange(self, head, receiver, fresh)
        self.open.append(exchange)
        self.pulses += head.target == b"*"
        if head.target in (b"/readyz", b"*"):
            self.clock.callLater(0.001, self._probe, exchange)
        elif not self.alive:
            self.clock.callLater(0.001, lambda: exchange.fail("connection refused", sent=False))
        elif exchange.path.startswith("/openid"):
            self.clock.callLater(0.001, exchange.answer, 404, b'{"kind":"Status","code":404}')
        else:
            self.seen.append(exchange)
            if self.on_request is not None:
                self.clock.callLater(0.001, lambda: exchange.is_open and self.on_request and self.on_request(exchange))
        return exchange

    def _probe(self, exchange: HandExchange) -> None:
        if not exchange.is_open or self.frozen:
            return
        if self.alive:
            exchange.answer(200, b"ok")
        else:
            exchange.fail("connection refused", sent=False)

    def forget(self, exchange: HandExchange) -> None:
        if exchange in self.open:
            self.open.remove(exchange)

    def close_connections(self, reason: str) -> None:
        for exchange in list(self.open):
            exchange.fail(reason)

    def retire_connections(self) -> None:
        self.retired += 1

    @property
    def open_connections(self) -> int:
        return len(self.open)


class MemoryRequest:
    """
    A client's request, and the answer it got so far.
    """

    def __init__(self, method: str, target: str, headers: Headers, body: bytes | None, door: Door) -> None:
        self.head = RequestHead(method.encode(), target.encode(), headers)
        self.upgrade = False
        self.has_body = body is not None
        self.peer: IAddress = IPv4Address("TCP", "127.0.0.1", 40000)
        self.door: object = door
        self.client_certificate = None
        self.server_name = ""
        self.tcp_socket = None
        self.status = 0
        self.headers: Headers = []
        self.data = b""
        self.finished = self.aborted = False
        self.full = False
        self.source: FlowControlled | None = None
        self._body = body or b""
        self._lost: Callable[[], None] | None = None

    # What the hub does

    def read_body(self, receiver: BodyReceiver) -> FlowControlled:
        half = len(self._body) // 2
        for piece in (self._body[:half], self._body[half:]):
            if piece:
                receiver.body_received(piece)
        receiver.body_finished([])
        return _NoFlow()

    def interim(self, head: ResponseHead) -> None: ...

    def respond(self, status: int, headers: Headers, body: bytes = b"", phrase: bytes = b"") -> None:
        self.start(ResponseHead(status, b"", headers))
        self.write(body)
        self.finish()

    def start(self, head: ResponseHead) -> None:
        assert not self.status, "a second head"
        self.status, self.headers = head.status, list(head.headers)

    def write(self, data: bytes) -> None:
        assert self.status and not self.finished, "written before the head, or after the end"
        self.data += data

    def finish(self, trailers: Headers | None = None) -> None:
        assert not self.finished, "finished twice"
        self.finished = True

    def abort(self) -> None:
        self.aborted = True

    def produce_from(self, source: FlowControlled | None) -> None:
        self.source = source
        if source is not None and self.full:
            source.pause()

    def when_lost(self, callback: Callable[[], None], half_closed: float | None = None) -> None:
        self._lost = callback

    def accept_upgrade(self, head: ResponseHead) -> ByteStream:
        raise NotImplementedError

    # What the test does

    def hang_up(self) -> None:
        assert self._lost is not None
        self._lost()

    def stop_reading(self) -> None:
        self.full = True
        if self.source is not None:
            self.source.pause()

    def read_on(self) -> None:
        self.full = False
        if self.source is not None:
            self.source.resume()

    def header(self, name: str) -> str:
        return b",".join(value for key, value in self.headers if key.lower() == name.lower().encode()).decode()

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.data)
        return document

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.data.splitlines()]

    @property
    def told(self) -> list[tuple[str, str]]:
        """
        Each event's type and resourceVersion.
        """
        return [(event["type"], event["object"]["metadata"]["resourceVersion"]) for event in self.events]


class _NoFlow:
    def pause(self) -> None: ...

    def resume(self) -> None: ...


class MemorySite:
    """
    A whole hub without sockets.  ``settings`` are fields of its configuration; ``servers`` is how many API servers there are.
    """

    def __init__(self, case: TestCase | SynchronousTestCase, path: str = "", servers: int = 1, **settings: Any) -> None:
        self.case = case
        self.clock = Clock()
        self.path = path or case.mktemp()
        self.upstreams = [HandUpstream(self.clock, f"https://cloud-{index}.example:6443") for index in range(servers)]
        self.upstream = self.upstreams[0]
        self.config = HubConfig(
            tuple(one.name for one in self.upstreams),
            NODE,
            NodeCredentials(ca_data=b"", token=None),
            root_dir=f"{self.path}-own",
            disk_cache_path=self.path,
            **settings,
        )
        self.hub: Hub
        self.proxy: HubProxy
        self.boot()
        case.addCleanup(self.stop)

    def wall(self) -> float:
        return NOW + self.clock.seconds()

    def boot(self) -> None:
        """
        A new process of the hub on the same disk.
        """
        for one in self.upstreams:
            one.open.clear()
            one.seen.clear()
        self.store = Store(self.clock, self.path, writer=InlineWriter(), vault=Vault(self.config.root_dir))
        self.store.open()
        node_token = NodeToken(self.config.credentials)
        servers = [Server(one.name, one, one) for one in self.upstreams]
        settings = CloudSettings(self.config.lb_mode, self.config.watch_failover)
        memory = self.store.table("meta")
        self.cloud = Cloud(self.clock, servers, settings, node_token.headers, memory=memory, wall=self.wall)
        known_time = KnownTime(self.clock, self.store.table("meta"), self.wall, self.clock.seconds)
        views = Views(self.store, self.clock, known_time, self.config.cache_quota)
        metrics = HubMetrics(new_registry(), "test")
        self.hub = Hub(self.clock, self.config, self.cloud, self.store, views, metrics, node_token, known_time)
        self.proxy = HubProxy(self.hub)
        self.hub.journal.load()
        self.hub.housekeeping.start()
        self.hub.lease.start()
        self.cloud.subscribe(self.hub.cloud_changed)
        self.cloud.start()

    def stop(self) -> None:
        """
        End it in good order.
        """
        self.hub.drain()
        self.hub.patience.stop()
        self.hub.journal.stop()
        self.hub.issuer_keys.stop()
        self.hub.housekeeping.stop()
        self.hub.lease.stop()
        self.cloud.stop()
        self.store.close()
        self.run(0.1)

    def reboot(self) -> None:
        """
        Stop the hub and start it again.
        """
        self.stop()
        self.boot()

    def crash(self) -> None:
        """
        The hub dies, with what it had not written, and starts again.
        """
        for call in list(self.clock.getDelayedCalls()):
            call.cancel()
        self.store._leave_disk()
        self.boot()

    def run(self, seconds: float) -> None:
        """
        Let time pass.
        """
        self.clock.pump([0.01] * round(seconds * 100))

    def online(self) -> None:
        """
        The cloud is there, and the hub knows.
        """
        for one in self.upstreams:
            one.alive = True
        self.run_until(lambda: self.cloud.reachable)

    def offline(self) -> None:
        """
        The cloud is gone, and the hub knows.
        """
        for one in self.upstreams:
            one.alive = False
            one.close_connections("connection reset")
        for server in self.cloud.servers:
            self.cloud.failed(server, "connection reset")
        self.run_until(lambda: self.cloud.known and not self.cloud.reachable)

    def run_until(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        """
        Let time pass until something holds.
        """
        end = self.clock.seconds() + seconds
        while not condition():
            assert self.clock.seconds() < end, "it does not happen"
            self.clock.advance(0.01)

    def ask(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        agent: str = "kubelet",
        token: str = "",
        door: str = "loopback",
        peer: str = "127.0.0.1",
        **headers: str,
    ) -> MemoryRequest:
        """
        A request of a client; ``content_type="…"`` and the like are headers.
        """
        fields: Headers = [(b"User-Agent", f"{agent}/v1.30.0 (linux/amd64) kubernetes/7c48c2b".encode())]
        if token:
            fields.append((b"Authorization", f"Bearer {token}".encode()))
        fields += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = MemoryRequest(method, target, fields, data, Door(door, lends_node_identity=door == "loopback"))
        request.peer = IPv4Address("TCP", peer, 40000)
        self.proxy.handle(request)
        return request

    def fetch(self, method: str, target: str, body: Any = None, **options: Any) -> MemoryRequest:
        """
        A request and its whole answer.
        """
        request = self.ask(method, target, body, **options)
        self.run_until(lambda: request.finished or request.aborted)
        return request

    def at_cloud(self, path: str) -> list[HandExchange]:
        """
        The requests for a path that wait at the cloud.
        """
        return [one for upstream in self.upstreams for one in upstream.open if one.path == path]

    def arriving(self, path: str) -> HandExchange:
        """
        The next request for a path that arrives at the cloud.
        """
        self.run_until(lambda: self.at_cloud(path))
        return self.at_cloud(path)[0]

    def store_list(
        self, path: str, items: list[dict[str, Any]], version: str, kind: str = "ConfigMapList", **options: Any
    ) -> None:
        """
        Let a client list, and the cloud answer.
        """
        request = self.ask("GET", path, **options)
        listed = [{key: value for key, value in item.items() if key not in ("kind", "apiVersion")} for item in items]
        body = {"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": listed}
        self.arriving(path.partition("?")[0]).answer(200, body)
        assert request.status == 200, request.data


def event(event_type: str, document: dict[str, Any]) -> bytes:
    """
    A line of a watch.
    """
    return json.dumps({"type": event_type, "object": document}).encode() + b"\n"


def config_map(name: str, version: int, **fields: Any) -> dict[str, Any]:
    """
    A ConfigMap as it comes from the cloud.
    """
    labels = fields.pop("labels", {})
    metadata = {"name": name, "namespace": "default", "resourceVersion": str(version), "uid": f"uid-{name}", "labels": labels}
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, **fields}


def bookmark(version: int, kind: str = "ConfigMap", *, end: bool = False) -> bytes:
    """
    A line with a bookmark.
    """
    annotations = {"annotations": {"k8s.io/initial-events-end": "true"}} if end else {}
    return event("BOOKMARK", {"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": str(version), **annotations}})


def error_event(code: int, reason: str) -> bytes:
    """
    A line with an ERROR event.
    """
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "code": code}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


def open_watch(site: MemorySite, query: str = "resourceVersion=10", **options: Any) -> tuple[MemoryRequest, HandExchange]:
    """
    A watch of ConfigMaps that the cloud has accepted.
    """
    request = site.ask("GET", f"{MAPS}?watch=true&{query}", **options)
    exchange = site.arriving(MAPS)
    exchange.begin()
    return request, exchange
