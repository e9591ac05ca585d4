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

from yurt.hub.tap import Options

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
        A unit reads the same settings as the init script, and passes the same options on.
        """
        for script in INIT_SCRIPTS:
            unit = (ETC / "systemd" / f"{script.name}.service").read_text()
            self.assertIn(f"EnvironmentFile=-/etc/default/{script.name}\n", unit)
            self.assertIn("$YURTHUB_OPTIONS\n", unit)


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
        The settings name every option of the program with its default, and none that is not there.
        """
        text = (ETC / "default" / "yurthub").read_text()
        named = dict(re.findall(r"^#   --([a-z-]+)=(\S*)", text, re.MULTILINE))
        self.assertEqual(named, {option.name: option.default for option in Options.declared})

    def test_only_settings(self) -> None:
        """
        Both readers understand the file: assignments, comments and nothing else.
        """
        for path in (ETC / "default").iterdir():
            for line in path.read_text().splitlines():
                self.assertTrue(re.fullmatch(r'|#.*|[A-Z_]+="[^"`$]*"', line), line)
