"""
Tests of the logs.
"""

import errno
import os
import signal
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path
from typing import Any, cast

from twisted.logger import LogEvent, Logger, LogPublisher, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from yurt import logs

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJub2JvZHkifQ.c2lnbmF0dXJl"


class RedactTests(SynchronousTestCase):
    """
    Tests of redact.
    """

    def test_credentials_vanish(self) -> None:
        """
        No form of a credential is left, and what stands around it is.
        """
        for text, secret, expected in (
            (f"Authorization: Bearer {JWT}", JWT, "Authorization: Bearer [redacted]"),
            (f"(b'authorization', b'bearer {JWT}')", JWT, "(b'authorization', b'bearer [redacted]')"),
            ("Basic dXNlcjpwYXNz rest", "dXNlcjpwYXNz", "Basic [redacted] rest"),
            (f"token {JWT}, then", JWT, "token [redacted], then"),
            ("via http://user:pass@proxy:3128/", "pass", "via http://[redacted]@proxy:3128/"),
            ("join abcdef.0123456789abcdef now", "0123456789abcdef", "join abcdef.[redacted] now"),
        ):
            clean = logs.redact(text)
            self.assertEqual(clean, expected)
            self.assertNotIn(secret, clean)

    def test_the_rest_stays(self) -> None:
        """
        Ordinary messages are untouched.
        """
        for text in ("GET https://10.0.0.1:6443/api/v1/pods?watch=1", "bearer of news", "kube-system.svc.cluster.local", "a@b"):
            self.assertEqual(logs.redact(text), text)


class GuardTests(SynchronousTestCase):
    """
    Tests of guard.
    """

    def setUp(self) -> None:
        self.texts: list[str] = []
        publisher = LogPublisher()
        logs.guard(publisher)
        publisher.addObserver(self.observe)  # type: ignore[arg-type]  # observers are plain callables
        self.log = Logger(namespace="test", observer=publisher)

    def observe(self, event: LogEvent) -> None:
        """
        An observer that comes after the guard.
        """
        self.texts.append(eventAsText(event, includeTraceback=True))

    def test_fields(self) -> None:
        """
        A credential in a field does not reach an observer.
        """
        self.log.info("sent {headers}", headers=[(b"Authorization", b"Bearer " + JWT.encode())])
        self.assertIn("sent", self.texts[0])
        self.assertNotIn(JWT, self.texts[0])

    def test_tracebacks(self) -> None:
        """
        A credential in an exception does not reach an observer, its traceback does.
        """
        try:
            raise ValueError(f"bad token {JWT}")
        except ValueError:
            self.log.failure("it failed")
        self.assertIn("Traceback", self.texts[0])
        self.assertIn("bad token [redacted]", self.texts[0])
        self.assertNotIn(JWT, self.texts[0])

    def test_others_untouched(self) -> None:
        """
        An event without credentials arrives with its fields.
        """
        self.log.info("hello {who}", who="world")
        self.assertTrue(self.texts[0].endswith("hello world"), self.texts)


GUARDED = f"""
import sys
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver
from yurt import logs
logs.guard()
globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
Logger().info("sent Bearer {JWT}")
"""


class BeginningTests(SynchronousTestCase):
    """
    Tests of guard as a daemon uses it: called before twistd begins to write.
    """

    def test_order(self) -> None:
        """
        What is logged from then on is clean.
        """
        done = subprocess.run([sys.executable, "-c", GUARDED], text=True, capture_output=True, check=True, timeout=60)
        self.assertIn("sent Bearer [redacted]", done.stdout)


