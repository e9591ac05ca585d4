"""
``make demo`` as a user sees it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.process import wait_for

ROOT = Path(__file__).parent.parent


class DemoTests(SynchronousTestCase):
    """
    The demo runs by itself, stays, and ends at Ctrl-C.
    """

    def test_whole_demo(self) -> None:
        """
        With nothing on standard input it shows answers of cloud, cache and hub and the watch that goes on, stays up at the
        addresses it prints, and ends with status 0 and without leftovers when interrupted.
        """
        folder = Path(self.mktemp())
        folder.mkdir()
        with open(folder / "output", "wb") as output:
            demo = subprocess.Popen(
                [sys.executable, "-u", "-m", "tests.demo"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(folder.resolve())},
            )
        self.addCleanup(demo.wait)
        self.addCleanup(demo.kill)

        def said() -> str:
            return (folder / "output").read_text()

        wait_for("the last act", lambda: "kill -USR1" in said() or demo.poll() is not None, 90)
        text = said()
        for line in ("X-Yurt-Source: cloud", "X-Yurt-Source: cache", "X-Yurt-Source: hub", "Age: ", "colour=blue", "colour=red"):
            self.assertIn(line, text)
        proxy = re.search(r"proxy +(http://[\d.:]+)", text)
        assert proxy is not None
        with urllib.request.urlopen(f"{proxy[1]}/api/v1/pods", timeout=10) as answer:
            self.assertEqual(answer.headers["X-Yurt-Source"], "cloud")
        demo.send_signal(signal.SIGINT)
        self.assertEqual(demo.wait(20), 0, said())
        self.assertIn("Good bye.", said())
        self.assertEqual([path.name for path in folder.iterdir()], ["output"])
        with self.assertRaises(OSError):
            urllib.request.urlopen(f"{proxy[1]}/api/v1/pods", timeout=10)
