"""
Tests of what pip makes of the project: each form is installed into a fresh virtual environment and used from elsewhere.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent.parent
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "_trial_temp*", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "dropin.cache"
)
STEP_SECONDS = 300
"""An installation that takes longer has hung."""
DAEMONS = {
    "yurthub": "--server-addr=",
    "yurt-tunnel-server": "--egress-socket=",
    "yurt-tunnel-agent": "--tunnelserver-addr=",
    "yurt-controller-manager": "--controllers=",
}
"""The subcommands, each with an option of its own."""


def run(*command: str | Path, cwd: str | Path = "/") -> str:
    """
    What a command prints; one that fails fails the test with all it said.
    """
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, cwd=cwd, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=STEP_SECONDS
    )
    if done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


@cache
def built() -> Path:
    """
    A folder with a copy of the checkout, and its sdist and wheel in ``dist``; made once, gone at the end of the process.
    """
    folder = Path(tempfile.mkdtemp(prefix="yurt-packaging-"))
    atexit.register(shutil.rmtree, folder)
    shutil.copytree(ROOT, folder / "checkout", ignore=LEFT_OUT)
    # The wheel is built out of the sdist, which so proves to be whole.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "checkout")
    return folder


class InstallTests(SynchronousTestCase):
    """
    Tests of the ways to install.
    """

    def setUp(self) -> None:
        self.folder = built()
        self.checkout = self.folder / "checkout"

    def install(self, *arguments: str | Path) -> Path:
        """
        The programs' folder of a fresh environment after ``pip install`` with these arguments.
        """
        prefix = Path(tempfile.mkdtemp(dir=self.folder))
        venv.create(prefix, with_pip=True, symlinks=True)
        run(prefix / "bin" / "python", "-m", "pip", "install", "--quiet", *arguments, cwd=self.checkout)
        self.addCleanup(shutil.rmtree, prefix)
        return prefix / "bin"

    def works(self, programs: Path) -> None:
        """
        The subcommands are there from any folder, and so is their help.
        """
        for cwd in ("/", self.folder, self.checkout):
            listed = run(programs / "twistd", "--help", cwd=cwd)
            for name, option in DAEMONS.items():
                self.assertIn(option, run(programs / "twistd", name, "--help", cwd=cwd))
                self.assertIn(f"{name} ", listed)

    def has_files(self, programs: Path) -> None:
        """
        All of etc/ is installed beside: what the init system needs, and what a cluster must hold.
        """
        for path in filter(Path.is_file, (ROOT / "etc").rglob("*")):
            installed = programs.parent / "share" / "yurt" / path.relative_to(ROOT / "etc")
            self.assertEqual(installed.read_text(), path.read_text())

    def test_folder(self) -> None:
        """
        pip install . works, and what it installs is all that is needed.
        """
        programs = self.install(".")
        self.works(programs)
        self.has_files(programs)

    def test_editable(self) -> None:
        """
        pip install -e . works, and takes the code from the checkout.
        """
        programs = self.install("--editable", ".")
        self.works(programs)
        place = run(programs / "python", "-c", "import yurt.hub; print(yurt.hub.__file__)").strip()
        self.assertTrue(place.startswith(str(self.checkout)), place)

    def test_wheel(self) -> None:
        """
        The wheel works and has the package, the plugin and the files of etc/, but no tests.
        """
        (wheel,) = (self.folder / "dist").glob("*.whl")
        programs = self.install(wheel)
        self.works(programs)
        self.has_files(programs)
        package = Path(run(programs / "python", "-c", "import yurt; print(yurt.__file__)").strip()).parent
        self.assertTrue((package / "py.typed").exists())
        self.assertTrue((package.parent / "twisted" / "plugins" / "yurt_plugin.py").exists())
        self.assertFalse((package.parent / "tests").exists())

    def test_sdist(self) -> None:
        """
        The sdist works, and has all that its own tests need.
        """
        (sdist,) = (self.folder / "dist").glob("*.tar.gz")
        self.works(self.install(sdist))
        shutil.unpack_archive(sdist, self.folder / "unpacked")
        (root,) = (self.folder / "unpacked").iterdir()
        for name in ("Makefile", "pyproject.toml", ".ci/run", "tests/run.py", "bench/__init__.py", "scripts/system-packages"):
            self.assertTrue((root / name).exists(), name)
        self.assertFalse((root / "twisted" / "__init__.py").exists())
        self.assertFalse((root / "twisted" / "plugins" / "__init__.py").exists())
