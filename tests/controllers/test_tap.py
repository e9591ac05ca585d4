"""
Tests of the command line, and of the daemon that it describes.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.contract.subjects import pause
from tests.miniapi import MiniAPI
from tests.ports import free_port
from yurt.controllers.config import LEASE
from yurt.controllers.service import ControllerManager
from yurt.controllers.tap import Options, listener


def kubeconfig(folder: Path, server: str = "http://127.0.0.1:1") -> str:
    """
    A kubeconfig without credentials.
    """
    document = {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "contexts": [{"name": "x", "context": {"cluster": "c"}}],
        "current-context": "x",
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(document))
    return str(path)


async def fetch(url: str) -> tuple[int, bytes]:
    """
    Status and body of a page.
    """
    response = await treq.get(url, persistent=False)
    return response.code, await response.content()


class OptionTests(SynchronousTestCase):
    """
    Tests of the options.
    """

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=os.getcwd()))
        self.kubeconfig = kubeconfig(self.folder)

    def parse(self, *words: str) -> Options:
        options = Options()
        options.parseOptions([f"--kubeconfig={self.kubeconfig}", *words])
        return options

    def refuse(self, *words: str) -> str:
        with self.assertRaises(SystemExit) as caught:
            self.parse(*words)
        return str(caught.exception)

    def test_defaults(self) -> None:
        """
        With a kubeconfig alone all controllers run, and the pages are on loopback.
        """
        config = self.parse().config
        self.assertEqual((config.controllers, config.metrics_addr), ({"csrapprover"}, ("127.0.0.1", 10271)))
        self.assertEqual((config.health_probe_addr, config.working_namespace), (None, "kube-system"))
        self.assertEqual((config.min_resync_period, config.csr_approver_workers), (43200.0, 3))
        self.assertEqual(config.dummy_if_ips, {"169.254.2.1", "fd00::2:1"})

    def test_values(self) -> None:
        """
        Each option is read as it is written.
        """
        config = self.parse(
            "--controllers=*,-yurtcsrapprover", "--metrics-addr=:10271", "--health-probe-addr=[::1]:10272",
            "--working-namespace=edge", "--min-resync-period=90m", "--dummy-if-ip=169.254.2.9,fd00::9",
            "--concurrent-csr-approver-workers=5",
        ).config  # fmt: skip
        self.assertEqual((config.controllers, config.metrics_addr), (frozenset(), ("::", 10271)))
        self.assertEqual((config.health_probe_addr, config.working_namespace), (("::1", 10272), "edge"))
        self.assertEqual((config.min_resync_period, config.csr_approver_workers), (5400.0, 5))
        self.assertEqual(config.dummy_if_ips, {"169.254.2.9", "fd00::9"})

    def test_listeners(self) -> None:
        """
        An address that is left out is all addresses; 0 and nothing are no listener; a port must be there.
        """
        for text, wanted in (("0", None), ("", None), (":1", ("::", 1)), ("10.0.0.1:2", ("10.0.0.1", 2))):
            self.assertEqual(listener(text), wanted)
        for text in ("10.0.0.1", "localhost:1", ":x", ":70000"):
            self.assertRaises(ValueError, listener, text)

    def test_refused(self) -> None:
        """
        What cannot be is refused in one line that names the option.
        """
        for words, said in (
            (["--controllers=nodelifecycle"], "--controllers: there is no controller 'nodelifecycle'; there are: csrapprover"),
            (["--metrics-addr=here"], "--metrics-addr 'here'"),
            (["--working-namespace=Kube"], "--working-namespace 'Kube'"),
            (["--min-resync-period=0"], "--min-resync-period is 0"),
            (["--concurrent-csr-approver-workers=0"], "--concurrent-csr-approver-workers '0'"),
            (["--kubeconfig=/missing"], "--kubeconfig: /missing"),
            (["--kubeconfig="], "--kubeconfig is missing"),
        ):
            told = self.refuse(*words)
            self.assertIn(said, told)
            self.assertNotIn("\n", told)


class DaemonTests(TestCase):
    """
    Tests of the daemon with real listeners, before a miniature apiserver.
    """

    timeout = 180

    async def daemon(self, *words: str) -> tuple[ControllerManager, str, MiniAPI]:
        """
        The daemon, its pages' URL, and its server.
        """
        api = MiniAPI(reactor)
        api.start()
        self.addCleanup(api.stop)
        folder, port = Path(tempfile.mkdtemp(dir=os.getcwd())), free_port()
        path = api.write_kubeconfig(folder / "kubeconfig", "yurt-controller-manager")
        options = Options()
        options.parseOptions([f"--kubeconfig={path}", f"--metrics-addr=127.0.0.1:{port}", *words])
        daemon = ControllerManager(reactor, options.config)
        daemon.privilegedStartService()
        daemon.startService()
        self.addCleanup(lambda: maybeDeferred(daemon.stopService) if daemon.running else None)
        return daemon, f"http://127.0.0.1:{port}", api

    async def test_pages(self) -> None:
        """
        Health, readiness, status and metrics are where OpenYurt and yurt's other daemons have them; the stop gives the lead up.
        """
        daemon, url, api = await self.daemon()
        while daemon.readiness():
            await pause(0.02)
        for path in ("/healthz", "/v1/healthz"):
            self.assertEqual(await fetch(url + path), (200, b"OK"))
        for path in ("/readyz", "/v1/readyz"):
            status, body = await fetch(url + path)
            self.assertEqual((status, json.loads(body)), (200, {"ready": True, "reasons": []}))
        state: dict[str, Any] = json.loads((await fetch(f"{url}/v1/status"))[1])
        self.assertEqual((state["leading"], state["leader"]), (True, state["identity"]))
        follows = [one["what"] for one in state["controllers"]["csrapprover"]["follows"]]
        self.assertEqual((sorted(follows), state["problems"]), (["CertificateSigningRequests", "Nodes"], []))
        metrics = (await fetch(f"{url}/metrics"))[1].decode()
        for line in (
            'leader_election_master_status{name="yurt-controller-manager"} 1.0',
            'workqueue_depth{name="csrapprover"} 0.0',
            'controller_runtime_reconcile_errors_total{controller="csrapprover"} 0.0',
            'workqueue_retries_total{name="csrapprover"} 0.0',
            'controller_runtime_reconcile_time_seconds_count{controller="csrapprover"} 0.0',
        ):
            self.assertIn(line, metrics)
        await daemon.stopService()
        self.assertEqual(daemon.readiness(), ["the daemon is stopping"])
        self.assertNotIn("holderIdentity", api.get("leases", LEASE, "kube-system")["spec"])

    async def test_not_ready(self) -> None:
        """
        A daemon without its server is healthy, but not ready, and says why.
        """
        daemon, url, api = await self.daemon("--controllers=")
        await api.refuse()
        while "Lease" not in "".join(daemon.readiness()):
            await pause(0.02)
        self.assertEqual((await fetch(f"{url}/healthz"))[0], 200)
        status, body = await fetch(f"{url}/v1/readyz")
        self.assertEqual(status, 503)
        self.assertIn("Lease kube-system/yurt-controller-manager", json.loads(body)["reasons"][0])
