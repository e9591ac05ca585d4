"""
The real init scripts start, report and stop the real daemons, without privileges, in a folder of their own.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.etc.daemons import AGENT, CONTROLLERS, HUB, SERVER
from tests.ports import free_port

ETC = Path(__file__).parent.parent.parent / "etc"
TWISTD = Path(sys.executable).parent / "twistd"
STEP_SECONDS = 60
"""A start or stop that takes longer has hung."""
OK, DEAD, NOT_CONFIGURED, NO_PROGRAM, NOT_RUNNING, NOT_RUNNING_STATUS = 0, 1, 6, 5, 7, 3


class ScriptCase(SynchronousTestCase):
    """
    One daemon and its init script.
    """

    daemon = HUB

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=os.getcwd()))
        self.pid_file = self.folder / "daemon.pid"
        self.log = self.folder / "log" / "daemon.log"
        self.admin = free_port()
        self.options = self.daemon.make_options(self.folder, self.admin)
        self.write_settings(TWISTD, self.options)
        self.addCleanup(self.end)

    def write_settings(self, twistd: Path, options: list[str]) -> None:
        """
        What would stand in /etc/default.
        """
        (self.folder / "default").write_text(
            f'TWISTD="{twistd}"\nPIDFILE="{self.pid_file}"\nYURT_LOG_FILE="{self.log}"\n'
            f'{self.daemon.setting}="{" ".join(options)}"\n'
        )

    def end(self) -> None:
        """
        Leave no process behind when a test fails.
        """
        if self.pid_file.exists():
            os.kill(int(self.pid_file.read_text()), signal.SIGKILL)

    def script(self, word: str, lib: Path = ETC / "lib") -> tuple[int, str]:
        """
        Exit status and output of the script.
        """
        environ = dict(os.environ, YURT_DEFAULTS=str(self.folder / "default"), YURT_LIB=str(lib))
        output = self.folder / "output"
        with output.open("w") as out:  # a file: a daemon that kept a pipe open would block the test
            command = ["sh", str(ETC / "init.d" / self.daemon.name), word]
            done = subprocess.run(command, cwd="/", env=environ, stdout=out, stderr=subprocess.STDOUT, timeout=STEP_SECONDS)
        return done.returncode, output.read_text()

    def pid(self) -> int:
        """
        The process that runs.
        """
        return int(self.pid_file.read_text())

    def healthy(self) -> bytes:
        """
        What the health page says.
        """
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/v1/healthz", timeout=10) as answer:
            return bytes(answer.read())


class HubTests(ScriptCase):
    """
    Tests of etc/init.d/yurthub.
    """

    def test_life(self) -> None:
        """
        Start, status, reload, restart and stop do what they say, and say it by their exit status.
        """
        self.assertEqual(self.script("status")[0], NOT_RUNNING_STATUS)
        self.assertEqual(self.script("reload")[0], NOT_RUNNING)
        status, said = self.script("start")
        self.assertEqual(status, OK, said + (self.log.read_text() if self.log.exists() else ""))
        self.assertEqual(self.healthy(), b"OK")
        self.assertEqual(self.script("status")[0], OK)

        first = self.pid()
        self.assertEqual(self.script("start")[0], OK)
        self.assertEqual(self.pid(), first)

        self.assertEqual(self.script("reload")[0], OK)
        self.assertEqual(self.script("force-reload")[0], OK)
        self.assertEqual(self.healthy(), b"OK")
        self.assertEqual(self.pid(), first)

        self.assertEqual(self.script("restart")[0], OK)
        self.assertNotEqual(self.pid(), first)
        self.assertEqual(self.healthy(), b"OK")

        self.assertEqual(self.script("stop")[0], OK)
        self.assertFalse(self.pid_file.exists())
        self.assertEqual(self.script("status")[0], NOT_RUNNING_STATUS)
        self.assertEqual(self.script("stop")[0], OK)
        self.assertEqual(self.script("try-restart")[0], OK)
        self.assertEqual(self.script("status")[0], NOT_RUNNING_STATUS)

    def test_after_a_crash(self) -> None:
        """
        A killed daemon is reported as dead, and starts again over its left pid file.
        """
        self.assertEqual(self.script("start")[0], OK)
        killed = self.pid()
        os.kill(killed, signal.SIGKILL)
        while os.path.exists(f"/proc/{killed}/exe"):
            time.sleep(0.01)
        self.assertEqual(self.script("status")[0], DEAD)
        self.assertEqual(self.script("start")[0], OK)
        self.assertEqual(self.healthy(), b"OK")
        self.assertEqual(self.script("stop")[0], OK)

    def test_foreign_process(self) -> None:
        """
        A pid file whose number went to another process is no running daemon, and that process is left alone.
        """
        self.pid_file.write_text(str(os.getpid()))
        self.assertEqual(self.script("status")[0], DEAD)
        self.assertEqual(self.script("stop")[0], OK)
        self.assertFalse(self.pid_file.exists())

    def test_refusals(self) -> None:
        """
        What keeps a daemon from starting is said in one line, with the exit status of the init script standard.
        """
        self.write_settings(self.folder / "missing", self.options)
        status, said = self.script("start")
        self.assertEqual((status, said.count("\n")), (NO_PROGRAM, 1), said)
        status, said = self.script("start", lib=self.folder)
        self.assertEqual((status, said.count("\n")), (NO_PROGRAM, 1), said)
        self.write_settings(TWISTD, [])
        status, said = self.script("start")
        self.assertEqual((status, said.count("\n")), (NOT_CONFIGURED, 1), said)
        self.write_settings(TWISTD, [*self.options, self.daemon.wrong])
        status, said = self.script("start")
        self.assertEqual((status, said.count("\n")), (DEAD, 1), said)
        self.assertIn(self.daemon.wrong.partition("=")[0], said)

    def test_taken_port(self) -> None:
        """
        A port that is taken fails the start with the reason and the log that has it whole, and leaves nothing running.
        """
        with socket.create_server(("127.0.0.1", self.admin)):
            status, said = self.script("start")
        self.assertEqual(status, DEAD)
        self.assertIn("Address already in use", said)
        self.assertIn(f"see the end of {self.log}", said)
        self.assertRegex(self.log.read_text(), r"Address already in use; end the process that holds it.*\n$")
        self.assertEqual(self.script("status")[0], NOT_RUNNING_STATUS)

    def test_usage(self) -> None:
        """
        A word that the script does not know is refused with those it does.
        """
        status, said = self.script("dance")
        self.assertEqual(status, 2)
        self.assertIn("force-reload", said)


class WatchTests(ScriptCase):
    """
    Tests of the word for /etc/inittab, with the hub.
    """

    def test_crashes(self) -> None:
        """
        A daemon that dies is started again each time; one that is stopped, and started again, has not crashed.
        """
        environ = dict(os.environ, YURT_DEFAULTS=str(self.folder / "default"), YURT_LIB=str(ETC / "lib"))
        told = self.folder / "watched"
        with told.open("w") as out:
            command = ["sh", str(ETC / "init.d" / self.daemon.name), "watch"]
            watch = subprocess.Popen(command, cwd="/", env=environ, stdout=out, stderr=subprocess.STDOUT)
        self.addCleanup(watch.wait)
        self.addCleanup(watch.terminate)
        self.assertEqual(self.script("start")[0], OK)
        for crashes in (1, 2):
            killed = self.pid()
            os.kill(killed, signal.SIGBUS)
            deadline = time.monotonic() + STEP_SECONDS
            while self.script("status")[0] != OK or self.pid() == killed:
                self.assertLess(time.monotonic(), deadline, told.read_text())
                time.sleep(0.1)
            self.assertEqual(self.healthy(), b"OK")
            self.assertEqual(self.script("restart")[0], OK)
            self.assertEqual(told.read_text().count("has crashed"), crashes)
        self.assertEqual(self.script("stop")[0], OK)


class TunnelServerTests(HubTests):
    """
    Tests of etc/init.d/yurt-tunnel-server.
    """

    daemon = SERVER


class TunnelAgentTests(HubTests):
    """
    Tests of etc/init.d/yurt-tunnel-agent.
    """

    daemon = AGENT


class ControllerTests(HubTests):
    """
    Tests of etc/init.d/yurt-controller-manager.
    """

    daemon = CONTROLLERS
