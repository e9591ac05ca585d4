"""
Run everything that must hold, and end with one line: ``N passed, N failed``, and ``, N skipped`` if any was.

usage: python -m tests.run [part ...]

Parts: lint (ruff, mypy, shell scripts), unit, and the suites of SUITES; all of them by default.  STAGES says which run side by
side; what those print is shown when they are over.  With CI=true in the environment a skipped test that gives no reason counts
as failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from twisted.python.failure import Failure

ROOT = Path(__file__).parent.parent
SUITES: dict[str, tuple[str, ...]] = {
    "packaging": ("tests/packaging",),
    "etc": ("tests/etc",),
    "kernel": ("tests/kernel",),
    "contract": ("tests/contract",),
    "interop": ("tests/interop",),
    "e2e-tunnel": tuple(f"tests/e2e/test_{name}.py" for name in ("tunnel_*", "guide", "approver")),
    "e2e-changes": tuple(f"tests/e2e/test_{name}.py" for name in ("joining", "upgrades", "failover", "servers")),
    "e2e": ("tests/e2e/test_*.py",),
}
"""Suites that take long or need the machine, and their folders and modules; what several name belongs to the first of them.
``unit`` is all the rest."""
STAGES = (
    (("unit",), ("lint", "packaging", "etc", "interop"), ("contract", "kernel")),
    (("e2e",), ("e2e-tunnel",), ("e2e-changes",)),
)
"""One after the other; the lanes of a stage run side by side.  Machines have two cores; an end-to-end test mostly waits."""
EVIDENCE = 2
"""Of so many failed tests the evidence is shown once more at the end, which may be all of a long output that a reader gets."""
MESSAGE = 500
"""Characters of a failure's message that are shown at the end."""
LIVE = True
"""Whether lanes that run alone print as they go."""
SLOWEST = 5
"""So many of the slowest tests of a suite are named."""
SUITE_SECONDS = 3600
"""A suite that runs longer is ended and counts as failed."""


@dataclass
class Counts:
    """
    How many checks passed and failed, what the failures were, and which were skipped for what reason.
    """

    passed: int = 0
    failed: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    evidence: list[tuple[str, str]] = field(default_factory=list)
    """What the exceptions of failed tests brought as their attribute ``evidence``."""

    def add(self, other: Counts) -> None:
        """
        Count the checks of ``other``, too.
        """
        self.passed += other.passed
        self.failed += other.failed
        self.failures += other.failures
        self.skipped += other.skipped
        self.evidence += other.evidence

    def summary(self) -> str:
        """
        The last line of a run.
        """
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


def name_of(path: Path) -> str:
    """
    The name under which a test module or package is imported.
    """
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def suite_names() -> dict[str, list[str]]:
    """
    The test modules and packages of each suite.
    """
    taken: set[Path] = set()
    suites = {}
    for suite, patterns in SUITES.items():
        found = {path for pattern in patterns for path in [*ROOT.glob(pattern)] or [ROOT / pattern]} - taken
        taken |= found
        suites[suite] = sorted(map(name_of, found))
    apart = {path.parent if path.is_file() else path for path in taken}
    tests = {*(ROOT / "tests").glob("test_*.py"), *(path.parent for path in (ROOT / "tests").glob("*/__init__.py"))}
    return {"unit": sorted(name_of(path) for path in tests if path not in apart), **suites}


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


def run_lint(output: IO[bytes] | None = None) -> Counts:
    """
    Each linter is one check.  They print to ``output``, or where this process does.
    """
    counts = Counts()
    commands = [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], *shell_checks()]
    bin_folder = os.path.dirname(sys.executable)
    environ = dict(os.environ, PATH=os.pathsep.join([bin_folder, os.environ.get("PATH", os.defpath)]))
    for command in commands:
        say(" ".join(["+", *command]), output)
        if subprocess.run(command, cwd=ROOT, env=environ, stdout=output, stderr=output and subprocess.STDOUT).returncode:
            counts.failed += 1
            counts.failures.append((" ".join(command), "see above"))
        else:
            counts.passed += 1
    return counts


