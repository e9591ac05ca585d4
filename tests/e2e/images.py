"""
Two container images made of the static busybox of this machine, so that no registry is needed.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from .process import E2EError

PAUSE, BUSYBOX = "localhost/pause:1", "localhost/busybox:1"
APPLETS = (
    "sh cat ls echo sleep wget nc httpd ps tar id head tail dd yes seq date env true grep vi hostname ip kill md5sum wc "
    "mkdir rm stty"
).split()
FOLDERS = "bin tmp etc proc sys dev root".split()


def _layer(binary: bytes, applets: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in FOLDERS:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(binary), 0o755
        tar.addfile(entry, io.BytesIO(binary))
        for applet in applets:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return buffer.getvalue()


def write_image(path: Path, name: str, applets: Sequence[str], command: Sequence[str]) -> None:
    """
    Write an image archive as ``ctr images import`` reads it.
    """
    busybox = shutil.which("busybox")
    if busybox is None:
        raise E2EError("no busybox on this machine; install busybox-static")
    layer = _layer(Path(busybox).read_bytes(), applets)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": list(command)},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        }
    ).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as tar:
        for member, data in ((config_name, config), ("layer.tar", layer), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def write_images(folder: Path) -> list[Path]:
    """
    Write both images into ``folder``.
    """
    paths = [folder / "pause.tar", folder / "busybox.tar"]
    write_image(paths[0], PAUSE, ["sleep"], ["/bin/sleep", "2147483647"])
    write_image(paths[1], BUSYBOX, APPLETS, ["sh"])
    return paths
