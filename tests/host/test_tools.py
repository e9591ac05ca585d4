"""
Tests for :mod:`yurt.host.tools`, :mod:`yurt.host.fork` and :mod:`yurt.host.libraries`.
"""

from __future__ import annotations

import ctypes.util
import fcntl
import os
import sys

from twisted.trial.unittest import SynchronousTestCase

from yurt.host import tools
from yurt.host.errors import FirewallError
from yurt.host.fork import in_fork
from yurt.host.libraries import quick_search
from yurt.host.tools import xtables_lock


class XtablesLockTests(SynchronousTestCase):
    """
    Tests for :func:`xtables_lock`.
    """

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        self.patch(os, "environ", {**os.environ, "XTABLES_LOCKFILE": self.path})

    def is_locked(self) -> bool:
        """
        Whether another program would have to wait.
        """
        with open(self.path) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def test_held(self) -> None:
        """
        Within the block other programs wait, behind it they do not; also when the block failed.
        """
        try:
            with xtables_lock():
                self.assertTrue(self.is_locked())
                raise ValueError
        except ValueError:
            self.assertFalse(self.is_locked())

    def test_held_by_another(self) -> None:
        """
        A program that does not give it back is an error after a while, which names the file.
        """
        self.patch(tools, "LOCK_TIMEOUT", 0.0)
        with open(self.path, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with self.assertRaises(FirewallError) as caught:
                with xtables_lock():
                    self.fail("the lock was had twice")
            self.assertIn(self.path, str(caught.exception))

    def test_no_place(self) -> None:
        """
        On a host that has no place for it there is none to wait for.
        """
        self.patch(os, "environ", {**os.environ, "XTABLES_LOCKFILE": f"{self.path}/absent/lock"})
        with xtables_lock():
            self.assertFalse(os.path.exists(self.path))


def double(number: int) -> int:
    return 2 * number


def refuse(reason: str) -> None:
    raise FirewallError(reason)


def end(status: int) -> None:
    os._exit(status)


class InForkTests(SynchronousTestCase):
    """
    Tests for :func:`in_fork`.
    """

    def test_returns(self) -> None:
        """
        What the call returns comes back, and it ran elsewhere.
        """
        self.assertEqual(in_fork(double, 21), 42)
        self.assertNotEqual(in_fork(os.getpid), os.getpid())

    def test_raises(self) -> None:
        """
        So does what it raises.
        """
        with self.assertRaisesRegex(FirewallError, "no such table"):
            in_fork(refuse, "no such table")

    def test_ends(self) -> None:
        """
        A library that ends the process, or any other error there, is an error here.
        """
        with self.assertRaisesRegex(FirewallError, "ended with 3"):
            in_fork(end, 3)
        with self.assertRaisesRegex(FirewallError, "TypeError"):
            in_fork(double, None)  # type: ignore[arg-type]  # the error that is meant to happen


class QuickSearchTests(SynchronousTestCase):
    """
    Tests for :func:`quick_search`.
    """

    def test_found(self) -> None:
        """
        Libraries are found, those that are not there are not, and nothing is left changed.
        """
        before = ctypes.util.find_library, sys.modules.get("distutils")
        with quick_search():
            found = ctypes.util.find_library("c")
            self.assertTrue(found is not None and ctypes.CDLL(found).getpid() == os.getpid())
            self.assertIsNone(ctypes.util.find_library("yurt-has-none"))
        self.assertEqual((ctypes.util.find_library, sys.modules.get("distutils")), before)