def run_suite(names: Sequence[str], output: IO[bytes] | None = None) -> Counts:
    """
    Run tests in a process of their own, so that its crash is a failure and not the end of the run.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        command = [sys.executable, "-m", "tests.run", "--child", report, *names]
        child = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output and subprocess.STDOUT)
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
            say(f"{' '.join(names)}: ended without report ({status})", output)
            return Counts(failed=1, failures=[(" ".join(names), f"ended without report ({status})")])
        return Counts(**json.loads(Path(report).read_text()))


def run_child(report: str, names: Sequence[str]) -> None:
    """
    Run tests in this process and write their counts to the file ``report``.
    """
    from twisted.trial.reporter import TestResult, TreeReporter
    from twisted.trial.runner import TestLoader, TrialRunner

    took: dict[str, float] = {}

    class TimedReporter(TreeReporter):
        """
        Remembers how long each test took.
        """

        def startTest(self, method: Any) -> None:
            took[method.id()] = time.monotonic()
            super().startTest(method)

        def stopTest(self, method: Any) -> None:
            super().stopTest(method)
            took[method.id()] = time.monotonic() - took[method.id()]

    suite = TestLoader().loadByNames(list(names), recurse=True)
    result = cast(TestResult, TrialRunner(TimedReporter, workingDirectory="_trial_temp").run(suite))
    for name in sorted(took, key=lambda name: -took[name])[:SLOWEST]:
        print(f"{took[name]:7.1f} s  {name}")
    broken = cast(list[tuple[Any, Failure]], [*result.failures, *result.errors])
    counts = Counts(
        passed=result.successes + len(result.expectedFailures),
        failed=len(broken) + len(result.unexpectedSuccesses),
        failures=[(test.id(), told(failure)) for test, failure in broken],
        skipped=[(test.id(), str(reason).strip()) for test, reason in result.skips],
        evidence=[(test.id(), said) for test, failure in broken if (said := getattr(failure.value, "evidence", ""))],
    )
    Path(report).write_text(json.dumps(asdict(counts)))


def told(failure: Failure) -> str:
    """
    Where in the tests a failure came from, and its message.
    """
    places = [(path, line) for _, path, line, *_ in failure.frames if Path(path).is_relative_to(ROOT / "tests")]
    place = "".join(f" ({os.path.basename(path)}:{line})" for path, line in places[:1])
    return f"{failure.getErrorMessage()}{place}"


def cut(text: str, size: int) -> str:
    """
    A text without its middle when it is longer than that.
    """
    return text if len(text) <= size else f"{text[: size // 2]} … {text[-(size // 2) :]}"


def say(text: str, output: IO[bytes] | None) -> None:
    """
    Print a line to ``output``, or where this process prints.
    """
    if output is None:
        print(text, flush=True)
    else:
        output.write(text.encode() + b"\n")
        output.flush()


Step = Callable[[IO[bytes] | None], Counts]


def run_in_turn(parts: Sequence[str], steps: dict[str, Step], *, live: bool) -> Counts:
    """
    Run parts one after the other; what they print is shown as it comes, or when each is over.
    """
    total = Counts()
    for part in parts:
        with tempfile.TemporaryFile() as captured:
            output = None if live else captured
            say(f"== {part}", output)
            total.add(steps[part](output))
            captured.seek(0)
            print(captured.read().decode(errors="replace"), end="", flush=True)
    return total


def run_parts(parts: Sequence[str], steps: dict[str, Step]) -> Counts:
    """
    Run parts, those of a stage side by side.
    """
    total = Counts()
    rest = [part for part in parts if not any(part in lane for stage in STAGES for lane in stage)]
    for stage in (*STAGES, (rest,)):
        lanes = [chosen for lane in stage if (chosen := [part for part in lane if part in parts])]
        if len(lanes) < 2:
            counts = [run_in_turn(lane, steps, live=LIVE) for lane in lanes]
        else:
            with ThreadPoolExecutor() as threads:
                counts = list(threads.map(lambda lane: run_in_turn(lane, steps, live=False), lanes))
        for one in counts:
            total.add(one)
    return total


def main(parts: Sequence[str]) -> int:
    """
    Run ``parts`` (all by default), print the summary, return the exit status.
    """
    suites = suite_names()
    steps: dict[str, Step] = {"lint": run_lint, **{name: partial(run_suite, names) for name, names in suites.items()}}
    unknown = [part for part in parts if part not in steps]
    if unknown:
        print(f"no such part: {', '.join(unknown)}; there are {', '.join(steps)}", file=sys.stderr)
        return 2
    total = run_parts(parts or list(steps), steps)
    for test, reason in total.skipped:
        print(f"skipped: {test}: {reason.splitlines()[0] if reason else 'no reason given'}")
    silent = [test for test, reason in total.skipped if not reason]
    if os.environ.get("CI") == "true" and silent:
        total.failed += len(silent)
    for test, evidence in total.evidence[:EVIDENCE]:
        print(f"evidence: {test}:\n{evidence}")
    for test, message in total.failures:
        print(f"failed: {test}: {cut(message, MESSAGE)}")
    print(total.summary())
    return 1 if total.failed else 0


if __name__ == "__main__":
    # Daemons that tests start would compile every module of theirs anew, at 0.3 s of processor each.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if sys.argv[1:2] == ["--child"]:
        run_child(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main(sys.argv[1:]))
