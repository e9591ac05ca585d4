"""
A hub process and a cloud for one test.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.contract.client import KubeClient
from tests.miniapi import MiniAPI
from tests.ports import free_port

NODE = "n1"
KUBELET = "kubelet/v1.30.0"
PATIENCE = 90.0
TROUBLE = re.compile(rb"Traceback|Unhandled|CRITICAL")


class Child(ProcessProtocol):
    """
    The hub's process: what it said, and its end.
    """

    def __init__(self) -> None:
        self.said = b""
        self.ended: Deferred[None] = Deferred()
        self.status: int | None = None

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.said += data

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        self.status = -value.signal if value.signal else value.exitCode
        self.ended.callback(None)


class HubProcessCase(TestCase):
    """
    ``twistd yurthub`` on free ports of loopback, with a cloud that can be cut.
    """

    timeout = 300

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.api = MiniAPI(reactor)
        self.addCleanup(self.api.stop)
        self.api.start()
        self.proxy_port, self.secure_port, self.admin_port = free_port(), free_port(), free_port()
        self.kubeconfig = self.api.write_kubeconfig(self.folder / "kubeconfig", f"system:node:{NODE}", "system:nodes")
        self.client = self.make_client(self.proxy_port)
        self.admin = self.make_client(self.admin_port)

    def make_client(self, port: int) -> KubeClient:
        client = KubeClient(reactor, f"http://127.0.0.1:{port}", self.api.ca.cert_pem)
        self.addCleanup(lambda: Deferred.fromCoroutine(client.close()))
        return client

    def spawn_hub(self, *options: str) -> Child:
        """
        Start the hub, and do not wait for it.
        """
        child = Child()
        argv = [
            str(Path(sys.executable).with_name("twistd")),
            "--nodaemon",
            "--pidfile=",
            "yurthub",
            "--server-addr",
            self.api.url,
            "--node-name",
            NODE,
            "--kubeconfig",
            self.kubeconfig,
            "--root-dir",
            str(self.folder / "own"),
            "--disk-cache-path",
            str(self.folder / "cache"),
            "--proxy-port",
            str(self.proxy_port),
            "--proxy-secure-port",
            str(self.secure_port),
            "--serve-port",
            str(self.admin_port),
            "--enable-dummy-if=false",
            *options,
        ]
        spawn: Any = reactor
        spawn.spawnProcess(child, argv[0], argv, env=dict(os.environ), path=str(self.folder))
        self.addCleanup(self.end, child)
        return child

    def end(self, child: Child, signal: str = "KILL") -> Deferred[None]:
        """
        End the hub, which must not have had any mishap.
        """
        if child.status is None:
            transport: Any = child.transport
            transport.signalProcess(signal)
        found = TROUBLE.search(child.said)
        self.assertIsNone(found, child.said[-3000:].decode(errors="replace"))
        return child.ended

    async def start_hub(self, *options: str) -> Child:
        """
        Start the hub and wait until it answers.
        """
        child = self.spawn_hub(*options)

        async def answers() -> bool:
            if child.status is not None:
                raise AssertionError(f"yurthub ended with {child.status}: {child.said.decode(errors='replace')}")
            try:
                return (await self.admin.ask("GET", "/v1/healthz")).status == 200
            except ConnectError:
                return False

        await self.until("hub", answers)
        return child

    async def until(self, what: str, condition: Callable[[], Any]) -> None:
        """
        Look at a condition until it holds.
        """
        deadline = time.monotonic() + PATIENCE
        clock: Any = reactor
        while not await condition():
            self.assertTrue(time.monotonic() < deadline, f"no {what} after {PATIENCE:g} s")
            await deferLater(clock, 0.05)

    async def reachable(self) -> bool:
        """
        What the hub thinks of its cloud.
        """
        return bool((await self.admin.ask("GET", "/v1/status")).json["cloud"]["reachable"])

    async def unreachable(self) -> bool:
        return not await self.reachable()


def resident_megabytes(child: Child) -> float:
    """
    The memory of the hub's process.
    """
    transport: Any = child.transport
    for line in Path(f"/proc/{transport.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the process has no VmRSS")
