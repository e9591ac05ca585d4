"""
Tests for :mod:`yurt.host.sole`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from yurt.host.sole import BACKLOG, Sole

HOLD = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
sock = socket.socket(socket.AF_UNIX)
sock.bind("\\0" + sys.argv[1])
sock.listen()
print("held", flush=True)
sys.stdin.read()
"""
NOBODY = 65534


class SoleTests(SynchronousTestCase):
    """
    Tests for :class:`Sole`.
    """

    def setUp(self) -> None:
        self.name = f"yurt-test-{os.getpid()}-{self.id()}"

    def sole(self) -> Sole:
        """
        One who wants the name.
        """
        sole = Sole(self.name)
        self.addCleanup(sole.leave)
        return sole

    def hold(self, uid: int) -> subprocess.Popen[str]:
        """
        A process of that user that has the name.
        """
        command = [sys.executable, "-c", HOLD, self.name, str(uid)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "held\n")
        return process

    def test_one(self) -> None:
        """
        The first has it, and keeps it; the second knows who has it, however often it asks, and gets it when the first leaves.
        """
        first, second = self.sole(), self.sole()
        self.assertTrue(first.take() and first.take())
        for _ in range(2 * BACKLOG):
            self.assertFalse(second.take())
        self.assertEqual(second.holder, os.getpid())
        first.leave()
        self.assertTrue(second.take())
        self.assertIsNone(second.holder)
        self.assertFalse(first.take())

    def test_awaited(self) -> None:
        """
        Who has it learns whether somebody waits for it, which is so until that one gives up.
        """
        first, second, third = self.sole(), self.sole(), self.sole()
        first.take()
        self.assertFalse(first.is_awaited())
        self.assertFalse(second.take())
        second.leave()
        self.assertFalse(first.is_awaited())
        self.assertFalse(second.take() or third.take())
        second.leave()
        self.assertTrue(first.is_awaited())
        first.leave()
        self.assertTrue(third.take())
        self.assertFalse(first.is_awaited())

    def test_another_holder(self) -> None:
        """
        Who waits knows of each holder in turn.
        """
        first, process = self.sole(), self.hold(os.geteuid())
        self.assertFalse(first.take())
        process.kill()
        process.wait()
        second = self.sole()
        self.assertTrue(second.take())
        self.assertFalse(first.take())
        self.assertEqual(first.holder, os.getpid())
        self.assertTrue(second.is_awaited())

    def test_killed(self) -> None:
        """
        A process that is killed leaves it.
        """
        process, sole = self.hold(os.geteuid()), self.sole()
        self.assertFalse(sole.take())
        self.assertEqual(sole.holder, process.pid)
        process.kill()
        process.wait()
        self.assertTrue(sole.take())

    def test_stranger(self) -> None:
        """
        An ordinary user cannot keep a daemon of root from its work.
        """
        if os.geteuid():
            self.skipTest("needs root, to be somebody else")
        self.hold(NOBODY)
        self.assertTrue(self.sole().take())

    def test_not_listening(self) -> None:
        """
        Nor does a name without a listener tell anything; it is asked again.
        """
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(f"\0{self.name}")
            sole = self.sole()
            self.assertFalse(sole.take())
            self.assertIsNone(sole.holder)
        self.assertTrue(sole.take())
