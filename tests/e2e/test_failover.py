"""
Two apiservers on one etcd, killed, frozen and healed in turn, under load.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from .case import ClusterCase
from .load import NAME
from .process import Process, wait_for

WATCHES = 20
SECOND_PORT = 6444
IN_TIME = 1.0
"""Seconds within which a watch is to go on at another server."""
NOISE = 1.5
"""Seconds that two cores may be late which run two apiservers, etcd, a node, and this load."""
FAULT_LASTS = 4.0


class Load:
    """
    A program of :mod:`tests.e2e.load`, and what it said.
    """

    def __init__(self, case: ClusterCase, namespace: str, *arguments: str) -> None:
        cluster = case.cluster
        log = cluster.folder / f"log/load-{arguments[0]}-{time.monotonic_ns()}.log"
        self._process = Process("load", [sys.executable, "-m", "tests.e2e.load", *arguments], log, namespace)
        case.addCleanup(self.stop)

    def stop(self) -> None:
        self._process.stop(signal.SIGKILL)

    def said(self, *whats: str) -> list[dict[str, Any]]:
        """
        The lines of these kinds.
        """
        self._process.check()
        return self.lines(*whats)

    def lines(self, *whats: str) -> list[dict[str, Any]]:
        text = self._process.log.read_text()
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [line for line in lines if not whats or line["what"] in whats]


class FailoverTests(ClusterCase):
    """
    No error reaches a client that reads, and no watch loses an event, is told one twice, or waits for long.
    """

    def setUp(self) -> None:
        super().setUp()
        plane = self.cluster.plane
        self.second: Process | None = None
        self.addCleanup(self.end_second)
        self.start_second()
        self.cluster.kubectl("create", "configmap", NAME)
        self.addCleanup(self.cluster.kubectl, "delete", "configmap", NAME)
        self.servers = [plane.url, plane.url_of(SECOND_PORT)]

    def start_second(self) -> None:
        self.second = self.cluster.plane.start_another("apiserver-2", SECOND_PORT)

    def end_second(self) -> None:
        if self.second:
            self.second.send(signal.SIGCONT)
            self.second.stop(signal.SIGKILL)

    def begin(self, *options: str) -> None:
        """
        A hub with both servers, and the load upon it.
        """
        self.restart_hub(*options, servers=",".join(self.servers))
        self.wait_for_both()
        keys = self.cluster.plane.authority
        version = self.cluster.kubectl("get", "configmap", NAME, "-o", "jsonpath={.metadata.resourceVersion}")
        self.use = Load(self, self.cluster.node.namespace, "use", "127.0.0.1:10261", str(WATCHES), version)
        wait_for("all watches", lambda: len(self.use.said("watching")) == WATCHES, 20)
        files = [keys.file(name) for name in ("ca.crt", "admin.crt", "admin.key")]
        self.write = Load(self, self.cluster.cloud_namespace or "", "write", *files, *self.servers)
        wait_for("the first events", lambda: len(self.use.said("event")) > 10 * WATCHES, 20)

    def wait_for_both(self) -> None:
        """
        Until the hub has requests for both servers.
        """
        wait_for(
            "the hub to trust both",
            lambda: all(server["healthy"] and server["trusted"] for server in self.hub_status()["cloud"]["servers"]),
            60,
        )

    def suffer(self, fault: Callable[[], object], heal: Callable[[], object]) -> float:
        """
        A fault and its end; how late an event came to any watch meanwhile.
        """
        began = time.monotonic()
        fault()
        time.sleep(FAULT_LASTS)
        heal()
        healed = time.monotonic()
        self.wait_for_both()
        written = {line["version"]: line["began"] for line in self.write.said("written")}
        late: list[float] = [
            line["at"] - written[line["version"]]
            for line in self.use.said("event")
            if began <= written.get(line["version"], 0.0) <= healed
        ]
        self.assertTrue(late)
        return max(late)

    def assert_unharmed(self) -> None:
        """
        What the clients saw from first to last.
        """
        self.write.stop()
        written = [str(line["version"]) for line in self.write.lines("written")]

        def seen(number: int) -> list[str]:
            return [line["version"] for line in self.use.said("event") if line["number"] == number]

        last = max(written, key=int)
        wait_for("the last event", lambda: all(last in seen(number) for number in range(WATCHES)), 20)
        self.assertEqual(self.use.said("ended"), [])
        first = seen(0)
        self.assertEqual([int(version) for version in first], sorted({int(version) for version in first}))
        self.assertEqual(set(written) - set(first), set())
        for number in range(1, WATCHES):
            self.assertEqual(seen(number), first, f"watch {number}")
        reads = self.use.said("read")
        self.assertEqual([line for line in reads if line["status"] != 200], [])
        self.assertLess(max(line["took"] for line in reads), 2.0 + NOISE)
        sources = Counter(line["source"] for line in reads)
        print(f"{len(reads)} reads {dict(sources)}, {len(first)} events in each of {WATCHES} watches")

    def kill_first(self) -> None:
        self.cluster.plane.stop_apiserver(signal.SIGKILL)

    def signal_first(self, number: int) -> None:
        assert self.cluster.plane.apiserver is not None
        self.cluster.plane.apiserver.send(number)

    def signal_second(self, number: int) -> None:
        assert self.second is not None
        self.second.send(number)

    def thaw(self) -> None:
        for process in (self.cluster.plane.apiserver, self.second):
            if process:
                process.send(signal.SIGCONT)

    def faults(self) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
        """
        What may happen, and what mends it.
        """
        return {
            "freeze the first": (lambda: self.signal_first(signal.SIGSTOP), lambda: self.signal_first(signal.SIGCONT)),
            "kill the first": (self.kill_first, self.cluster.plane.start_apiserver),
            "freeze the second": (lambda: self.signal_second(signal.SIGSTOP), lambda: self.signal_second(signal.SIGCONT)),
            "stop the first": (self.cluster.plane.stop_apiserver, self.cluster.plane.start_apiserver),
        }

    def assert_survives(self, *names: str) -> None:
        self.addCleanup(self.thaw)
        faults = self.faults()
        late = {name: self.suffer(*faults[name]) for name in names}
        print(", ".join(f"{name}: {seconds:.2f} s" for name, seconds in late.items()))
        self.assert_unharmed()
        for name, seconds in late.items():
            self.assertLess(seconds, IN_TIME + NOISE, name)

    def test_in_turn(self) -> None:
        """
        With --lb-mode rr, half of the watches are at the server that something happens to.
        """
        self.begin()
        self.assert_survives("freeze the first", "kill the first", "freeze the second")

    def test_priority(self) -> None:
        """
        With --lb-mode priority, all of them are.
        """
        self.begin("--lb-mode", "priority")
        self.assert_survives("freeze the first", "stop the first")
