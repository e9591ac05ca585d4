"""
What the tests of all daemons' command lines have in common.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Generic, TypeVar

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

OptionsT = TypeVar("OptionsT", bound=usage.Options)


class CommandLineCase(SynchronousTestCase, Generic[OptionsT]):
    """
    Parses command lines of the daemon called ``daemon``, whose options are an ``options``; ``folder`` is for the files they name.
    """

    daemon: str
    options: type[OptionsT]

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=os.getcwd()))

    def parse(self, *words: str) -> OptionsT:
        """
        The options of a command line.
        """
        options = self.options()
        options.parseOptions(list(words))
        return options

    def problem(self, *words: str) -> str:
        """
        The one line with which a command line is refused.
        """
        failure = self.assertRaises(SystemExit, self.parse, *words)
        message = str(failure.code)
        self.assertEqual(len(message.splitlines()), 1, message)
        self.assertTrue(message.startswith(f"{self.daemon}: "), message)
        return message
