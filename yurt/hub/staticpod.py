"""
The manifest of a static pod: found in a ConfigMap, checked against the one that kubelet runs, put in its place.

A manifest runs with the rights of the machine.  So one is only ever replaced by one of the same pod: whoever may write ConfigMaps
of a namespace gains nothing where no static pod of that namespace runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yurt.files import write_private

MANIFESTS = "/etc/kubernetes/manifests"
"""Where kubelet looks for static pods, unless it was told otherwise."""

CONFIG_MAP = "yurt-static-set-"
"""What the names of the ConfigMaps begin with in which yurt-manager puts the manifests."""

MAX_MANIFEST = 1024 * 1024

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")


class ManifestError(Exception):
    """
    A manifest cannot be replaced; the message says which and why.
    """


def replace_manifest(folder: Path, backups: Path, data: Mapping[str, str], namespace: str, name: str) -> Path:
    """
    Replace the manifest of static pod ``namespace/name`` in ``folder`` by the one in ``data``, the one entry of a ConfigMap; the
    one before is kept in ``backups``.  The file is replaced as a whole: a failure leaves the one that was there.

    Returns the file.  Raises ManifestError.
    """
    if len(data) != 1:
        raise ManifestError(f"the ConfigMap has {len(data)} entries instead of one")
    ((key, text),) = data.items()
    if not _FILE.fullmatch(key):
        raise ManifestError(f"{key!r} is no name of a manifest")
    path = folder / (key if key.endswith((".yaml", ".yml", ".json")) else f"{key}.yaml")
    try:
        with open(path, "rb") as file:
            before = file.read(MAX_MANIFEST)
        _check(before, str(path), namespace, name)
        _check(text.encode(), f"entry {key} of the ConfigMap", namespace, name)
        write_private(backups / f"{path.name}.bak", before)
        write_private(path, text.encode())
    except OSError as error:
        raise ManifestError(f"{error.filename or path}: {error.strerror}") from error
    return path


def _check(manifest: bytes, what: str, namespace: str, name: str) -> None:
    """
    Raise ManifestError unless this is a manifest of that pod.
    """
    import yaml  # here, because hardly a hub ever needs it

    try:
        document: Any = yaml.safe_load(manifest)
    except yaml.YAMLError as error:
        raise ManifestError(f"{what} is no YAML: {error}") from error
    metadata = document.get("metadata") if isinstance(document, dict) and document.get("kind") == "Pod" else None
    if not isinstance(metadata, dict):
        raise ManifestError(f"{what} is no Pod")
    found = f"{metadata.get('namespace') or 'default'}/{metadata.get('name')}"
    if found != f"{namespace}/{name}":
        raise ManifestError(f"{what} is pod {found}, not {namespace}/{name}")
