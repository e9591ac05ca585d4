"""
``kill -9`` at any moment: each object is afterwards its old or its new version.
"""

from __future__ import annotations

import os
import sys

from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

import tests

ROUNDS = 1000


class KillTests(TestCase):
    """
    A writer that is killed.
    """

    timeout = 600

    async def test_killed_while_writing(self) -> None:
        """
        A thousand writers die in mid-write; every object stays whole, no acknowledged write is lost, no group is torn.
        """
        command = ["-m", "tests.hub.cache.kill_rounds", os.path.abspath(self.mktemp()), str(ROUNDS)]
        home = tests.__path__[0] + "/.."
        out, error, code = await getProcessOutputAndValue(sys.executable, command, {"PYTHONPATH": home}, home, reactor)
        self.assertEqual((code, error), (0, b""))
        self.assertIn(b"%d rounds" % ROUNDS, out)
