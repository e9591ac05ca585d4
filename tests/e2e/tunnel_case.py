"""
What the end-to-end tests of the tunnel have in common.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from tests.stopwatch import Stopwatch

from .case import ClusterCase
from .doors import DIVERTED, Door
from .process import E2EError, run
from .session import shared_cluster
from .terminal import Terminal
from .tunnel import AGENT, WEB, Tunnel

BLOCK = 1 << 20
REFUSED_WITHIN = 5.0
"""Seconds in which kubectl says that a node cannot be reached, its own start included."""
LINES = re.compile(r"^line (\d+)$", re.MULTILINE)
TRIES = 3
"""
On a busy machine Kubernetes itself cuts off the end of what a pod prints, kubectl 1.20 exits with 0, and its cp says "unexpected
EOF": without any tunnel 10 of 100 MB were missing once in 30 times.  So what comes must be right up to its end, and of so many
tries one must bring all.
"""


def numbers(text: str) -> list[int]:
    """
    The numbers of the lines that the talker printed.
    """
    return [int(number) for number in LINES.findall(text)]


class TunnelCase(ClusterCase):
    """
    A test that has the cluster to itself, with the tunnel in the ordinary state of ``door``; afterwards the logs of the
    daemons must be free of mishaps.
    """

    door: Door = DIVERTED
    tunnel: Tunnel

    def setUp(self) -> None:
        self.cluster = shared_cluster()
        self.tunnel = self.cluster.tunnel
        self.cluster.restore()
        self.tunnel.enter(self.door)
        self._followers = 0
        node = self.cluster.node.folder
        self._logs = [node / "yurthub.log", node / f"{AGENT}.log", self.tunnel.server.log]
        self._starts = {path: path.stat().st_size for path in self._logs if path.exists()}

    def tearDown(self) -> None:
        for path, start in self._starts.items():
            said = path.read_bytes()[start:].decode(errors="replace")
            self.assert_no_trouble(said, path.name)

    def assert_refused(self, *arguments: str) -> str:
        """
        A call (an exec, unless another is named) fails at once: what kubectl says.
        """
        asked = Stopwatch()
        said = self.tunnel.refused(*(arguments or ("exec", WEB, "--", "true")))
        self.assert_within(REFUSED_WITHIN, asked)
        return said

    def terminal(self, argv: list[str], rows: int = 24, columns: int = 80) -> Terminal:
        """
        A command on a terminal for the rest of the test.
        """
        one = Terminal(argv, rows, columns)
        self.addCleanup(one.stop)
        return one

    def file(self, megabytes: int) -> Path:
        """
        A file of so many MB, no two of which are alike.
        """
        path = Path(self.cluster.folder, f"data-{megabytes}")
        self.addCleanup(path.unlink, missing_ok=True)
        seed = os.urandom(BLOCK - 8)
        with open(path, "wb") as file:
            for number in range(megabytes):
                file.write(number.to_bytes(8, "big") + seed)
        return path

    def digest(self, path: Path) -> str:
        """
        The MD5 sum of a file, as ``md5sum`` in a pod tells it.
        """
        return run(["md5sum", str(path)])[:32]

    def send_there_and_back(self, megabytes: int, timeout: float) -> None:
        """
        Send so many MB through a command's standard input, and compare what comes back on its standard output.
        """
        path, back = self.file(megabytes), Path(self.cluster.folder, "came-back")
        self.addCleanup(back.unlink, missing_ok=True)
        command = self.tunnel.kubectl_command("exec", "-i", WEB, "--", "cat")
        cuts: list[str] = []
        while len(cuts) < TRIES:
            with open(path, "rb") as there, open(back, "wb") as here:
                done = subprocess.run(command, stdin=there, stdout=here, stderr=subprocess.PIPE, timeout=timeout)
            size, said = back.stat().st_size, done.stderr.decode(errors="replace")
            run(["cmp", "-n", str(size), str(path), str(back)])
            if size == path.stat().st_size:
                self.assertEqual((done.returncode, said), (0, ""))
                return
            cuts.append(f"{size} bytes came, exit status {done.returncode}, {said!r}")
        self.fail(f"never all of {path.stat().st_size} bytes: {cuts}")

    def copy_back(self, source: str, back: Path, timeout: float) -> None:
        """
        Copy a pod's file here.
        """
        for left in reversed(range(TRIES)):
            try:
                self.tunnel.kubectl("cp", f"{WEB}:{source}", str(back), timeout=timeout)
                return
            except E2EError as problem:
                if not (left and "unexpected EOF" in str(problem)):
                    raise

    def make_node(self, name: str, number: int, **labels: str) -> str:
        """
        A Node that nobody runs; answers its address.
        """
        address = self.cluster.network.address(number)
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
        self.cluster.apply(node)
        self.addCleanup(self.cluster.kubectl, "delete", "node", name)
        status = json.dumps({"status": {"addresses": [{"type": "InternalIP", "address": address}]}})
        self.cluster.kubectl("patch", "node", name, "--subresource", "status", "--type", "merge", "-p", status)
        return address
