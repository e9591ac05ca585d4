"""
Child processes: started, asked what they cost, ended by their number.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

READY_TIMEOUT = 20.0
STOP_TIMEOUT = 10.0
TICKS = os.sysconf("SC_CLK_TCK")


class Child:
    """
    One process; its output goes to ``log``.  ``environment`` is that of this process unless another one is given.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=log.parent, env=environment
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def rss(self) -> float:
        """
        Resident memory in MB.
        """
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def cpu(self) -> float:
        """
        Seconds of CPU used so far.
        """
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def waited(self) -> float:
        """
        Seconds that its threads were ready to run but had no processor: what the machine's other work took.
        """
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[1]) for task in tasks) / 1e9

    def wait_until(self, is_ready: Callable[[], bool], what: str, pause: float = 0.05) -> None:
        """
        Look until it is so; raises RuntimeError with the end of the log when the child ends or time runs out.
        """
        deadline = time.monotonic() + READY_TIMEOUT
        while not is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"waited in vain: {what}\n{self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(pause)

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        """
        End it at once, as a crash would.
        """
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """
        End it and wait; kill it when it does not go.
        """
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def is_listening(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((address, port)) == 0
