"""
What is in the repository fits every machine, and says what it is for.
"""

import ast
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
SOURCES = ("yurt", "tests", "bench", "etc", "docs", "scripts", "twisted", ".ci")
TEXT_SUFFIXES = {".py", ".md", ".sh", ".service", ".toml", ".cfg", ".in", ""}
FOREIGN_PATH = re.compile(r"/(?:work|home/[a-z]+|root/\.(?!cache))\b")


def texts() -> list[Path]:
    """
    The text files of the project.
    """
    found = [path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXT_SUFFIXES]
    for folder in SOURCES:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix in TEXT_SUFFIXES]
    return sorted(path for path in found if "__pycache__" not in path.parts and path != Path(__file__))


class HygieneTests(SynchronousTestCase):
    """
    Tests over all files.
    """

    def test_no_machine_paths(self) -> None:
        """
        No file names a folder of the machine it was written on.
        """
        wrong = []
        for path in texts():
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                if FOREIGN_PATH.search(line):
                    wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
        self.assertEqual(wrong, [])

    def test_tests_say_what_they_promise(self) -> None:
        """
        Every test has a docstring, and none that is async stands where it would never run.
        """
        wrong = []
        for path in sorted((ROOT / "tests").rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(), str(path))):
                if not isinstance(node, ast.ClassDef):
                    continue
                synchronous = any("SynchronousTestCase" in ast.unparse(base) for base in node.bases)
                for item in node.body:
                    if isinstance(item, ast.FunctionDef) and item.name in ("setUpClass", "tearDownClass"):
                        wrong.append(f"{path.relative_to(ROOT)}:{item.lineno} {item.name}: trial never calls it")
                    if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name.startswith("test"):
                        where = f"{path.relative_to(ROOT)}:{item.lineno} {item.name}"
                        if ast.get_docstring(item) is None:
                            wrong.append(f"{where}: no docstring")
                        if synchronous and isinstance(item, ast.AsyncFunctionDef):
                            wrong.append(f"{where}: async in a SynchronousTestCase never runs")
        self.assertEqual(wrong, [])
