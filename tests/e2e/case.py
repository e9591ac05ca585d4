"""
What the end-to-end tests have in common.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any, cast
from unittest import TestResult

from twisted.trial.unittest import SynchronousTestCase

from tests.stopwatch import Stopwatch

from . import leftovers
from .cluster import ADMIN, Cluster
from .curl import Answer
from .evidence import Logs, Witness, trouble
from .pods import pod
from .process import PATIENCE, STOP_TIMEOUT, E2EError, run, wait_for
from .session import shared_cluster


class Follower:
    """
    A command that goes on printing; what it printed, and its end.
    """

    def __init__(self, argv: list[str], output: Path) -> None:
        self._output = output
        with open(output, "wb") as file:
            self._child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)

    @property
    def text(self) -> str:
        return self._output.read_text()

    @property
    def ended(self) -> bool:
        return self._child.poll() is not None

    def wait_for(self, text: str, timeout: float = PATIENCE) -> None:
        """
        Wait until it printed ``text``; in vain if it has ended without.
        """
        what = f"{text!r} in {self._output.name}"
        try:
            wait_for(what, lambda: self.ended or text in self.text, timeout)
        except E2EError as problem:
            raise E2EError(f"{problem}; it printed: {self.text[-2000:]}") from None
        if text not in self.text:
            raise E2EError(f"it ended without {what}; it printed: {self.text[-2000:]}")

    def stop(self) -> None:
        self._child.send_signal(signal.SIGINT)
        try:
            self._child.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class ClusterCase(SynchronousTestCase):
    """
    A test that has the cluster to itself, with everything in order; afterwards the hub's log must be free of mishaps.
    """

    cluster: Cluster

    def run(self, result: TestResult | None = None) -> None:
        super().run(cast(TestResult, Witness(result, Logs(leftovers.run_folder(os.getpid())), self.state)))

    def state(self) -> str:
        """
        Nodes, pods, and what the hub thinks of its servers, for whoever reads of a failure.
        """
        seen = run(self.cluster.plane.kubectl_command("--request-timeout=5s", "get", "nodes,pods", "-A"), timeout=10)
        return f"{seen}the hub: {self.hub_status()['cloud']}"

    def setUp(self) -> None:
        self.cluster = shared_cluster()
        self.cluster.leave_tunnel()
        self.cluster.restore()
        self._log = self.cluster.node.folder / "yurthub.log"
        self._log_start = self._log.stat().st_size
        self._followers = 0

    def tearDown(self) -> None:
        said = self._log.read_bytes()[self._log_start :].decode(errors="replace")
        self.assert_no_trouble(said, self._log.name)

    def assert_no_trouble(self, said: str, name: str) -> None:
        """
        Nothing went wrong that a log tells of.
        """
        if found := trouble(said):
            self.fail(f"{name}: {found}")

    def follow(self, argv: list[str]) -> Follower:
        self._followers += 1
        follower = Follower(argv, self.cluster.folder / f"follower-{self.id()}-{self._followers}")
        self.addCleanup(follower.stop)
        return follower

    def make_pods(self, *pods: dict[str, Any]) -> None:
        """
        Pods that run during this test.
        """
        names = [one["metadata"]["name"] for one in pods]
        self.addCleanup(self.cluster.remove_pods, *names)
        self.cluster.make_pods(*pods)

    def restart_hub(self, *options: str, servers: str = "") -> None:
        """
        Run the hub with these options for the rest of the test.
        """
        self.addCleanup(self.cluster.start_hub)
        self.cluster.start_hub(*options, servers=servers)

    def web_pod(self, name: str = "web", **spec: Any) -> dict[str, Any]:
        """
        A pod with a network of its own that serves its name on port 8080.
        """
        return pod(
            name, self.cluster.node.name, f"mkdir /tmp/w; echo {name} > /tmp/w/index.html; httpd -f -p 8080 -h /tmp/w", **spec
        )

    def host_pod(self, name: str = "host", **spec: Any) -> dict[str, Any]:
        """
        A pod on the node's network that prints the date every second.
        """
        return pod(name, self.cluster.node.name, "while true; do date; sleep 1; done", host_network=True, **spec)

    def node_pods(self, **options: Any) -> Answer:
        """
        The list that kubelet asks for, through the hub.
        """
        return self.cluster.ask_hub(
            f"/api/v1/pods?fieldSelector=spec.nodeName%3D{self.cluster.node.name}&resourceVersion=0", **options
        )

    def hub_status(self) -> dict[str, Any]:
        return self.cluster.ask_hub("/v1/status", base=ADMIN).json

    def assert_within(self, seconds: float, watch: Stopwatch) -> None:
        """
        What began with ``watch`` took no longer than was promised.
        """
        self.assertLess(watch.net(), seconds, str(watch))

    def pods_are_sent_to_hub(self) -> bool:
        """
        Whether pods get the hub's HTTPS address.
        """
        return bool(self.hub_status()["filters"]["podsReachHubAt"] == "169.254.2.1:10268")

    def certify_hub(self) -> None:
        """
        Approve the hub's request for a serving certificate, and wait until pods are sent to it.
        """

        def asked() -> bool:
            request = self.hub_status()["servingCertificate"]["request"]
            if request:
                self.cluster.kubectl("certificate", "approve", request)
            return self.pods_are_sent_to_hub()

        wait_for("a hub that pods are sent to", asked)

    def cloud_is_reachable(self) -> bool:
        """
        What the hub thinks of the cloud.
        """
        return bool(self.hub_status()["cloud"]["reachable"])
