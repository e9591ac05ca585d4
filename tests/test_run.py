"""
Tests of the runner of tests.
"""

import contextlib
import io
import os
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests import run

SAMPLE = """
import os
from twisted.trial.unittest import SkipTest, SynchronousTestCase
class SampleTests(SynchronousTestCase):
    def test_good(self) -> None: pass
    def test_bad(self) -> None: self.fail("so it should")
    def test_error(self) -> None:
        problem = RuntimeError("so it should" * 100)
        problem.evidence = "what was seen"
        raise problem
    def test_skipped(self) -> None: raise SkipTest("no such thing here")
"""
CRASH = """
import os
os._exit(9)
"""


class RunTests(SynchronousTestCase):
    """
    Tests of run_suite and main, on suites made here.
    """

    def setUp(self) -> None:
        folder = Path(tempfile.mkdtemp(dir=os.getcwd()))
        (folder / "sample_suite.py").write_text(SAMPLE)
        (folder / "crash_suite.py").write_text(CRASH)
        self.set_variable("PYTHONPATH", os.pathsep.join([str(folder), str(run.ROOT)]))
        self.patch(run, "ROOT", folder)
        self.patch(run, "SUITES", {"sample": ("sample_suite.py",), "crash": ("crash_suite.py",)})
        self.patch(run, "LIVE", False)
        (folder / "tests").mkdir()

    def set_variable(self, name: str, value: str) -> None:
        """
        Set a variable of this process and its children, for one test.
        """
        before = os.environ.get(name)
        self.addCleanup(lambda: os.environ.pop(name) if before is None else os.environ.update({name: before}))
        os.environ[name] = value

    def main(self, *parts: str) -> tuple[int, list[str]]:
        """
        Exit status and lines of a run.
        """
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            status = run.main(parts)
        return status, out.getvalue().splitlines()

    def test_counts(self) -> None:
        """
        Failures and errors count as failed, and are named again before the end; a skip is printed with its reason, and the last
        line is the summary.
        """
        status, lines = self.main("sample")
        self.assertEqual((status, lines[-1]), (1, "1 passed, 2 failed, 1 skipped"))
        self.assertIn("skipped: sample_suite.SampleTests.test_skipped: no such thing here", lines)
        self.assertIn("failed: sample_suite.SampleTests.test_bad: so it should", lines)

    def test_end_of_the_output(self) -> None:
        """
        Where only the end of the output is seen, it tells what a failed test left as its evidence, and long messages in short.
        """
        _, lines = self.main("sample")
        begin = lines.index("evidence: sample_suite.SampleTests.test_error:")
        self.assertEqual(lines[begin + 1], "what was seen")
        (error,) = (line for line in lines[begin:] if line.startswith("failed: sample_suite.SampleTests.test_error: "))
        self.assertTrue("so it should" in error and " … " in error and len(error) < 2 * run.MESSAGE, error)

    def test_side_by_side(self) -> None:
        """
        What runs side by side is shown in one piece each, and counts like all else; what is in no stage runs last.
        """
        self.patch(run, "STAGES", ((("unit",), ("crash",)),))
        self.patch(run, "suite_names", lambda: {"unit": ["sample_suite"], "crash": ["crash_suite"], "sample": ["sample_suite"]})
        status, lines = self.main("unit", "crash", "sample")
        self.assertEqual((status, lines[-1]), (1, "2 passed, 5 failed, 2 skipped"))
        crash = lines.index("== crash")
        self.assertIn("crash_suite: ended without report (9)", lines[crash + 1 :])
        self.assertLess(max(crash, lines.index("== unit")), lines.index("== sample"))

    def test_crash(self) -> None:
        """
        A suite whose process dies is a failure.
        """
        status, lines = self.main("crash")
        self.assertEqual((status, lines[-1]), (1, "0 passed, 1 failed"))

    def test_missing(self) -> None:
        """
        A suite that cannot be loaded is a failure.
        """
        self.patch(run, "SUITES", {"gone": ("no_such_suite",)})
        status, lines = self.main("gone")
        self.assertEqual((status, lines[0], lines[-1]), (1, "== gone", "0 passed, 1 failed"))

    def test_unknown_part(self) -> None:
        """
        A part that does not exist is refused with those that do.
        """
        status, lines = self.main("nonsense")
        self.assertEqual(status, 2)
        self.assertIn("crash", lines[0])

    def test_silent_skips_fail_in_ci(self) -> None:
        """
        In CI a skip without reason is a failure.
        """
        self.patch(run, "run_suite", lambda names, output: run.Counts(1, 0, skipped=[("a.test", "")]))
        self.set_variable("CI", "true")
        self.assertEqual(self.main("sample")[0], 1)
        self.set_variable("CI", "")
        self.assertEqual(self.main("sample")[0], 0)

    def test_nothing_is_left_out(self) -> None:
        """
        Every test folder and module belongs to one suite: the first that names it, or ``unit``.
        """
        self.patch(run, "SUITES", {"few": ("tests/part/test_a*.py",), "part": ("tests/part/test_*.py",)})
        for folder in ("part", "more"):
            (run.ROOT / "tests" / folder).mkdir()
        for name in ("test_one.py", "part/__init__.py", "part/test_ab.py", "part/test_b.py", "more/__init__.py"):
            (run.ROOT / "tests" / name).write_text("")
        expected = {"unit": ["tests.more", "tests.test_one"], "few": ["tests.part.test_ab"], "part": ["tests.part.test_b"]}
        self.assertEqual(run.suite_names(), expected)
