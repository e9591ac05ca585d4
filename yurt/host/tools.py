"""
The command-line tools of the firewall: which there are, and running one within bounds.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from typing import Literal

from yurt.host.errors import FirewallError
from yurt.host.firewall import Family

Flavour = Literal["nft", "legacy"]

TOOL_TIMEOUT = 8.0
"""Seconds that one tool may take, waiting for the lock of the legacy tables included."""

MAX_TOOL_OUTPUT = 64 * 1024 * 1024
"""Bytes of a tool's answer: some 600,000 rules."""

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


def _complaint(stderr: bytes) -> str:
    text = stderr.decode("utf-8", "replace")
    if "ermission denied" in text or "not permitted" in text:
        return "operation not permitted (needs CAP_NET_ADMIN)"
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return lines[0] if lines else "failed without a word"
