"""
Tests of :mod:`yurt.hub.cache.salvage`: of a damaged file only what was damaged is lost, and nothing is denied that was there.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import tests
from tests.hub.cache.fixtures import CONFIG_MAPS, KUBELET, Cache, item, listed, names
from yurt.hub.cache import ViewKey, crash, folder
from yurt.hub.cache.answers import ABSENT, Found
from yurt.hub.cache.crash import CRASH_FILE
from yurt.hub.cache.folder import CORRUPT_FILE, DATA_FILE, NEW_FILE
from yurt.hub.cache.store import Store

PAGE = 4096
RECORDS = {b"%04d" % number: b"%d-" % number * (1 + number % 1500) for number in range(400)}
"""Some of them larger than a page."""
NAMES = [f"map-{number}" for number in range(60)]
KEY = ViewKey(KUBELET, CONFIG_MAPS, "", "default")


class SalvageTests(SynchronousTestCase):
    """
    Damage to a file at rest.
    """

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.data = os.path.join(self.path, DATA_FILE)
        cache = Cache(self.path)
        table = cache.store.table("t")
        for key, value in RECORDS.items():
            table.put(key, value)
        self.successResultOf(cache.store.close())

    def reopened(self) -> tuple[Store, dict[bytes, bytes]]:
        """
        The store of the next process, and all that it holds.
        """
        cache = Cache(self.path)
        self.addCleanup(lambda: self.successResultOf(cache.store.close()))
        return cache.store, dict(cache.store.table("t").scan())

    def assert_saved(self, least: int) -> None:
        """
        So many records at least are as they were, and the file can be written.
        """
        store, held = self.reopened()
        self.assertEqual((store.corrupt_files, store.problem), (1, None))
        self.assertTrue(os.path.exists(os.path.join(self.path, CORRUPT_FILE)))
        self.assertFalse(os.path.exists(os.path.join(self.path, NEW_FILE)))
        self.assertLess(len(held), len(RECORDS))
        self.assertGreaterEqual(len(held), least)
        self.assertEqual(held, {key: RECORDS[key] for key in held})
        store.table("t").put(b"new", b"1")
        self.assertTrue(self.successResultOf(store.flush()))

    def a_leaf(self) -> int:
        """
        Where a page with records is.
        """
        with open(self.data, "rb") as file:
            data = file.read()
        return next(at for at in range(2 * PAGE, len(data), PAGE) if data[at + 10] == 2 and b"0200" in data[at : at + PAGE])

    def test_lost_page(self) -> None:
        """
        A page that holds something else now costs the records on it.
        """
        at = self.a_leaf()
        with open(self.data, "r+b") as file:
            file.seek(at)
            file.write(os.urandom(PAGE))
        self.assert_saved(len(RECORDS) - 80)

    def test_bad_sector(self) -> None:
        """
        So does one that the disk does not give.
        """
        at, pread = self.a_leaf(), os.pread

        def give(descriptor: int, size: int, offset: int) -> bytes:
            if offset == at:
                raise OSError(errno.EIO, "Input/output error")
            return pread(descriptor, size, offset)

        def verify(path: str, subdir: bool) -> Any:
            raise OSError(errno.EIO, "Input/output error")

        self.patch(folder, "verify", verify)
        self.patch(os, "pread", give)
        self.assert_saved(len(RECORDS) - 80)

    def test_cut(self) -> None:
        """
        Of a file whose end is gone what lies before it is saved.
        """
        os.truncate(self.data, os.path.getsize(self.data) // 2)
        self.assert_saved(1)

    def test_no_room(self) -> None:
        """
        Where nothing can be written the cache starts afresh.
        """
        with open(self.data, "r+b") as file:
            file.seek(self.a_leaf())
            file.write(bytes(PAGE))
        os.mkdir(os.path.join(self.path, NEW_FILE))
        store, held = self.reopened()
        self.assertEqual((store.corrupt_files, held), (1, {}))

    def test_after_a_death(self) -> None:
        """
        Large records are read whole only after a process has died of them: the verifier sees no more than where they begin.
        """
        pread = os.pread

        def give(descriptor: int, size: int, offset: int) -> bytes:
            if offset <= at < offset + size:
                raise OSError(errno.EIO, "Input/output error")
            return pread(descriptor, size, offset)

        at = os.path.getsize(self.data) - PAGE
        self.patch(os, "pread", give)
        store, _ = self.reopened()
        self.assertEqual(store.corrupt_files, 0)
        self.successResultOf(store.close())
        with open(os.path.join(self.path, CRASH_FILE), "w") as file:
            file.write("Fatal Python error: Bus error")
        store, held = self.reopened()
        self.assertEqual(store.corrupt_files, 1)
        self.assertGreater(len(held), len(RECORDS) // 2)


class HonestTests(SynchronousTestCase):
    """
    Damage to a file that holds a whole list.
    """

    def test_nothing_is_denied(self) -> None:
        """
        Whichever page is lost: an object of the list is there, or nothing is known of it; the list has them all, or is not known.
        """
        path = self.mktemp()
        cache = Cache(path)
        cache.views.store_list(KEY, listed(9, *(item(name, 5) for name in NAMES)), requested_version="")
        self.successResultOf(cache.store.close())
        with open(os.path.join(path, DATA_FILE), "rb") as file:
            data = file.read()
        unknown = 0
        for at in range(2 * PAGE, len(data), PAGE):
            for is_page in (True, False):
                path = self.mktemp()
                os.mkdir(path)
                wrong = bytes(PAGE) if is_page else data[at : at + PAGE // 2] + bytes([data[at + PAGE // 2] ^ 1])
                with open(os.path.join(path, DATA_FILE), "wb") as file:
                    file.write(data[:at] + wrong + data[at + len(wrong) :])
                cache = Cache(path)
                for name in NAMES:
                    found = cache.views.read_object(KUBELET, CONFIG_MAPS, "", "default", name)
                    self.assertIsNot(found, ABSENT, (at, is_page, name))
                    unknown += not isinstance(found, Found)
                self.assertIn(names(cache.views, KEY), (None, sorted(NAMES)))
                self.successResultOf(cache.store.close())
        self.assertGreater(unknown, 0)


DIES = """
import os, sys
from tests.hub.cache.fixtures import Cache
from yurt.hub.cache.folder import DATA_FILE

