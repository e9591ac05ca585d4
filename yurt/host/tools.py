"""
The command-line tools of the firewall: which there are, and running one within bounds.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from yurt.host.errors import FirewallError
from yurt.host.firewall import Family

Flavour = Literal["nft", "legacy"]

TOOL_TIMEOUT = 8.0
"""Seconds that one tool may take, waiting for the lock of the legacy tables included."""

MAX_TOOL_OUTPUT = 64 * 1024 * 1024
"""Bytes of a tool's answer: some 600,000 rules."""

LOCK_TIMEOUT = 12.0
"""Seconds that a change of the legacy tables waits for another program's."""

_LOCK_PAUSE = 0.01
_LOCK_FILE = "/run/xtables.lock"  # iptables 1.8, iptables/xshared.h; the same variable names another one
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin"
_PROGRAMS: dict[Family, str] = {"ipv4": "iptables", "ipv6": "ip6tables"}


def default_flavour() -> Flavour | None:
    """
    What plain ``iptables`` of this host works on; None when there is no iptables.

    Since 1.8 the version says it in brackets; before that there was only the legacy one.
    """
    program = shutil.which("iptables", path=_PATH)
    if program is None:
        return None
    return "nft" if "nf_tables" in run_tool([program, "-V"]) else "legacy"


def find_tool(family: Family, flavour: Flavour, verb: Literal["save", "restore"]) -> str | None:
    """
    The path of, say, ``ip6tables-nft-save``; plain ``ip6tables-save`` when that is of the flavour; None when there is none.
    """
    program = _PROGRAMS[family]
    path = shutil.which(f"{program}-{flavour}-{verb}", path=_PATH)
    if path is None and default_flavour() == flavour:
        path = shutil.which(f"{program}-{verb}", path=_PATH)
    return path


def find_conntrack() -> str | None:
    """
    The path of ``conntrack``; None when it is not there.
    """
    return shutil.which("conntrack", path=_PATH)


def run_tool(command: Sequence[str], text: str = "") -> str:
    """
    Run a tool with ``text`` on its standard input; returns its standard output.

    Raises FirewallError when it fails, takes longer than TOOL_TIMEOUT or says more than MAX_TOOL_OUTPUT.
    """
    name = command[0].rpartition("/")[2]
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=TOOL_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise FirewallError(f"{name}: no answer within {TOOL_TIMEOUT:g} s") from None
    except OSError as error:
        raise FirewallError(f"{name}: {error.strerror}") from error
    if done.returncode:
        raise FirewallError(f"{name}: {_complaint(done.stderr)}")
    if len(done.stdout) > MAX_TOOL_OUTPUT:
        raise FirewallError(f"{name}: more than {MAX_TOOL_OUTPUT} bytes of rules")
    return done.stdout.decode("utf-8", "surrogateescape")


@contextmanager
def xtables_lock() -> Iterator[None]:
    """
    Hold the lock under which iptables changes the legacy tables; on a host that cannot have it, none.

    Raises FirewallError when another program holds it for longer than LOCK_TIMEOUT.
    """
    path = os.environ.get("XTABLES_LOCKFILE", _LOCK_FILE)
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield
        return
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT
        while not _locked(lock):
            if time.monotonic() > deadline:
                raise FirewallError(f"another program holds {path} for more than {LOCK_TIMEOUT:g} s; find it with fuser {path}")
            time.sleep(_LOCK_PAUSE)
        yield
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _complaint(stderr: bytes) -> str:
    text = stderr.decode("utf-8", "replace")
    if "ermission denied" in text or "not permitted" in text:
        return "operation not permitted (needs CAP_NET_ADMIN)"
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return lines[0] if lines else "failed without a word"
