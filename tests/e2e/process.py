"""
Processes that tests start, and waiting for what they do.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from unittest import SkipTest

from tests.stopwatch import Stopwatch

T = TypeVar("T")
POLL = 0.1
PATIENCE = 180.0
"""Seconds after which a command or a wait is taken for hung.  Kubernetes has long ones: kubelet 1.20 removes what is left of some
pods only when it collects garbage, once a minute, and looks every 10 s whether it may report a pod's end (kubernetes #97288)."""
REST, LONGEST_REST = 2, 1.0
"""A condition rests for so many times as long as it took, or that many seconds, before it is looked at again: a kubectl ten times
a second would keep a processor from what is awaited."""
STOP_TIMEOUT = 30.0
PR_SET_PDEATHSIG = 1


class E2EError(Exception):
    """
    The cluster did not do what it should; the message tells what was awaited and what was seen last.
    """


class HungError(E2EError):
    """
    A command did not end.
    """


def wait_for(what: str, condition: Callable[[], T], timeout: float = PATIENCE, every: float = POLL) -> T:
    """
    Poll until ``condition()`` is true, and answer its value.  Raises E2EError after ``timeout`` seconds of a Stopwatch, with what
    the last try said when it raised.
    """
    watch = Stopwatch()
    last: object = None
    while True:
        asked = time.monotonic()
        try:
            if value := condition():
                return value
            last = value
        except (E2EError, OSError, ValueError, KeyError, subprocess.SubprocessError) as problem:
            last = problem
        if watch.net() > timeout:
            raise E2EError(f"waited {watch} in vain for {what}; last seen: {last!r}")
        time.sleep(max(every, min(REST * (time.monotonic() - asked), LONGEST_REST)))


def kubernetes_folder() -> Path:
    """
    Where the binaries of Kubernetes are looked for.
    """
    home = os.environ.get("KUBELAB_HOME") or os.path.expanduser("~/.cache/kubelab")
    return Path(home) / "bin"


def find_binary(name: str) -> str | None:
    """
    The path of a program: of Kubernetes' own build, else of the system.
    """
    built = kubernetes_folder() / name
    return str(built) if os.access(built, os.X_OK) else shutil.which(name)


def missing_binaries(names: Sequence[str]) -> list[str]:
    return [name for name in names if find_binary(name) is None]


def run(
    argv: Sequence[str],
    *,
    timeout: float = PATIENCE,
    stdin: bytes | None = None,
    check: bool = True,
    env: Mapping[str, str] | None = None,
) -> str:
    """
    Run a command to its end and answer what it printed on standard output.  Raises E2EError with its standard error.
    """
    try:
        done = subprocess.run(argv, input=stdin if stdin is not None else b"", capture_output=True, timeout=timeout, env=env)
    except subprocess.TimeoutExpired as problem:
        printed = (problem.stderr or problem.stdout or b"")[-500:]
        raise HungError(f"{' '.join(argv)}: not done after {timeout:g} s; said {printed!r}") from None
    if check and done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise E2EError(f"{' '.join(argv)}: exit status {done.returncode}: {said[-2000:]}")
    return done.stdout.decode(errors="replace")


def in_namespace(namespace: str | None, argv: Sequence[str]) -> list[str]:
    """
    The command that runs ``argv`` inside a network namespace.  Not ``ip netns exec``, which hides the cgroup mounts.
    """
    return [*(["nsenter", f"--net=/run/netns/{namespace}"] if namespace else []), *argv]


def with_hosts(hosts: Path | None, argv: Sequence[str]) -> list[str]:
    """
    The command that runs ``argv`` with that file, if one is given, as its /etc/hosts.
    """
    if hosts is None:
        return [*argv]
    return ["unshare", "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh", *argv]


libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """
    A long-running child.  It is killed when this process dies, however that happens.
    """

    stop_timeout = STOP_TIMEOUT
    """Seconds for an orderly end."""

    def __init__(
        self, name: str, argv: Sequence[str], log: Path, namespace: str | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as output:
            self._child = subprocess.Popen(
                in_namespace(namespace, argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def status(self) -> int | None:
        """
        The exit status, None while it runs.
        """
        return self._child.poll()

    def check(self) -> None:
        """
        Raises E2EError when it is not running any more.
        """
        if self.status is not None:
            raise E2EError(f"{self.name} ended with status {self.status}: {self.tail()}")

    def send(self, number: int) -> None:
        if self.status is None:
            self._child.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, timeout: float | None = None) -> int:
        """
        Ask it to end, and kill it when it does not; answers its exit status.
        """
        self.send(number)
        try:
            return self._child.wait(self.stop_timeout if timeout is None else timeout)
        except subprocess.TimeoutExpired:
            self._child.kill()
            return self._child.wait()

    def tail(self, size: int = 2000) -> str:
        """
        The end of its log.
        """
        return self.log.read_bytes()[-size:].decode(errors="replace")


def cannot_run(reason: str) -> Exception:
    """
    What a test raises that cannot run here: a skip, or in CI (``CI=true``) an error.
    """
    return E2EError(reason) if os.environ.get("CI") == "true" else SkipTest(reason)


def require(*names: str) -> None:
    """
    Skip the test that calls this where those programs are missing; in CI that is an error.
    """
    if missing := missing_binaries(names):
        raise cannot_run(f"not found: {', '.join(missing)}; `make kubernetes system` as root makes and installs them")
