"""
A store file with flipped bits anywhere: nothing wrong is read, and nobody dies of it.
"""

from __future__ import annotations

import os
import random
import sys

from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

import tests
from tests.hub.cache.fixtures import Cache
from tests.hub.cache.read_damaged import VALUES
from yurt.hub.cache.folder import DATA_FILE

PAGE = 4096


class DamageTests(TestCase):
    """
    Damage to each page in turn.
    """

    timeout = 300

    def healthy_file(self) -> bytes:
        """
        A file with inner pages, overflow pages, free pages.
        """
        path = self.mktemp()
        cache = Cache(path)
        table = cache.store.table("t")
        for key, value in VALUES.items():
            table.put(key, value)
        self.successResultOf(cache.store.flush())
        for key in list(VALUES)[::3]:
            table.delete(key)
        self.successResultOf(cache.store.close())
        with open(os.path.join(path, DATA_FILE), "rb") as file:
            return file.read()

    async def test_each_page(self) -> None:
        """
        A byte flipped in the head of each page, and one in the rest of it, is survived, and no wrong value is read.
        """
        data = self.healthy_file()
        chance = random.Random(1)
        paths = []
        for page in range(0, len(data), PAGE):
            for at in (page + chance.randrange(32), page + chance.randrange(32, PAGE)):
                damaged = bytearray(data)
                damaged[at] ^= 1 << chance.randrange(8)
                path = self.mktemp()
                os.mkdir(path)
                with open(os.path.join(path, DATA_FILE), "wb") as file:
                    file.write(damaged)
                paths.append(path)
        home = tests.__path__[0] + "/.."
        command = ["-m", "tests.hub.cache.read_damaged", *map(os.path.abspath, paths)]
        out, _, _ = await getProcessOutputAndValue(sys.executable, command, {"PYTHONPATH": home}, home, reactor)
        bad = [line for line in out.decode().splitlines() if not line.endswith(" ok")]
        self.assertEqual(bad, [])
        self.assertEqual(len(out.splitlines()), len(paths))
        self.assertGreater(len(paths), 100)