cache = Cache(sys.argv[1])
data = os.path.join(sys.argv[1], DATA_FILE)
os.truncate(data, os.path.getsize(data) // 2)
print(len(list(cache.store.table("t").scan())))
"""


class KilledTests(SynchronousTestCase):
    """
    Damage that a process dies of.
    """

    def test_next_start(self) -> None:
        """
        The process that touches what is mapped and gone leaves a note of where it was; the next one tells it, and saves what
        it can.
        """
        path = os.path.abspath(self.mktemp())
        cache = Cache(path)
        for key, value in RECORDS.items():
            cache.store.table("t").put(key, value)
        self.successResultOf(cache.store.close())
        home = os.path.abspath(tests.__path__[0] + "/..")
        died = subprocess.run([sys.executable, "-c", DIES, path], env={"PYTHONPATH": home}, cwd=home, capture_output=True)
        self.assertEqual(died.returncode, -signal.SIGBUS, died.stderr)
        self.assertGreater(os.path.getsize(os.path.join(path, CRASH_FILE)), 0)
        told: list[str] = []
        self.patch(crash.log, "error", lambda message, **fields: told.append(message.format(**fields)))
        cache = Cache(path)
        held = dict(cache.store.table("t").scan())
        self.assertIn("disk.py", "".join(told))
        self.assertEqual((cache.store.corrupt_files, cache.store.problem), (1, None))
        self.assertGreater(len(held), 0)
        self.assertEqual(held, {key: RECORDS[key] for key in held})
        self.successResultOf(cache.store.close())
        self.assertEqual(os.path.getsize(os.path.join(path, CRASH_FILE)), 0)
