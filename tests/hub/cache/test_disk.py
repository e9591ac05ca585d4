"""
The file of the store: who may use it, and what damages or removes it.
"""

from __future__ import annotations

import os
import shutil
import stat

from tests.hub.cache.fixtures import HeldWriter, InlineWriter, StoreCase
from yurt.hub.cache import Store
from yurt.hub.cache.folder import CORRUPT_FILE, DATA_FILE
from yurt.hub.cache.format import FORMAT_KEY
from yurt.hub.cache.sealing import MAX_KEY, BadRecord, seal, shorten, unseal
from yurt.hub.cache.store import (
    COMMIT_DELAY,
    COMMIT_INTERVAL,
    LOOK_INTERVAL,
    REOPEN_INTERVAL,
)


class DiskTests(StoreCase):
    """
    What may be wrong with the folder and the file.
    """

    def data(self) -> str:
        """
        The path of the file.
        """
        return os.path.join(self.path, DATA_FILE)

    def write(self) -> None:
        """
        Leave a file with a value.
        """
        store = self.open()
        store.table("t").put(b"k", b"v" * 100)
        self.successResultOf(store.close())

    def test_modes(self) -> None:
        """
        Folder and files are the owner's alone, also when they were not before.
        """
        self.write()
        os.chmod(self.path, 0o755)
        os.chmod(self.data(), 0o644)
        self.open()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o700)
        for name in os.listdir(self.path):
            self.assertEqual(stat.S_IMODE(os.stat(os.path.join(self.path, name)).st_mode), 0o600, name)

    def test_wrong_owner(self) -> None:
        """
        Root takes over a folder that belongs to somebody else.
        """
        if os.geteuid() != 0:
            self.skipTest("only root can give a folder away")
        self.write()
        os.chown(self.path, 12345, 12345)
        os.chown(self.data(), 12345, 12345)
        store = self.open()
        self.assertIsNone(store.problem)
        self.assertEqual((os.stat(self.path).st_uid, os.stat(self.data()).st_uid), (0, 0))

    def test_foreign_owner(self) -> None:
        """
        A hub that is not root says whose folder it is, and leaves it alone.
        """
        self.write()
        owner = os.stat(self.path).st_uid
        self.patch(os, "geteuid", lambda: owner + 1)
        store = self.open()
        self.assertIn(f"belongs to user {owner}", store.problem or "")
        self.assertIsNone(store.table("t").get(b"k"))

    def test_another_process(self) -> None:
        """
        A folder that another hub uses is left alone until that one is gone; then what was put meanwhile is written.
        """
        first = self.open()
        first.table("t").put(b"k", b"first")
        second = self.open()
        self.assertIn("another process", second.problem or "")
        second.table("t").put(b"k", b"second")
        self.assertFalse(self.successResultOf(second.flush()))
        self.successResultOf(first.close())
        self.clock.advance(REOPEN_INTERVAL)
        self.assertIsNone(second.problem)
        self.assertEqual(self.reopen(second).table("t").get(b"k"), b"second")

    def test_newer_version(self) -> None:
        """
        A file of a newer version is left untouched; the store works in memory and says so.
        """
        self.write()
        store = self.open()
        store.layers.put(FORMAT_KEY, b"999")
        self.successResultOf(store.close())
        with open(self.data(), "rb") as file:
            before = file.read()
        store = self.open()
        self.assertIn("format 999", store.problem or "")
        store.table("t").put(b"k", b"memory")
        self.clock.pump([1.0] * 20)
        self.assertEqual(store.table("t").get(b"k"), b"memory")
        self.successResultOf(store.close())
        with open(self.data(), "rb") as file:
            self.assertEqual(file.read(), before)

    def test_folder_is_a_file(self) -> None:
        """
        A path that is no folder is a problem, not an exception; the store repairs itself when it is gone.
        """
        with open(self.path, "w"):
            pass
        store = self.open()
        self.assertIn(self.path, store.problem or "")
        store.table("t").put(b"k", b"v")
        os.remove(self.path)
        self.clock.advance(REOPEN_INTERVAL)
        self.assertIsNone(store.problem)
        self.assertEqual(self.reopen(store).table("t").get(b"k"), b"v")

    def test_damaged_structure(self) -> None:
        """
        A file that was cut, zeroed or overwritten is set aside, counted, and a fresh one is begun.
        """
        damages = {
            "cut": lambda data: data[: len(data) - 5000],
            "cut to a stump": lambda data: data[:100],
            "zeroed": lambda data: bytes(len(data)),
            "random": lambda data: os.urandom(len(data)),
            "zeroed after the first page": lambda data: data[:4096] + bytes(len(data) - 4096),
        }
        for name, damage in damages.items():
            with self.subTest(name):
                self.write()
                with open(self.data(), "r+b") as file:
                    whole = file.read()
                    file.seek(0)
                    file.truncate()
                    file.write(damage(whole))
                store = self.open()
                self.assertEqual((store.corrupt_files, store.problem), (1, None))
                self.assertIsNone(store.table("t").get(b"k"))
                store.table("t").put(b"k", b"anew")
                self.assertEqual(self.reopen(store).table("t").get(b"k"), b"anew")
                self.assertTrue(os.path.exists(os.path.join(self.path, CORRUPT_FILE)))
                self.last._leave_disk()

    def test_each_bit_of_a_record(self) -> None:
        """
        No bit of a record may flip unseen, whether its key is short or long.
        """
        for key in (b"k", b"k" * 2 * MAX_KEY):
            disk_key = shorten(key)
            record = seal(key, disk_key, b"value")
            self.assertEqual(unseal(disk_key, record), (key, b"value"))
            for bit in range(8 * len(record)):
                damaged = bytearray(record)
                damaged[bit // 8] ^= 1 << bit % 8
                self.assertRaises(BadRecord, unseal, disk_key, bytes(damaged))
            self.assertRaises(BadRecord, unseal, disk_key, record[:3])
            self.assertRaises(BadRecord, unseal, b"other", record)

    def test_damaged_record(self) -> None:
        """
        A record with a flipped bit is dropped and counted, never returned; the others stay.
        """
        store = self.open()
        for number in range(20):
            store.table("t").put(b"%02d" % number, b"value-%02d-" % number * 10)
        self.successResultOf(store.close())
        with open(self.data(), "r+b") as file:
            data = file.read()
            at = data.rindex(b"value-07-")
            file.seek(at)
            file.write(b"w")
        store = self.open()
        table = store.table("t")
        self.assertEqual(len(list(table.scan())), 19)
        self.assertIsNone(table.get(b"07"))
        self.assertEqual(list(table.get_many([b"06", b"07"]))[1], None)
        self.assertGreaterEqual(store.corrupt_records, 1)
        counted = store.corrupt_records
        self.assertEqual(len(list(self.reopen(store).table("t").scan())), 19)
        self.assertEqual(store.corrupt_records, counted)


class PlaceTests(StoreCase):
    """
    Tests of a file that somebody takes away, or changes, under a running hub.
    """

    def setUp(self) -> None:
        super().setUp()
        self.store = self.open()
        self.table = self.store.table("t")
        self.table.put(b"old", b"1" * 5000)
        self.successResultOf(self.store.flush())

    def assert_all_there(self, **more: bytes) -> None:
        """
        The hub reads what it stored, and so does the next process; the folder is private again.
        """
        expected = {b"old": b"1" * 5000, **{name.encode(): value for name, value in more.items()}}
        self.assertEqual(dict(self.table.scan()), expected)
        self.assertEqual(dict(self.reopen(self.store).table("t").scan()), expected)
        modes = [stat.S_IMODE(os.stat(name).st_mode) for name in (self.path, os.path.join(self.path, DATA_FILE))]
        self.assertEqual(modes, [0o700, 0o600])

    def test_removed(self) -> None:
        """
        Removed files are written anew within seconds, without a word in readiness; a folder as well.
        """
        for remove in (lambda: os.unlink(os.path.join(self.path, DATA_FILE)), lambda: shutil.rmtree(self.path)):
            remove()
            self.clock.pump([LOOK_INTERVAL])
            self.assertIsNone(self.store.problem)
            self.assertTrue(os.path.exists(os.path.join(self.path, DATA_FILE)))
        self.table.put(b"new", b"2")
        self.assertTrue(self.successResultOf(self.store.flush()))
        self.assert_all_there(new=b"2")

    def test_write_after_removal(self) -> None:
        """
        A write that comes before the removal is found out says that it is not on the disk, and is there when the file is.
        """
        shutil.rmtree(self.path)
        self.table.put(b"new", b"2")
        self.assertFalse(self.successResultOf(self.store.flush()))
        self.assertIn("removed or replaced", str(self.store.problem))
        self.clock.pump([LOOK_INTERVAL, COMMIT_INTERVAL])
        self.assertIsNone(self.store.problem)
        self.assert_all_there(new=b"2")

    def test_taken_by_another(self) -> None:
        """
        Where another process has made its own cache in the meantime, that one is left alone, and put right when it has ended.
        """
        shutil.rmtree(self.path)
        other = Store(self.clock, self.path, writer=InlineWriter())
        other.open()
        self.clock.pump([LOOK_INTERVAL])
        self.assertIn("another process", str(self.store.problem))
        self.assertEqual(self.table.get(b"old"), b"1" * 5000)
        self.successResultOf(other.close())
        self.clock.pump([LOOK_INTERVAL])
        self.assert_all_there()

    def test_cannot_be_put_back(self) -> None:
        """
        While the folder cannot be made the hub says so and reads on; then it is made.
        """
        shutil.rmtree(self.path)
        with open(self.path, "w"):
            pass
        self.clock.pump([LOOK_INTERVAL])
        self.assertTrue(self.store.problem)
        self.assertEqual(self.table.get(b"old"), b"1" * 5000)
        os.unlink(self.path)
        self.clock.pump([LOOK_INTERVAL])
        self.assertIsNone(self.store.problem)
        self.assert_all_there()

    def test_no_commit_during_a_look(self) -> None:
        """
        A commit that is due while the hub looks for its file, on a slow disk, waits for that.
        """
        self.successResultOf(self.store.close())
        writer = HeldWriter()
        store = self.open(writer)
        table = store.table("t")
        self.clock.advance(LOOK_INTERVAL - COMMIT_DELAY / 2)
        table.put(b"new", b"2")
        self.clock.pump([COMMIT_DELAY / 2, COMMIT_INTERVAL])
        self.assertEqual(len(writer.held), 1)
        writer.release()
        self.clock.advance(COMMIT_INTERVAL)
        self.assertEqual((len(writer.held), table.is_pending(b"new")), (1, True))
        writer.release()
        self.assertFalse(table.is_pending(b"new"))

    def test_cut(self) -> None:
        """
        A file whose end was cut off is set aside before anybody touches what is gone; the cache starts afresh.
        """
        os.truncate(os.path.join(self.path, DATA_FILE), 4096)
        self.clock.pump([LOOK_INTERVAL])
        self.assertEqual((self.store.corrupt_files, self.table.get(b"old")), (1, None))
        self.assertTrue(os.path.exists(os.path.join(self.path, CORRUPT_FILE)))
        self.table.put(b"new", b"2")
        self.assertTrue(self.successResultOf(self.store.flush()))
        self.assertIsNone(self.store.problem)