class RotatingTests(SynchronousTestCase):
    """
    Tests of the log files.
    """

    def test_bounded(self) -> None:
        """
        However much is logged, only FILES_KEPT files of about FILE_BYTES stay beside the current one, unreadable to others.
        """
        folder = Path(tempfile.mkdtemp(dir=os.getcwd()))
        self.patch(os, "environ", {**os.environ, "YURT_LOG_FILE": str(folder / "hub.log")})
        self.patch(logs, "FILE_BYTES", 1000)
        publisher = LogPublisher(logs.rotating())
        log = Logger(namespace="test", observer=publisher)
        for number in range(200):
            log.info("message {number} {text}", number=number, text="x" * 80)
        files = sorted(folder.iterdir())
        self.assertEqual(len(files), logs.FILES_KEPT + 1)
        self.assertTrue(all(file.stat().st_size < 1500 for file in files))
        self.assertTrue(all(file.stat().st_mode & 0o007 == 0 for file in files))
        self.assertIn("message 199", (folder / "hub.log").read_text())


class EnduringTests(SynchronousTestCase):
    """
    Tests of a log whose disk fails, and of one that others move.
    """

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=os.getcwd()))
        self.path = self.folder / "log" / "hub.log"
        self.patch(os, "environ", {**os.environ, "YURT_LOG_FILE": str(self.path)})
        self.patch(sys, "stderr", StringIO())
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))

    def begin(self) -> Logger:
        """
        A logger that writes to the file.
        """
        return Logger(namespace="test", observer=LogPublisher(logs.rotating()))

    def test_cannot_be_opened(self) -> None:
        """
        A file that cannot be opened is told once, on standard error, and the daemon starts; it is written when it can be.
        """
        self.path.parent.write_text("in the way")
        log = self.begin()
        log.info("lost")
        self.path.parent.unlink()
        log.info("kept")
        said = cast(StringIO, sys.stderr).getvalue().splitlines()
        self.assertEqual(len(said), 1, said)
        self.assertIn(str(self.path), said[0])
        self.assertTrue(self.path.read_text().endswith("kept\n"))

    def test_cannot_be_written(self) -> None:
        """
        A disk that fails in the middle costs the lines of that time alone.
        """

        class FailingFile(StringIO):
            def write(self, text: str) -> int:
                raise OSError(errno.ENOSPC, "No space left on device")

        good = StringIO()
        files: list[Any] = [FailingFile(), good]
        log = logs.EnduringLog(lambda: files.pop(0))
        log.write("lost")
        log.write("kept")
        self.assertEqual(good.getvalue(), "kept")

    def test_renamed(self) -> None:
        """
        After SIGUSR1 a file that was renamed is let go of, and a new one begun.
        """
        log = self.begin()
        log.info("one")
        self.path.rename(self.path.with_name("old"))
        os.kill(os.getpid(), signal.SIGUSR1)
        log.info("two")
        self.assertIn("two", self.path.read_text())
        self.assertNotIn("two", self.path.with_name("old").read_text())

    def test_emptied(self) -> None:
        """
        A file that was emptied in its place is written from its beginning on, without a hole.
        """
        log = self.begin()
        log.info("one")
        os.truncate(self.path, 0)
        log.info("two")
        self.assertNotIn(b"\0", self.path.read_bytes())
        self.assertIn(b"two", self.path.read_bytes())

    def test_signal_without_file(self) -> None:
        """
        SIGUSR1 does not end a daemon that logs to the journal either.
        """
        logs.printed()
        os.kill(os.getpid(), signal.SIGUSR1)


class LevelTests(SynchronousTestCase):
    """
    Tests of what a log for operators has.
    """

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=os.getcwd()))
        self.patch(os, "environ", {**os.environ, "YURT_LOG_FILE": str(self.folder / "hub.log")})

    def test_no_debug(self) -> None:
        """
        Neither the files nor the journal get what is said again and again; both get the rest.
        """
        out = StringIO()
        self.patch(sys, "stdout", out)
        publisher = LogPublisher(logs.rotating(), logs.printed())
        log = Logger(namespace="test", observer=publisher)
        log.debug("once more")
        log.warn("for the first time")
        for text in (out.getvalue(), (self.folder / "hub.log").read_text()):
            self.assertNotIn("once more", text)
            self.assertIn("for the first time", text)
