"""
Importing python-iptables without asking a compiler.

It looks for its C libraries when it is imported, by ``ctypes.util.find_library``: for each name that runs ldconfig, and for each
that is not found a compiler and a linker as well.  And it asks distutils, in whose place setuptools puts all of itself, for
what sysconfig knows, too.  That took 0.25 to 0.45 s where this takes 0.04 s, and a change of the rules has 0.3 s.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

_LDCONFIG = "/sbin/ldconfig"
_ENTRY = re.compile(r"^\s*lib(\S+?)\.so\.\S+ \([^)]*\) => (\S+)$", re.MULTILINE)
_DISTUTILS = ("distutils", "distutils.sysconfig")
_TIMEOUT = 5.0


@contextmanager
def quick_search() -> Iterator[None]:
    """
    Answer ``find_library`` from one listing of the linker's cache while the block runs, and tell python-iptables where the
    extensions of iptables are; where there is no such cache everything is as it was.
    """
    cached = _cache()
    if not cached:
        yield
        return
    for path in cached.get("xtables", ()):
        folder = os.path.join(os.path.dirname(path), "xtables")
        if os.path.isdir(folder):
            os.environ.setdefault("XTABLES_LIBDIR", folder)
    before = ctypes.util.find_library
    ctypes.util.find_library = lambda name: _usable(cached.get(name, ()))
    kept = {name: sys.modules.pop(name, None) for name in _DISTUTILS}
    sys.modules.update(zip(_DISTUTILS, _plain_distutils()))
    try:
        yield
    finally:
        ctypes.util.find_library = before
        for name, module in kept.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


def _plain_distutils() -> tuple[ModuleType, ModuleType]:
    package, module = map(ModuleType, _DISTUTILS)
    vars(module)["get_python_lib"] = lambda: sysconfig.get_path("purelib")
    return package, module


def _cache() -> dict[str, list[str]]:
    """
    The paths of the libraries, by their bare names.
    """
    try:
        listed = subprocess.run([_LDCONFIG, "-p"], capture_output=True, text=True, timeout=_TIMEOUT, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, list[str]] = {}
    for name, path in _ENTRY.findall(listed):
        found.setdefault(name, []).append(path)
    return found


def _usable(paths: Iterable[str]) -> str | None:
    """
    The name of the first library that is for this machine: the cache has those of others, too.
    """
    for path in paths:
        try:
            ctypes.CDLL(path)
        except OSError:
            continue
        return os.path.basename(path)
    return None
