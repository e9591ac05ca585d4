"""
Tests of what a daemon does with its process.
"""

import os
import signal
import subprocess
import sys
import time
from typing import cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from yurt.lifecycle import MAX_OPEN_FILES, OnHangup, use_steady_time

END_SECONDS = 90
"""A child that has to do little has ended by then."""


class SteadyTimeTests(SynchronousTestCase):
    """
    Tests of timers that a change of the time of day leaves alone.
    """

    def make_reactor(self) -> SelectReactor:
        """
        One of its own, with nothing scheduled.
        """
        own = SelectReactor()
        for reader in own.removeAll():
            self.addCleanup(reader.connectionLost, Failure(ConnectionDone()))
        return own

    def test_monotonic(self) -> None:
        """
        A call is due by the monotonic clock.
        """
        own = self.make_reactor()
        use_steady_time(own)
        call = own.callLater(10.0, lambda: None)
        self.assertApproximates(call.getTime(), time.monotonic() + 10.0, 5.0)
        self.assertApproximates(own.timeout(), 10.0, 5.0)

    def test_not_in_the_middle(self) -> None:
        """
        Where something is scheduled already the clock stays: the two tell times that cannot be compared.
        """
        own = self.make_reactor()
        own.callLater(10.0, lambda: None)
        use_steady_time(own)
        self.assertApproximates(own.seconds(), time.time(), 5.0)


class OnHangupTests(TestCase):
    """
    Tests of SIGHUP.
    """

    async def test_reloads(self) -> None:
        """
        The signal calls reload through the reactor while the service runs, and does nothing after it stopped.
        """
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        reloaded: Deferred[None] = Deferred()
        service = OnHangup(cast(IReactorFromThreads, reactor), lambda: reloaded.callback(None))
        service.startService()
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertNoResult(reloaded)
        await reloaded
        service.stopService()
        os.kill(os.getpid(), signal.SIGHUP)


class StopOnceTests(SynchronousTestCase):
    """
    Tests of stop_once.
    """

    PROGRAM = """
import os, signal, sys
from twisted.internet import reactor, task
from twisted.logger import globalLogBeginner, textFileLogObserver
from yurt import lifecycle

def say(name):
    os.kill(os.getpid(), getattr(signal, name))

def stop():
    say("SIGTERM")
    say("SIGINT")
    return task.deferLater(reactor, 0.01, print, "ended in order")

globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
lifecycle.stop_once(reactor)
reactor.addSystemEventTrigger("before", "shutdown", stop)
for name in ("SIGTERM", "SIGTERM", "SIGINT"):
    reactor.callWhenRunning(say, name)
reactor.run()
"""

    def test_signals_while_stopping(self) -> None:
        """
        Who asks again while a daemon stops in order is told so, and cuts nothing short.
        """
        program = [sys.executable, "-c", self.PROGRAM]
        done = subprocess.run(program, capture_output=True, text=True, timeout=END_SECONDS, check=True)
        self.assertIn("ended in order", done.stdout)
        for name in ("SIGTERM", "SIGINT"):
            self.assertIn(f"{name} again: the stop goes on", done.stdout)
        self.assertNotIn("Traceback", done.stdout + done.stderr)


class FileLimitTests(SynchronousTestCase):
    """
    Tests of raise_file_limit.
    """

    def limits(self, soft: int, hard: int, most: int = MAX_OPEN_FILES) -> list[int]:
        """
        What a process of such limits is told, and the limits that it has then.
        """
        program = (
            f"import resource; from yurt import lifecycle; lifecycle.MAX_OPEN_FILES = {most}; files = resource.RLIMIT_NOFILE;"
            f"resource.setrlimit(files, ({soft}, {hard})); print(lifecycle.raise_file_limit(), *resource.getrlimit(files))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=END_SECONDS, check=True)
        return [int(word) for word in done.stdout.split()]

    def test_raised(self) -> None:
        """
        The soft limit becomes the hard one, which stays.
        """
        self.assertEqual(self.limits(100, 400), [400, 400, 400])

    def test_bounded(self) -> None:
        """
        Where next to no limit is set, more is not taken than makes sense; what was allowed already is not taken away.
        """
        self.assertEqual(self.limits(100, 400, most=300), [300, 300, 400])
        self.assertEqual(self.limits(350, 400, most=300), [350, 350, 400])
