"""
What a node leaves on the machine: shims, containers, mounts, network namespaces of pods, cgroups; and their removal, also
after a test run that was killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .network import PREFIX, delete_namespaces, prefix_of
from .process import E2EError, run, wait_for

CGROUPS = Path("/sys/fs/cgroup")


def run_folder(pid: int) -> Path:
    """
    The folder of everything that a test run of that process keeps.
    """
    return Path(tempfile.gettempdir()) / prefix_of(pid)


def _bundles(folder: Path) -> Iterator[dict[str, Any]]:
    for path in folder.glob("**/io.containerd.runtime.v2.task/k8s.io/*/config.json"):
        try:
            yield json.loads(path.read_text())
        except (OSError, ValueError):
            continue


def pod_namespaces(folder: Path) -> set[str]:
    """
    The names of the network namespaces of the pods of the nodes that live in ``folder``.
    """
    found = set()
    for bundle in _bundles(folder):
        for namespace in bundle.get("linux", {}).get("namespaces", ()):
            path = namespace.get("path", "")
            if namespace.get("type") == "network" and os.path.basename(path).startswith("cni-"):
                found.add(os.path.basename(path))
    return found


def _cgroups(folder: Path) -> set[str]:
    return {
        bundle["linux"]["cgroupsPath"].strip("/") for bundle in _bundles(folder) if bundle.get("linux", {}).get("cgroupsPath")
    }


def _commands() -> Iterator[tuple[int, str, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            yield int(entry.name), command, parent


def container_processes(folder: Path) -> list[int]:
    """
    The shims of the nodes in ``folder``, and all that runs below them.
    """
    table = list(_commands())
    found = [pid for pid, command, _ in table if "containerd-shim" in command and f"-address {folder}/" in command]
    for pid in found:
        found.extend(child for child, _, parent in table if parent == pid)
    return found


def kill_containers(folder: Path) -> None:
    """
    Kill every container of the nodes in ``folder`` and their shims, as a power cut does.
    """

    def gone() -> bool:
        pids = container_processes(folder)
        for pid in reversed(pids):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return not pids

    cgroups = _cgroups(folder)
    wait_for(f"the end of the containers below {folder}", gone)
    for path in [path for name in cgroups for path in (CGROUPS / name, *CGROUPS.glob(f"*/{name}"))]:
        try:
            path.rmdir()
        except OSError:  # not there, or a process is not quite dead: an empty cgroup harms nobody
            continue


def unmount_below(folder: Path) -> None:
    """
    Unmount what is mounted below ``folder``, the innermost first.
    """
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((p for p in points if p.startswith(f"{folder}/")), reverse=True):
        run(["umount", "-l", point], check=False)


def clean(pid: int) -> None:
    """
    Remove all that a test run of that process left behind.
    """
    folder = run_folder(pid)
    namespaces = pod_namespaces(folder)
    kill_containers(folder)
    for name in namespaces:
        run(["ip", "netns", "del", name], check=False)
    delete_namespaces(prefix_of(pid))
    unmount_below(folder)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise E2EError(f"cannot remove {folder}: something below it is still in use")


def clean_after_dead_runs() -> None:
    """
    Remove what test runs left behind that do not live any more.
    """
    names = [path.name for place in (Path("/run/netns"), Path(tempfile.gettempdir())) for path in place.glob(f"{PREFIX}-*")]
    owners = {int(part) for name in names if (part := name.split("-")[1]).isdigit()}
    for pid in owners:
        if not Path(f"/proc/{pid}").exists():
            clean(pid)
