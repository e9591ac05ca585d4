"""
The command of the systemd unit, run as systemd would.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.etc.hub_settings import free_port, hub_options

UNIT = Path(__file__).parent.parent.parent / "etc" / "systemd" / "yurthub.service"
TWISTD = Path(sys.executable).parent / "twistd"
STEP_SECONDS = 60
"""A message or an end that takes longer does not come."""


class UnitTests(SynchronousTestCase):
    """
    Tests of ExecStart, ExecReload and the stop.
    """

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=os.getcwd()))
        self.messages = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.messages.close)
        name = f"\0yurt-test-{os.getpid()}-{self.folder.name}"
        self.messages.bind(name)
        self.messages.settimeout(STEP_SECONDS)
        command = re.findall(r"^ExecStart=(.+)$", UNIT.read_text(), re.MULTILINE)[0].split()
        self.assertEqual((command[0], command[-1]), ("/opt/yurt/bin/twistd", "$YURTHUB_OPTIONS"))
        command[0:1], command[-1:] = [str(TWISTD)], hub_options(self.folder, free_port())
        environ = dict(os.environ, NOTIFY_SOCKET="@" + name[1:], WATCHDOG_USEC="400000")
        with (self.folder / "log").open("wb") as log:
            self.hub = subprocess.Popen(command, cwd=self.folder, env=environ, stdout=log, stderr=log)
        self.addCleanup(self.end)

    def end(self) -> None:
        """
        Leave no process behind when a test fails.
        """
        self.hub.kill()
        self.hub.wait()

    def message(self) -> str:
        """
        What the hub tells next, signs of life aside.
        """
        while True:
            message = self.messages.recv(1000).decode()
            if message != "WATCHDOG=1":
                return message

    def test_life(self) -> None:
        """
        READY when it listens, signs of life while it runs, STOPPING when told to end, and an end that systemd calls clean.
        """
        self.assertEqual(self.message(), "READY=1")
        self.assertEqual(self.messages.recv(1000), b"WATCHDOG=1")
        self.hub.send_signal(signal.SIGTERM)
        self.assertEqual(self.message(), "STOPPING=1")
        status = self.hub.wait(STEP_SECONDS)
        self.assertIn("SuccessExitStatus=143\n", UNIT.read_text())  # how shells and systemd write an end by SIGTERM
        self.assertIn(status, {0, 143, -signal.SIGTERM}, (self.folder / "log").read_text())
        self.assertIn("Server Shut Down", (self.folder / "log").read_text())

    def test_reload(self) -> None:
        """
        The reload's signal makes it read its credentials again, and it goes on.
        """
        self.assertIn("ExecReload=/bin/kill -HUP $MAINPID\n", UNIT.read_text())
        self.assertEqual(self.message(), "READY=1")
        self.hub.send_signal(signal.SIGHUP)
        while "credentials were read again" not in (self.folder / "log").read_text():
            self.assertEqual(self.messages.recv(1000), b"WATCHDOG=1")
        self.assertIsNone(self.hub.poll())
