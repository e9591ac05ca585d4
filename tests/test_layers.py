"""
The house has floors: imports go down only, and heavy libraries stay in short-lived processes.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import yurt

ROOT = Path(yurt.__file__).parent
GROUND = {
    "connected",
    "files",
    "lifecycle",
    "listening",
    "logs",
    "memory",
    "metrics",
    "options",
    "sdnotify",
    "sockets",
    "tls",
    "web",
}
MAY_IMPORT: dict[str, set[str]] = {
    "hub": {"kube", "http", "host", *GROUND},
    "tunnel": {"mux", "kube", "http", "host", *GROUND},
    "controllers": {"kube", "http", *GROUND},
    "mux": GROUND,
    "kube": {"http", *GROUND},
    "http": GROUND,
    "host": GROUND,
    **{name: set() for name in GROUND},
    "listening": {"connected", "sockets"},
}
"""What each part may import beside itself."""

ONLY_IN: dict[str, set[str]] = {
    "pyroute2": {"host/link_edge.py"},
    "iptc": {"host/iptc_edge.py"},
}
"""Libraries that cost tens of megabytes, and the files that may name them: those of a child process."""


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """
    Line and absolute dotted name of every import in a file, wherever it stands.
    """
    package = ("yurt", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            # "from yurt import x" names a part, not something in yurt/__init__.py
            yield from ((node.lineno, f"{stem}.{alias.name}" if stem == "yurt" else stem) for alias in node.names)


def part_of(path: Path) -> str:
    """
    The part of the house that a file belongs to: its folder below yurt/, or its own name on the ground floor.
    """
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def modules() -> list[Path]:
    """
    All modules of the package but its root.
    """
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


class LayerTests(SynchronousTestCase):
    """
    Tests of who imports whom.
    """

    def test_every_part_has_a_floor(self) -> None:
        """
        A new folder or ground module must be placed before it is used.
        """
        self.assertEqual({part_of(path) for path in modules()} - set(MAY_IMPORT), set())

    def test_imports_go_down(self) -> None:
        """
        No part imports a part above or beside it.
        """
        wrong = []
        for path in modules():
            here = part_of(path)
            for line, name in imports(path):
                head, _, rest = name.partition(".")
                part = rest.partition(".")[0]
                # The package itself holds the version and its place on disk, for everyone above the ground.
                allowed = MAY_IMPORT[here] | {here} | ({"", "__version__"} if MAY_IMPORT[here] else set())
                if head == "yurt" and part not in allowed:
                    wrong.append(f"{path.relative_to(ROOT.parent)}:{line} imports {name}")
        self.assertEqual(wrong, [])

    def test_heavy_libraries(self) -> None:
        """
        A library that only a child process may afford is imported nowhere else.
        """
        wrong = []
        for path in modules():
            inside = path.relative_to(ROOT).as_posix()
            for line, name in imports(path):
                library = name.partition(".")[0]
                if inside not in ONLY_IN.get(library, {inside}):
                    wrong.append(f"yurt/{inside}:{line} imports {library}")
        self.assertEqual(wrong, [])

    def test_no_reactor_at_import(self) -> None:
        """
        Only makeService takes the global reactor, so that every other part can be given another one.
        """
        wrong = []
        for path in modules():
            tree = ast.parse(path.read_text(), str(path))
            for node in tree.body:
                if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet":
                    wrong += [f"{path}:{node.lineno}" for alias in node.names if alias.name == "reactor"]
        self.assertEqual(wrong, [])


class ImportTests(SynchronousTestCase):
    """
    Tests of the reading of imports itself.
    """

    def test_names(self) -> None:
        """
        Every spelling of an import is seen.
        """
        path = ROOT / "hub" / "lease.py"
        text = "import yurt.mux as m\nfrom yurt import http\nfrom .. import host\nfrom ..kube.x import y\nfrom . import z\n"
        self.patch(Path, "read_text", lambda self: text)
        self.assertEqual([name for _, name in imports(path)], ["yurt.mux", "yurt.http", "yurt.host", "yurt.kube.x", "yurt.hub"])
