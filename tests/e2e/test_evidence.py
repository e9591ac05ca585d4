"""
Tests of what a failed test leaves behind; they need no cluster.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from twisted.python.failure import Failure
from twisted.trial.reporter import TestResult
from twisted.trial.unittest import SynchronousTestCase

from .evidence import EXCERPT_BYTES, EXCERPT_LINE, TAIL_BYTES, Logs, Witness, trouble


class EvidenceTests(SynchronousTestCase):
    """
    Tests with logs made here.
    """

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        for name in ("edge-1/kubelet", "edge-1/yurthub", "log/etcd"):
            path = self.folder / f"{name}.log"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("before\n")
        self.logs = Logs(self.folder)

    def add(self, name: str, text: str) -> None:
        with open(self.folder / f"{name}.log", "a") as file:
            file.write(text)

    def fail_after(self, test: SynchronousTestCase) -> tuple[str, BaseException]:
        """
        What is printed when that test fails, and what it failed of.
        """
        result, printed = TestResult(), io.StringIO()
        with contextlib.redirect_stdout(printed):
            test.run(Witness(result, self.logs, lambda: "web Terminating"))
        ((_, failure),) = result.errors
        assert isinstance(failure, Failure) and failure.value is not None
        return printed.getvalue(), failure.value

    def test_only_what_is_new(self) -> None:
        """
        Of each log that grew the last whole lines are told, long ones in short, as many as there is room for.
        """
        self.add("edge-1/kubelet", f"one\ntwo\n{'x' * 500}\nlast\n")
        self.assertEqual(self.logs.news(100, 20), {"kubelet of edge-1": f"one\ntwo\n{'x' * 20}\nlast"})
        self.assertEqual(self.logs.news(28, 20), {"kubelet of edge-1": f"{'x' * 20}\nlast"})
        self.add("edge-1/kubelet", 'I1130 15:30:57 1 setters.go:86] Using node IP: "10.99.0.11"\n')
        self.assertEqual(self.logs.news(28, 20), {"kubelet of edge-1": f"{'x' * 20}\nlast"})
        self.add("log/new", "said\n")
        self.assertEqual(self.logs.news(100, 20)["new"], "said")

    def test_trouble(self) -> None:
        """
        A mishap is shown from the begin of its entry to the end, and nothing of what is in order.
        """
        entry = "2026-11-30T14:00:01+0000 [-] Unhandled\nTraceback (most recent call last):\n  line\nbuiltins.KeyError: 'x'"
        log = f"2026-11-30T14:00:00+0000 [-] before\n{entry}\n\n2026-11-30T14:00:02+0000 [-] after\n"
        self.assertEqual(trouble(log), entry)
        self.assertEqual(trouble("2026-11-30T14:00:00+0000 [-] before\n"), "")

    def test_state_that_fails(self) -> None:
        """
        Where even the question after the cluster fails, the test's own failure is told, and that.
        """

        class Broken(SynchronousTestCase):
            def runTest(self) -> None:
                raise RuntimeError("so it should")

        result = TestResult()
        with contextlib.redirect_stdout(io.StringIO()):
            Broken().run(Witness(result, self.logs, lambda: str(1 // 0)))
        ((_, failure),) = result.errors
        assert isinstance(failure, Failure)
        self.assertEqual(failure.getErrorMessage(), "so it should")
        self.assertIn("not told: ZeroDivisionError", str(getattr(failure.value, "evidence", "")))

    def test_failure(self) -> None:
        """
        A failed test shows the cluster and the ends of all logs; the gist goes with its exception, and has a bound.
        """
        logs = self

        class Broken(SynchronousTestCase):
            def runTest(self) -> None:
                for name in ("edge-1/kubelet", "edge-1/yurthub", "log/etcd"):
                    logs.add(name, "".join(f"{name} {number}\n" for number in range(10_000)))
                raise RuntimeError("so it should")

        printed, problem = self.fail_after(Broken())
        for text in ("web Terminating", "edge-1/kubelet 9999", "edge-1/yurthub 9999", "log/etcd 9999"):
            self.assertIn(text, printed)
        self.assertTrue(len(printed) < 4 * TAIL_BYTES, len(printed))
        evidence = str(getattr(problem, "evidence", ""))
        for text in ("web Terminating", "edge-1/kubelet 9999", "edge-1/yurthub 9999"):
            self.assertIn(text, evidence)
        self.assertNotIn("etcd", evidence)
        self.assertTrue(len(evidence) < EXCERPT_BYTES + 4 * EXCERPT_LINE, len(evidence))
