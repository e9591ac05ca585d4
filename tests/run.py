"""
Run everything that must hold, and end with one line: ``N passed, N failed``, and ``, N skipped`` if any was.

usage: python -m tests.run [part ...]

Parts: lint (ruff, mypy, shell scripts), and the suites of SUITES; all of them by default.  With CI=true in the environment a
skipped test that gives no reason counts as failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).parent.parent
SUITES: dict[str, tuple[str, ...]] = {
    "packaging": ("tests.packaging",),
    "etc": ("tests.etc",),
    "kernel": ("tests.kernel",),
    "contract": ("tests.contract",),
    "interop": ("tests.interop",),
    "e2e": ("tests.e2e",),
}
"""Suites that take long or need the machine, run after ``unit``, which is all the rest."""
CHILD_OUTPUT: int | None = None
"""Where a suite prints: None is where the runner itself does."""
SUITE_SECONDS = 2400
"""A suite that runs longer is ended and counts as failed."""


@dataclass
class Counts:
    """
    How many checks passed and failed, and which were skipped for what reason.
    """

    passed: int = 0
    failed: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def add(self, other: Counts) -> None:
        """
        Count the checks of ``other``, too.
        """
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def summary(self) -> str:
        """
        The last line of a run.
        """
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


def unit_names() -> list[str]:
    """
    The test modules and packages that belong to no other suite.
    """
    apart = {name for names in SUITES.values() for name in names}
    modules = {f"tests.{path.stem}" for path in (ROOT / "tests").glob("test_*.py")}
    packages = {f"tests.{path.parent.name}" for path in (ROOT / "tests").glob("*/__init__.py")}
    return sorted((modules | packages) - apart)


def shell_checks() -> list[list[str]]:
    """
    A syntax check for each shell script in the repository, by the shell that its first line names.
    """
    checks = []
    for path in sorted(path for folder in (".ci", "etc", "scripts") for path in (ROOT / folder).rglob("*") if path.is_file()):
        first = path.read_bytes().partition(b"\n")[0]
        if first.startswith(b"#!") and first.endswith(b"sh"):
            checks.append(["bash" if first.endswith(b"bash") else "sh", "-n", str(path.relative_to(ROOT))])
    return checks


def run_lint() -> Counts:
    """
    Each linter is one check.
    """
    counts = Counts()
    commands = [["ruff", "check", "."], ["mypy"], *shell_checks()]
    bin_folder = os.path.dirname(sys.executable)
    environ = dict(os.environ, PATH=os.pathsep.join([bin_folder, os.environ.get("PATH", os.defpath)]))
    for command in commands:
        print("+", *command, flush=True)
        if subprocess.run(command, cwd=ROOT, env=environ).returncode:
            counts.failed += 1
        else:
            counts.passed += 1
    return counts


def run_suite(names: Sequence[str]) -> Counts:
    """
    Run tests in a process of their own, so that its crash is a failure and not the end of the run.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        command = [sys.executable, "-m", "tests.run", "--child", report, *names]
        child = subprocess.Popen(command, cwd=ROOT, stdout=CHILD_OUTPUT)
        try:
            status: int | str = child.wait(SUITE_SECONDS)
        except subprocess.TimeoutExpired:
            child.terminate()
            child.wait()
            status = f"more than {SUITE_SECONDS} s"
        except BaseException:
            child.terminate()
            child.wait()
            raise
        if not os.path.exists(report):
            print(f"{' '.join(names)}: ended without report ({status})")
            return Counts(failed=1)
        values: dict[str, Any] = json.loads(Path(report).read_text())
        return Counts(values["passed"], values["failed"], [(test, reason) for test, reason in values["skipped"]])


def run_child(report: str, names: Sequence[str]) -> None:
    """
    Run tests in this process and write their counts to the file ``report``.
    """
    from twisted.trial.reporter import TestResult, TreeReporter
    from twisted.trial.runner import TestLoader, TrialRunner

    suite = TestLoader().loadByNames(list(names), recurse=True)
    result = cast(TestResult, TrialRunner(TreeReporter, workingDirectory="_trial_temp").run(suite))
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skipped = [(test.id(), str(reason).strip()) for test, reason in result.skips]
    values = {"passed": result.successes + len(result.expectedFailures), "failed": failed, "skipped": skipped}
    Path(report).write_text(json.dumps(values))


def main(parts: Sequence[str]) -> int:
    """
    Run ``parts`` (all by default), print the summary, return the exit status.
    """
    suites = {"unit": unit_names(), **{name: list(names) for name, names in SUITES.items()}}
    steps: dict[str, Callable[[], Counts]] = {"lint": run_lint}
    steps.update({name: partial(run_suite, names) for name, names in suites.items()})
    unknown = [part for part in parts if part not in steps]
    if unknown:
        print(f"no such part: {', '.join(unknown)}; there are {', '.join(steps)}", file=sys.stderr)
        return 2
    total = Counts()
    for part in parts or steps:
        print(f"== {part}", flush=True)
        total.add(steps[part]())
    for test, reason in total.skipped:
        print(f"skipped: {test}: {reason.splitlines()[0] if reason else 'no reason given'}")
    silent = [test for test, reason in total.skipped if not reason]
    if os.environ.get("CI") == "true" and silent:
        total.failed += len(silent)
    print(total.summary())
    return 1 if total.failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main(sys.argv[1:]))
