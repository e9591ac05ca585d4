"""
Network namespaces for tests of the real kernel: made, entered and removed by the tests themselves.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Timer
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase, TestCase

TOOL_SECONDS = 50.0
"""Seconds that a command in a namespace may take before the test fails; fewer than the minute after which daemons look at their
rules anyway, which must not pass for their having noticed a change."""

_numbers = itertools.count()


def require_root() -> None:
    """
    Skip the test where links cannot be made; under CI fail instead.
    """
    if os.geteuid() == 0 and os.path.exists("/dev/net/tun"):
        return
    reason = "kernel tests need root, network namespaces and /dev/net/tun"
    if os.environ.get("CI") == "true":
        raise RuntimeError(reason)
    raise SkipTest(reason)


class Namespace:
    """
    A network namespace with its loopback up.
    """

    def __init__(self) -> None:
        self.name = f"yt-{os.getpid()}-{next(_numbers)}"
        subprocess.run(["ip", "netns", "add", self.name], check=True, timeout=TOOL_SECONDS)
        self.run("ip", "link", "set", "lo", "up")

    def inside(self, *command: str) -> list[str]:
        """
        The command that runs ``command`` in the namespace; not through ``ip netns exec``, which mounts /sys anew.
        """
        return ["nsenter", f"--net=/run/netns/{self.name}", *command]

    def run(self, *command: str, text: str = "") -> str:
        """
        Run a command in the namespace; returns what it printed, and fails with what it complained about.
        """
        done = subprocess.run(self.inside(*command), input=text, capture_output=True, text=True, timeout=TOOL_SECONDS)
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.returncode}: {done.stderr}")
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """
        Start a command in the namespace with pipes on its standard input and output.
        """
        return subprocess.Popen(self.inside(*command), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def start_python(self, *arguments: str) -> subprocess.Popen[bytes]:
        """
        Start this Python in the namespace.
        """
        return self.start(sys.executable, *arguments)

    def remove(self) -> None:
        """
        Remove the namespace and with it all that is in it.
        """
        subprocess.run(["ip", "netns", "del", self.name], check=True, timeout=TOOL_SECONDS)


def add_namespace(case: SynchronousTestCase | TestCase) -> Namespace:
    """
    A namespace that lives as long as the test.
    """
    require_root()
    namespace = Namespace()
    case.addCleanup(namespace.remove)
    return namespace


def end(process: subprocess.Popen[bytes]) -> None:
    """
    End a process that a test started.
    """
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.wait()


@contextmanager
def bounded(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """
    Kill the process when what is read from it does not come within TOOL_SECONDS, so that the read ends.
    """
    timer = Timer(TOOL_SECONDS, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def read_line(process: subprocess.Popen[bytes]) -> str:
    """
    The next line a process prints, without its end; empty when none comes.
    """
    assert process.stdout is not None
    with bounded(process):
        return process.stdout.readline().decode().rstrip("\n")


def saved_rules(namespace: Namespace, flavour: str, families: Sequence[str] = ("iptables", "ip6tables")) -> str:
    """
    All rules of a flavour as text, without the time and the counters of the chains.
    """
    lines = []
    for family in families:
        for line in namespace.run(f"{family}-{flavour}-save").splitlines():
            if not line.startswith("#"):
                lines.append(line.partition(" [")[0] if line.startswith(":") else line)
    return "\n".join(lines)
