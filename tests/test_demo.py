"""
``make demo`` as a user sees it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.demo import stage
from tests.e2e.process import wait_for

ROOT = Path(__file__).parent.parent


def fetch(command: str) -> str:
    """
    What a command of curl would print.
    """
    parser = argparse.ArgumentParser()
    for option in ("--cacert", "--cert", "--key", "-H"):
        parser.add_argument(option)
    parser.add_argument("url")
    asked = parser.parse_args(shlex.split(command)[1:])
    context = None
    if asked.cacert:
        context = ssl.create_default_context(cafile=asked.cacert)
        context.load_cert_chain(asked.cert, asked.key)
    name, _, value = asked.H.partition(": ")
    request = urllib.request.Request(asked.url, headers={name: value})
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        return str(answer.read().decode())


def kill_group(leader: int) -> None:
    """
    Kill a process that leads a group, and all of the group: a demo that failed to end may have left its daemons.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


class DaemonTests(TestCase):
    """
    The demo's children.
    """

    async def test_that_does_not_end(self) -> None:
        """
        A daemon that takes no notice of SIGTERM is killed in time.
        """
        folder = Path(self.mktemp())
        folder.mkdir()
        stubborn = folder / "twistd"
        stubborn.write_text("#!/bin/sh\ntrap '' TERM\necho deaf\nexec sleep 600\n")
        stubborn.chmod(0o755)
        self.patch(sys, "executable", str(folder / "python"))
        self.patch(stage, "STOP_TIMEOUT", 0.1)
        daemon = stage.Daemon(reactor, "stubborn")
        daemon.start()

        async def heard() -> bool:
            return daemon.last_words == b"deaf\n"

        await daemon.until("trap", heard)
        await daemon.stop()
        self.assertTrue(daemon.has_ended)


class DemoTests(SynchronousTestCase):
    """
    The demo runs by itself, stays, and ends at Ctrl-C.
    """

    def test_whole_demo(self) -> None:
        """
        With nothing on standard input it shows answers of cloud, cache and hub and the watch that goes on, then a log and an exec
        through the tunnel, what is said of a node that is away, and its return; stays up at the addresses it prints, and ends
        with status 0 and without leftovers when interrupted.
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
                start_new_session=True,
            )
        self.addCleanup(demo.wait)
        self.addCleanup(kill_group, demo.pid)

        def said() -> str:
            return (folder / "output").read_text()

        wait_for("the last act", lambda: "kill -USR2" in said() or demo.poll() is not None, 120)
        text = said()
        for line in ("X-Yurt-Source: cloud", "X-Yurt-Source: cache", "X-Yurt-Source: hub", "Age: ", "colour=blue", "colour=red"):
            self.assertIn(line, text)
        for line in (
            "demo-node connected from", "-> 404", "names no node", "line 3 of a container", "101 Switching Protocols",
            "the same connection, both ways    (", "the server noticed after", "-> 503",
            "is not connected: its agent's connection", "the agent is back after",
        ):  # fmt: skip
            self.assertIn(line, text)
        proxy = re.search(r"proxy +(http://[\d.:]+)", text)
        assert proxy is not None
        with urllib.request.urlopen(f"{proxy[1]}/api/v1/pods", timeout=10) as answer:
            self.assertEqual(answer.headers["X-Yurt-Source"], "cloud")
        commands = re.findall(r"^ +(curl .*/healthz)$", text, re.MULTILINE)
        self.assertEqual(len(commands), 2, text)
        for command in commands:
            self.assertEqual(fetch(command), "ok", command)
        demo.send_signal(signal.SIGINT)
        self.assertEqual(demo.wait(60), 0, said())
        self.assertIn("Good bye.", said())
        self.assertEqual([path.name for path in folder.iterdir()], ["output"])
        with self.assertRaises(OSError):
            urllib.request.urlopen(f"{proxy[1]}/api/v1/pods", timeout=10)
