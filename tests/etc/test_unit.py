"""
The commands of the systemd units, run as systemd would.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.etc.daemons import AGENT, CONTROLLERS, HUB, SERVER
from tests.ports import free_port

UNITS = Path(__file__).parent.parent.parent / "etc" / "systemd"
TWISTD = Path(sys.executable).parent / "twistd"
STEP_SECONDS = 60
"""A message or an end that takes longer does not come."""
LOOK_SECONDS = 0.5
"""So often is looked whether the daemon lives, while a message is awaited."""


class HubTests(SynchronousTestCase):
    """
    Tests of ExecStart, ExecReload and the stop of yurthub.service.
    """

    daemon = HUB

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=os.getcwd()))
        self.messages = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.messages.close)
        name = f"\0yurt-test-{os.getpid()}-{self.folder.name}"
        self.messages.bind(name)
        self.messages.settimeout(LOOK_SECONDS)
        self.unit = (UNITS / f"{self.daemon.name}.service").read_text()
        command = re.findall(r"^ExecStart=(.+)$", self.unit, re.MULTILINE)[0].split()
        self.assertEqual((command[0], command[-1]), ("/opt/yurt/bin/twistd", f"${self.daemon.setting}"))
        command[0:1], command[-1:] = [str(TWISTD)], self.daemon.make_options(self.folder, free_port())
        environ = dict(os.environ, NOTIFY_SOCKET="@" + name[1:], WATCHDOG_USEC="400000")
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, env=environ, stdout=log, stderr=log)
        self.addCleanup(self.end)

    def end(self) -> None:
        """
        Leave no process behind when a test fails.
        """
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        """
        What the daemon has printed.
        """
        return (self.folder / "log").read_text()

    def receive(self) -> str:
        """
        What the daemon tells next.
        """
        deadline = time.monotonic() + STEP_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                return self.messages.recv(1000).decode()
            except TimeoutError:
                continue
        self.fail(f"no message (exit status {self.process.returncode}); the daemon printed:\n{self.log()}")

    def message(self) -> str:
        """
        What the daemon tells next, signs of life aside.
        """
        while (message := self.receive()) == "WATCHDOG=1":
            continue
        return message

    def test_life(self) -> None:
        """
        READY when it listens, signs of life while it runs, STOPPING when told to end, and an end that systemd calls clean.
        """
        self.assertEqual(self.message(), "READY=1")
        self.assertEqual(self.receive(), "WATCHDOG=1")
        self.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.message(), "STOPPING=1")
        status = self.process.wait(STEP_SECONDS)
        self.assertIn("SuccessExitStatus=143\n", self.unit)  # how shells and systemd write an end by SIGTERM
        self.assertIn(status, {0, 143, -signal.SIGTERM}, self.log())
        self.assertIn("Server Shut Down", self.log())

    def test_reload(self) -> None:
        """
        The reload's signal ends nothing, and the log says what it did; the daemon goes on.
        """
        self.assertIn("ExecReload=/bin/kill -HUP $MAINPID\n", self.unit)
        self.assertEqual(self.message(), "READY=1")
        self.process.send_signal(signal.SIGHUP)
        self.assertEqual(self.receive(), "WATCHDOG=1")
        self.assertEqual(self.receive(), "WATCHDOG=1")
        while self.daemon.reloaded not in self.log():
            self.assertEqual(self.receive(), "WATCHDOG=1")
        self.assertIsNone(self.process.poll())


class TunnelServerTests(HubTests):
    """
    Tests of the same in yurt-tunnel-server.service.
    """

    daemon = SERVER


class TunnelAgentTests(HubTests):
    """
    Tests of the same in yurt-tunnel-agent.service.
    """

    daemon = AGENT


class ControllerTests(HubTests):
    """
    Tests of the same in yurt-controller-manager.service.
    """

    daemon = CONTROLLERS
