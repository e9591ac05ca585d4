"""
``make demo``: a miniature cloud and a real yurthub on this machine, without root: what the hub does when the cloud goes away.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from tests.contract.client import KubeClient, Reply, Stream
from tests.miniapi import MiniAPI

NODE = "demo-node"
PROXY_PORT, ADMIN_PORT = 10261, 10267
START_TIMEOUT = 20.0
STEP_TIMEOUT = 30.0
CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
SHOWN_HEADERS = ("X-Yurt-Source", "Age", "Warning")
SETTINGS = {"name": "settings", "labels": {"app": "demo"}}


def usable_port(wanted: int) -> int:
    """
    ``wanted`` if nobody listens there, else any free port of loopback.
    """
    for port in (wanted, 0):
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(one.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def say(text: str = "") -> None:
    """
    Print a line now.
    """
    print(text, flush=True)


class HubProcess(ProcessProtocol):
    """
    The child: its last words are kept for the case that it ends too early.
    """

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()
        self.has_ended = False
        self.last_words = b""

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.last_words = (self.last_words + data)[-2000:]

    def processEnded(self, reason: Failure) -> None:
        self.has_ended = True
        self.ended.callback(None)


class Demo:
    """
    The whole show.
    """

    def __init__(self, reactor: Any, folder: Path) -> None:
        self._reactor, self._folder = reactor, folder
        self._api = MiniAPI(reactor)
        self._hub = HubProcess()
        self._is_cut = False
        self._ticks = 0
        self._proxy, self._admin = usable_port(PROXY_PORT), usable_port(ADMIN_PORT)
        self._client = KubeClient(reactor, f"http://127.0.0.1:{self._proxy}", self._api.ca.cert_pem)

    def start(self) -> None:
        """
        Start the cloud and the hub.
        """
        api = self._api
        api.put("nodes", {"metadata": {"name": NODE}})
        api.put("configmaps", {"metadata": SETTINGS, "data": {"colour": "green"}})
        for name in ("web", "database"):
            api.put(
                "pods",
                {
                    "metadata": {"name": name},
                    "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "busybox:1"}]},
                    "status": {"phase": "Running"},
                },
            )
        url = api.start()
        kubeconfig = api.write_kubeconfig(self._folder / "kubeconfig", f"system:node:{NODE}", "system:nodes")
        argv = [
            str(Path(sys.executable).with_name("twistd")),
            "--nodaemon",
            "--pidfile=",
            "yurthub",
            "--server-addr",
            url,
            "--node-name",
            NODE,
            "--kubeconfig",
            kubeconfig,
            "--disk-cache-path",
            str(self._folder / "cache"),
            "--enable-dummy-if=false",
            "--proxy-port",
            str(self._proxy),
            "--serve-port",
            str(self._admin),
        ]
        self._reactor.spawnProcess(self._hub, argv[0], argv, env=dict(os.environ))

    async def stop(self) -> None:
        """
        End the hub and the cloud.
        """
        self._api.heal()
        await self._client.close()
        if not self._hub.has_ended:
            self._hub.transport.signalProcess("TERM")  # type: ignore[union-attr]
            await self._hub.ended
        await self._api.stop()

    def toggle(self) -> None:
        """
        Cut the cloud off, or bring it back.
        """
        self._is_cut = not self._is_cut
        (self._api.cut if self._is_cut else self._api.heal)()
        say(f"   the cloud is {'cut off: packets vanish' if self._is_cut else 'back'}")

    async def _get(self, path: str) -> Reply:
        return await self._client.ask("GET", path, user_agent="kubelet/demo")

    async def _until(self, what: str, condition: Callable[[], Coroutine[Any, Any, Any]], timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and not self._hub.has_ended:
            if value := await condition():
                return value
            await deferLater(self._reactor, 0.1)
        raise RuntimeError(f"no {what} after {timeout:g} s; yurthub said: {self._hub.last_words.decode(errors='replace')}")

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
        The four acts.
        """
        say("1. The cloud is there: lists and watches go through the hub")

        async def listening() -> Reply | None:
            try:
                return await self._get("/version")
            except (ConnectError, ResponseFailed):
                return None

        await self._until("hub", listening, START_TIMEOUT)
        await self._show("/api/v1/pods?fieldSelector=spec.nodeName%3D" + NODE)
        version = (await self._show(CONFIGMAPS)).json["metadata"]["resourceVersion"]
        query = f"?watch=true&allowWatchBookmarks=true&resourceVersion={version}"
        stream = await self._client.watch(CONFIGMAPS + query, user_agent="kubelet/demo")
        self._api.put("configmaps", {"metadata": SETTINGS, "data": {"colour": "blue"}})
        await self._see(stream, "blue")

        say("2. The cloud goes away: answers come from the cache")
        self.toggle()

        async def from_cache() -> bool:
            return (await self._get(CONFIGMAPS)).headers.getRawHeaders("x-yurt-source") == ["cache"]

        await self._until("answer from the cache", from_cache, STEP_TIMEOUT)
        await self._show(CONFIGMAPS)
        await self._show(CONFIGMAPS + "?labelSelector=app%3Ddemo")
        await self._show("/api/v1/pods?fieldSelector=spec.nodeName%3D" + NODE)
        await self._show("/api/v1/namespaces/default/secrets")

        say("3. Something happens in the cloud meanwhile; the cloud comes back; the same watch goes on")
        self._api.put("configmaps", {"metadata": SETTINGS, "data": {"colour": "red"}})
        self.toggle()
        await self._see(stream, "red")
        stream.close()

    def stay(self) -> None:
        """
        Stay up, and let something happen each second.
        """
        say("4. Everything stays up until Ctrl-C")
        say(f"   proxy    http://127.0.0.1:{self._proxy}    curl -A kubelet/demo http://127.0.0.1:{self._proxy}/api/v1/pods")
        say(f"            curl -N -A kubelet/demo 'http://127.0.0.1:{self._proxy}{CONFIGMAPS}?watch=true'")
        say(f"            kubectl --server http://127.0.0.1:{self._proxy} get pods")
        say(f"   admin    http://127.0.0.1:{self._admin}/v1/status  /v1/readyz  /metrics  /pods")
        say(f"   cloud    {self._api.url}    cut it off and bring it back: kill -USR1 {os.getpid()}")
        LoopingCall(self._tick).start(1.0)

    def _tick(self) -> None:
        self._ticks += 1
        self._api.put("configmaps", {"metadata": {"name": "clock"}, "data": {"ticks": str(self._ticks)}})


def main() -> None:
    from twisted.internet import reactor as default_reactor

    reactor: Any = default_reactor
    with tempfile.TemporaryDirectory(prefix="yurt-demo-") as folder:
        demo = Demo(reactor, Path(folder))
        failed: list[Failure] = []

        def fail(failure: Failure) -> None:
            failed.append(failure)
            say(f"The demo failed: {failure.getErrorMessage()}")
            reactor.stop()

        def begin() -> None:
            signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(demo.toggle))
            demo.start()
            Deferred.fromCoroutine(demo.play()).addCallbacks(lambda _: demo.stay(), fail)

        reactor.callWhenRunning(begin)
        reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(demo.stop()))
        reactor.run()
    if failed:
        sys.exit(1)
    say("Good bye.")


if __name__ == "__main__":
    main()
