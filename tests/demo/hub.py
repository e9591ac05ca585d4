"""
The hub's acts: what clients on a node see while the cloud goes away and comes back.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectError
from twisted.web.client import ResponseFailed

from tests.contract.client import KubeClient, Reply, Stream
from tests.miniapi import MiniAPI

from .stage import HERE, NODE, START_TIMEOUT, Daemon, say, together, usable_port

PROXY_PORT, ADMIN_PORT = 10261, 10267
CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
PODS = f"/api/v1/pods?fieldSelector=spec.nodeName%3D{NODE}"
SHOWN_HEADERS = ("X-Yurt-Source", "Age", "Warning")
SETTINGS = {"name": "settings", "labels": {"app": "demo"}}


class HubShow:
    """
    A yurthub between the miniature cloud and its clients.
    """

    def __init__(self, reactor: Any, folder: Path, api: MiniAPI) -> None:
        self._folder, self._api = folder, api
        self._hub = Daemon(reactor, "yurthub")
        self._is_cut = False
        self._ticks = 0
        self._proxy, self._admin = usable_port(PROXY_PORT), usable_port(ADMIN_PORT)
        self._client = KubeClient(reactor, f"http://{HERE}:{self._proxy}", api.ca.cert_pem)

    def start(self) -> None:
        """
        Start the hub.
        """
        self._api.put("configmaps", {"metadata": SETTINGS, "data": {"colour": "green"}})
        kubeconfig = self._api.write_kubeconfig(self._folder / "hub.conf", f"system:node:{NODE}", "system:nodes")
        self._hub.start(
            f"--node-name={NODE}", f"--kubeconfig={kubeconfig}", f"--root-dir={self._folder / 'own'}",
            f"--disk-cache-path={self._folder / 'cache'}", f"--proxy-port={self._proxy}", f"--serve-port={self._admin}",
            "--proxy-secure-port=0", "--enable-dummy-if=false",
        )  # fmt: skip

    async def stop(self) -> None:
        """
        End the hub.
        """
        await together(self._hub.stop(), self._client.close())

    def toggle(self) -> None:
        """
        Cut the cloud off, or bring it back.
        """
        self._is_cut = not self._is_cut
        (self._api.cut if self._is_cut else self._api.heal)()
        say(f"   the cloud is {'cut off: packets vanish' if self._is_cut else 'back'}")

    async def _get(self, path: str) -> Reply:
        return await self._client.ask("GET", path, user_agent="kubelet/demo")

    async def _show(self, path: str) -> Reply:
        begin = time.monotonic()
        reply = await self._get(path)
        spent = (time.monotonic() - begin) * 1000
        names = ", ".join(item["metadata"]["name"] for item in reply.json.get("items", ())) or reply.json.get("message", "")
        say(f"   GET {path} -> {reply.status} in {spent:.1f} ms [{names}]")
        for header in SHOWN_HEADERS:
            for value in reply.headers.getRawHeaders(header, ()):
                say(f"       {header}: {value}")
        return reply

    async def _see(self, stream: Stream, colour: str) -> None:
        while (event := await stream.next()) is not None:
            if event["object"].get("data", {}).get("colour") == colour:
                say(f"   WATCH: {event['type']} ConfigMap settings, colour={colour}")
                return
        raise RuntimeError("the watch ended")

    async def play(self) -> None:
        """
        Three acts.
        """
        say("1. The cloud is there: lists and watches go through the hub")

        async def listening() -> Reply | None:
            try:
                return await self._get("/version")
            except (ConnectError, ResponseFailed):
                return None

        await self._hub.until("hub", listening, START_TIMEOUT)
        await self._show(PODS)
        version = (await self._show(CONFIGMAPS)).json["metadata"]["resourceVersion"]
        query = f"?watch=true&allowWatchBookmarks=true&resourceVersion={version}"
        stream = await self._client.watch(CONFIGMAPS + query, user_agent="kubelet/demo")
        self._api.put("configmaps", {"metadata": SETTINGS, "data": {"colour": "blue"}})
        await self._see(stream, "blue")

        say("2. The cloud goes away: answers come from the cache")
        self.toggle()

        async def from_cache() -> bool:
            return (await self._get(CONFIGMAPS)).headers.getRawHeaders("x-yurt-source") == ["cache"]

        await self._hub.until("answer from the cache", from_cache)
        await self._show(CONFIGMAPS)
        await self._show(CONFIGMAPS + "?labelSelector=app%3Ddemo")
        await self._show(PODS)
        await self._show("/api/v1/namespaces/default/secrets")

        say("3. Something happens in the cloud meanwhile; the cloud comes back; the same watch goes on")
        self._api.put("configmaps", {"metadata": SETTINGS, "data": {"colour": "red"}})
        self.toggle()
        await self._see(stream, "red")
        stream.close()

    def tell(self) -> None:
        """
        Print what there is to try.
        """
        proxy = f"http://{HERE}:{self._proxy}"
        say(f"   proxy    {proxy}    curl -A kubelet/demo {proxy}/api/v1/pods")
        say(f"            curl -N -A kubelet/demo '{proxy}{CONFIGMAPS}?watch=true'")
        say(f"            kubectl --server {proxy} get pods")
        say(f"   admin    http://{HERE}:{self._admin}/v1/status  /v1/readyz  /metrics  /pods")

    def tick(self) -> None:
        """
        Let something happen in the cloud.
        """
        self._ticks += 1
        self._api.put("configmaps", {"metadata": {"name": "clock"}, "data": {"ticks": str(self._ticks)}})
