"""
A site to test on: a miniature cloud, a whole hub and its clients, in this process, over sockets on loopback.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver, LogEvent, eventAsText, globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.contract.client import KubeClient, Reply, Stream
from tests.miniapi import MiniAPI
from tests.ports import free_port
from yurt.hub.config import HubConfig, NodeCredentials
from yurt.hub.filters.focus import FilterSettings
from yurt.hub.podlink import PodLinkSettings
from yurt.hub.service import HubService
from yurt.listening import Listen, StartFailed

reactor: Any = global_reactor

NODE = "n1"
USER = f"system:node:{NODE}"
PATIENCE = 60.0
"""Seconds after which a condition is given up."""
LOOK_EVERY = 0.01
POD_ADDRESS = "127.0.0.2"
"""Stands for the address that pods reach: no credentials are lent there."""


async def until(condition: Callable[[], Any], what: str = "") -> None:
    """
    Wait for a condition; fails the test when it does not come true.
    """
    deadline = reactor.seconds() + PATIENCE
    while not condition():
        if reactor.seconds() > deadline:
            raise AssertionError(f"did not happen within {PATIENCE:g} s: {what or condition}")
        await pause(LOOK_EVERY)


def pause(seconds: float) -> Deferred[None]:
    """
    Fires later: between two looks at a condition.
    """
    later: Deferred[None] = Deferred()
    reactor.callLater(seconds, later.callback, None)
    return later


def source(reply: Reply) -> str:
    """
    The origin that an answer names, exactly once.
    """
    (origin,) = reply.headers.getRawHeaders("x-yurt-source", [])
    return origin


def header(reply: Reply, name: str) -> str:
    """
    A header of an answer; empty when it is not there.
    """
    return ",".join(reply.headers.getRawHeaders(name, []))


def names(reply: Reply) -> list[str]:
    """
    The names of a list's items, sorted.
    """
    return sorted(item["metadata"]["name"] for item in reply.json["items"])


class Site:
    """
    One cloud (``api``), one hub (``service``), and who talks to it.  ``settings`` are fields of the hub's configuration.

    The hub's identity is a client certificate in files; everything is gone after the test.
    """

    def __init__(self, case: TestCase, api: MiniAPI | None = None, **settings: Any) -> None:
        self.folder = Path(case.mktemp())
        self.folder.mkdir()
        self.api = api or MiniAPI(reactor)
        if api is None:
            self.api.start()
            case.addCleanup(self.api.stop)
        self.log: list[str] = []
        observer = cast(ILogObserver, self._observe)
        globalLogPublisher.addObserver(observer)
        case.addCleanup(globalLogPublisher.removeObserver, observer)
        case.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        self.write_credentials()
        config = HubConfig(
            servers=(self.api.url,),
            node_name=NODE,
            credentials=NodeCredentials(
                ca_file=str(self.folder / "ca.pem"),
                cert_file=str(self.folder / "node.pem"),
                key_file=str(self.folder / "node.key"),
            ),
            serve_port=free_port(),
            proxy_port=free_port(),
            proxy_secure_port=0,
            root_dir=str(self.folder / "own"),
            filters=FilterSettings(enabled=False, namespace=""),  # the hub asks for nothing by itself
            disk_cache_path=str(self.folder / "cache"),
            pod_link=PodLinkSettings(enable_dummy_if=False),
        )
        self.config = replace(config, **settings)
        self.running = False
        self.service: HubService
        self._clients: dict[str, KubeClient] = {}
        case.addCleanup(self.stop)
        case.addCleanup(self.hang_up)

    def _observe(self, event: LogEvent) -> None:
        self.log.append(eventAsText(event, includeTraceback=True))

    def write_credentials(self, name: str = USER) -> None:
        """
        The files with the CA, the node's certificate and its key.
        """
        identity = self.api.certificate(name, "system:nodes")
        for file, content in (("ca.pem", self.api.ca.cert_pem), ("node.pem", identity.cert_pem), ("node.key", identity.key_pem)):
            new = self.folder / f"{file}.new"
            new.write_bytes(content)
            os.replace(new, self.folder / file)

    # The hub

    def start(self, **settings: Any) -> None:
        """
        Start a hub with the same folder; ``settings`` change its configuration.
        """
        self.config = replace(self.config, **settings)
        self.service = HubService(reactor, self.config)
        self.service.doors.open(Listen, POD_ADDRESS, self.config.proxy_port, lends=False)
        try:
            self.service.privilegedStartService()
        except StartFailed:
            for listener in self.service.listeners:
                listener.stop_listening()
            raise
        self.running = True
        self.service.startService()

    async def start_online(self, **settings: Any) -> None:
        """
        Start a hub, and wait until it knows that the cloud is there.
        """
        self.start(**settings)
        await self.online()

    async def stop(self) -> None:
        """
        Stop the hub in good order.
        """
        if self.running:
            self.running = False
            await maybeDeferred(self.service.stopService)

    async def restart(self, **settings: Any) -> None:
        """
        Stop the hub and start another one on the same disk.
        """
        await self.hang_up()
        await self.stop()
        self.start(**settings)

    @property
    def hub(self) -> Any:
        """
        The hub inside the service.
        """
        return self.service.hub

    # The cloud

    async def online(self) -> None:
        """
        Heal the cloud, and wait until the hub knows.
        """
        self.api.heal()
        await until(lambda: self.service.cloud.reachable, "the hub sees the cloud")

    async def offline(self) -> None:
        """
        Kill the cloud (connections reset, new ones refused), and wait until the hub knows.
        """
        await self.api.refuse()
        await self.notice_loss()

    async def notice_loss(self) -> None:
        """
        Let a request find out that the cloud is gone, and wait until the hub knows.
        """
        await self.ask("GET", "/healthz", agent="somebody")
        await until(lambda: self.service.cloud.known and not self.service.cloud.reachable, "the hub misses the cloud")

    # Clients

    def client(self, address: str = "127.0.0.1") -> KubeClient:
        """
        The client that talks to the proxy on ``address``.
        """
        if address not in self._clients:
            url = f"http://{address}:{self.config.proxy_port}"
            self._clients[address] = KubeClient(reactor, url, self.api.ca.cert_pem)
        return self._clients[address]

    async def hang_up(self) -> None:
        """
        Break all connections of the clients.
        """
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        agent: str = "kubelet",
        token: str = "",
        address: str = "127.0.0.1",
        **headers: str,
    ) -> Reply:
        """
        One request and its whole answer; ``content_type="…"`` and the like are more headers.
        """
        fields = _fields(agent, token, headers)
        return await self.client(address).ask(method, path, body, **fields)

    async def get(self, path: str, **options: Any) -> Reply:
        """
        One GET; see :meth:`ask`.
        """
        return await self.ask("GET", path, **options)

    async def watch(
        self, path: str, *, agent: str = "kubelet", token: str = "", address: str = "127.0.0.1", **headers: str
    ) -> Stream:
        """
        Open a watch; ``path`` says ``watch=true`` itself.
        """
        return await self.client(address).watch(path, **_fields(agent, token, headers))

    async def admin(self, path: str, method: str = "GET", **headers: str) -> Reply:
        """
        One request for an admin page.
        """
        key = "admin"
        if key not in self._clients:
            address = self.config.bind_address
            url = f"http://{f'[{address}]' if ':' in address else address}:{self.config.serve_port}"
            self._clients[key] = KubeClient(reactor, url, self.api.ca.cert_pem)
        return await self._clients[key].ask(method, path, **headers)

    async def status(self) -> dict[str, Any]:
        """
        The hub's ``/v1/status``.
        """
        document: dict[str, Any] = json.loads((await self.admin("/v1/status")).body)
        return document

    async def views(self, resource: str) -> list[dict[str, Any]]:
        """
        The views of ``resource`` (such as ``/v1/pods``) that the status page shows.
        """
        return [view for view in (await self.status())["views"] if view["resource"] == resource]


def _fields(agent: str, token: str, headers: dict[str, str]) -> dict[str, str]:
    fields = {"user-agent": f"{agent}/v1.30.0 (linux/amd64) kubernetes/7c48c2b", **headers} if agent else dict(headers)
    if token:
        fields["authorization"] = f"Bearer {token}"
    return {name.replace("_", "-"): value for name, value in fields.items()}


def config_map(name: str, **fields: Any) -> dict[str, Any]:
    """
    A ConfigMap; ``labels`` are its labels.
    """
    labels = fields.pop("labels", {})
    namespace = fields.pop("namespace", "default")
    return {"metadata": {"name": name, "namespace": namespace, "labels": labels}, "data": {"key": name}, **fields}


def pod(name: str, node: str = NODE, namespace: str = "default", **fields: Any) -> dict[str, Any]:
    """
    A Pod on a node.
    """
    labels = fields.pop("labels", {})
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "busybox:1"}]},
        **fields,
    }


__all__ = [
    "NODE",
    "POD_ADDRESS",
    "USER",
    "Reply",
    "Site",
    "Stream",
    "config_map",
    "header",
    "names",
    "pause",
    "pod",
    "reactor",
    "source",
    "until",
]
