"""
Tests of the files for init systems.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.etc.daemons import DAEMONS
from yurt.options import duration

ETC = Path(__file__).parent.parent.parent / "etc"
TWISTD = Path(sys.executable).parent / "twistd"
INIT_SCRIPTS = sorted((ETC / "init.d").iterdir())


def check(*command: str | Path) -> str:
    """
    What a checker says; a complaint fails the test.
    """
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    if done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


class UnitFileTests(SynchronousTestCase):
    """
    Tests of the systemd units.
    """

    def test_all(self) -> None:
        """
        Every daemon has a unit, an init script and settings, and nothing else has.
        """
        for folder, suffix in (("systemd", ".service"), ("init.d", ""), ("default", "")):
            names = {path.name for path in (ETC / folder).iterdir()}
            self.assertEqual(names, {daemon.name + suffix for daemon in DAEMONS}, folder)

    def test_verify(self) -> None:
        """
        systemd finds nothing wrong with a unit, and it names no program that is missing.
        """
        if shutil.which("systemd-analyze") is None:
            raise SkipTest("systemd-analyze is not on this machine")
        folder = Path(tempfile.mkdtemp(dir=os.getcwd()))
        for unit in (ETC / "systemd").iterdir():
            copy = folder / unit.name
            copy.write_text(unit.read_text().replace("/opt/yurt/bin/twistd", str(TWISTD)))
            self.assertEqual(check("systemd-analyze", "verify", copy).strip(), "")

    def test_settings_have_a_reader(self) -> None:
        """
        A unit reads the same settings as the init script, and passes the same options on; the settings set them.
        """
        for daemon in DAEMONS:
            unit = (ETC / "systemd" / f"{daemon.name}.service").read_text()
            self.assertIn(f"EnvironmentFile=-/etc/default/{daemon.name}\n", unit)
            self.assertIn(f" {daemon.name} ${daemon.setting}\n", unit)
            script = (ETC / "init.d" / daemon.name).read_text()
            for line in (f"DAEMON={daemon.name}\n", f"SETTING={daemon.setting}\n", f'OPTIONS="${daemon.setting}"\n'):
                self.assertIn(line, script)
            self.assertIn(f'\n{daemon.setting}="--', (ETC / "default" / daemon.name).read_text())

    def test_time_to_stop(self) -> None:
        """
        Neither reader kills a daemon whose connections are within their drain time.
        """
        for daemon in DAEMONS:
            drain = dict((option.name, option.default) for option in daemon.options.declared).get("drain-timeout", "0s")
            unit = re.search(r"^TimeoutStopSec=(\d+)$", (ETC / "systemd" / f"{daemon.name}.service").read_text(), re.MULTILINE)
            script = re.search(r"^STOP_SECONDS=(\d+)$", (ETC / "init.d" / daemon.name).read_text(), re.MULTILINE)
            patience = [int(found[1]) if found else 30 for found in (unit, script)]
            self.assertTrue(min(patience) > duration(drain), f"{daemon.name}: {patience}")


class InitScriptTests(SynchronousTestCase):
    """
    Tests of the init scripts as text.
    """

    def test_syntax(self) -> None:
        """
        The shells that boxes have take the scripts and the settings.
        """
        shells = [shell for shell in ("sh", "dash", "bash") if shutil.which(shell)]
        shells += ["busybox sh"] if shutil.which("busybox") else []
        for script in [*INIT_SCRIPTS, *(ETC / "lib").iterdir(), *(ETC / "default").iterdir()]:
            for shell in shells:
                check(*shell.split(), "-n", script)

    def test_header(self) -> None:
        """
        A script carries the header that orders it at boot, and may be executed.
        """
        for script in INIT_SCRIPTS:
            text = script.read_text()
            self.assertTrue(os.access(script, os.X_OK), script)
            for key in ("Provides", "Required-Start", "Required-Stop", "Default-Start", "Default-Stop", "Short-Description"):
                self.assertTrue(re.search(rf"^# {key}: +\S", text, re.MULTILINE), key)


class DefaultFileTests(SynchronousTestCase):
    """
    Tests of the settings.
    """

    def test_all_options(self) -> None:
        """
        The settings name every option of the program with its default, in the order of the program, and none that is not there.
        """
        for daemon in DAEMONS:
            text = (ETC / "default" / daemon.name).read_text()
            named = re.findall(r"^#   --([a-z-]+)=(\S*)", text, re.MULTILINE)
            self.assertEqual(named, [(option.name, option.default) for option in daemon.options.declared])

    def test_only_settings(self) -> None:
        """
        Both readers understand the file: assignments, comments and nothing else.
        """
        for path in (ETC / "default").iterdir():
            for line in path.read_text().splitlines():
                self.assertTrue(re.fullmatch(r'|#.*|[A-Z_]+="[^"`$]*"', line), line)
