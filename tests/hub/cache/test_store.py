"""
The store: what is put is read at once, and written in groups.
"""

from __future__ import annotations

import os
import shutil
import stat
from typing import Any

import lmdb
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.hub.cache.fixtures import HeldWriter, InlineWriter
from yurt.hub.cache import Store
from yurt.hub.cache.folder import CORRUPT_FILE, DATA_FILE
from yurt.hub.cache.format import FORMAT_KEY
from yurt.hub.cache.layers import SCAN_CHUNK
from yurt.hub.cache.sealing import MAX_KEY, BadRecord, seal, shorten, unseal
from yurt.hub.cache.store import (
    COMMIT_DELAY,
    COMMIT_INTERVAL,
    LOOK_INTERVAL,
    MAX_PENDING_BYTES,
    REOPEN_INTERVAL,
    WRITE_PATIENCE,
)
from yurt.hub.cache.vault import Vault


class StoreCase(SynchronousTestCase):
    """
    A store on a folder of its own, under a clock.
    """

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.clock = Clock()

    def open(self, writer: InlineWriter | None = None, **options: Any) -> Store:
        """
        The store, opened.
        """
        store = Store(self.clock, self.path, writer=writer or InlineWriter(), **options)
        store.open()
        self.addCleanup(store._leave_disk)
        self.last = store
        return store

    def reopen(self, store: Store) -> Store:
        """
        The store as the next process finds it.
        """
        self.successResultOf(store.close())
        return self.open()


class TableTests(StoreCase):
    """
    Reading and writing.
    """

    def test_read_what_was_put(self) -> None:
        """
        A value is read back at once, before and after its commit, and by the next process.
        """
        store = self.open()
        table = store.table("t")
        table.put(b"k", b"v")
        self.assertEqual(table.get(b"k"), b"v")
        self.assertTrue(self.successResultOf(store.flush()))
        self.assertEqual(table.get(b"k"), b"v")
        self.assertEqual(self.reopen(store).table("t").get(b"k"), b"v")

    def test_delete(self) -> None:
        """
        A deleted value is gone, before and after the commit.
        """
        store = self.open()
        table = store.table("t")
        table.put(b"k", b"v")
        self.successResultOf(store.flush())
        table.delete(b"k")
        self.assertIsNone(table.get(b"k"))
        self.assertEqual(list(table.scan()), [])
        self.assertIsNone(self.reopen(store).table("t").get(b"k"))

    def test_tables_are_apart(self) -> None:
        """
        The same key in two tables means two values.
        """
        store = self.open()
        store.table("a").put(b"k", b"1")
        store.table("b").put(b"k", b"2")
        self.assertEqual(list(store.table("a").scan()), [(b"k", b"1")])

    def test_scan_merges_disk_and_memory(self) -> None:
        """
        A scan is in order and sees written, pending, changed and deleted values alike.
        """
        store = self.open()
        table = store.table("t")
        for key in (b"p/1", b"p/3", b"p/5", b"q/1"):
            table.put(key, b"old")
        self.successResultOf(store.flush())
        table.put(b"p/2", b"new")
        table.put(b"p/3", b"new")
        table.delete(b"p/5")
        self.assertEqual(list(table.scan(b"p/")), [(b"p/1", b"old"), (b"p/2", b"new"), (b"p/3", b"new")])

    def test_scan_goes_on_across_chunks_and_commits(self) -> None:
        """
        A scan longer than a chunk gives every key once, though keys are deleted, changed and committed meanwhile.
        """
        store = self.open()
        table = store.table("t")
        keys = [b"%05d" % number for number in range(3 * SCAN_CHUNK)]
        for key in keys[::2]:
            table.put(key, b"1")
        self.successResultOf(store.flush())
        for key in keys[1::2]:
            table.put(key, b"1")
        seen = []
        for key, _ in table.scan():
            seen.append(key)
            table.delete(key)
            if len(seen) % 400 == 0:
                self.successResultOf(store.flush())
        self.assertEqual(seen, keys)
        self.assertEqual(list(table.scan()), [])

    def test_long_keys(self) -> None:
        """
        Keys longer than LMDB takes are whole when read back, and told apart.
        """
        store = self.open()
        table = store.table("t")
        long = [b"/openapi/" + b"x" * MAX_KEY + tail for tail in (b"a", b"b")]
        for key in long:
            table.put(key, key[-1:])
        store = self.reopen(store)
        table = store.table("t")
        self.assertEqual([table.get(key) for key in long], [b"a", b"b"])
        self.assertEqual(dict(table.scan(b"/openapi/")), {long[0]: b"a", long[1]: b"b"})
        self.assertEqual(list(table.get_many(long)), [b"a", b"b"])
        self.assertEqual([key for key, _ in table.scan(long[0])], [long[0]])

    def test_get_many(self) -> None:
        """
        Several values at once come in the order asked for, from disk and memory, None for those that there are not.
        """
        store = self.open()
        table = store.table("t")
        table.put(b"1", b"a")
        table.put(b"2", b"b")
        self.successResultOf(store.flush())
        table.put(b"3", b"c")
        table.delete(b"2")
        self.assertEqual(list(table.get_many([b"3", b"1", b"2", b"0"])), [b"c", b"a", None, None])

    def test_works_before_open(self) -> None:
        """
        What is put before the store is open is there, and written once it is.
        """
        store = Store(self.clock, self.path, writer=InlineWriter())
        store.table("t").put(b"k", b"v")
        self.assertEqual(store.table("t").get(b"k"), b"v")
        store.open()
        self.assertEqual(self.reopen(store).table("t").get(b"k"), b"v")

    def test_close_unopened(self) -> None:
        """
        A store that was never opened closes.
        """
        self.successResultOf(Store(self.clock, self.path, writer=InlineWriter()).close())


class CommitTests(StoreCase):
    """
    When the disk is written, and how often.
    """

    def test_steady_state(self) -> None:
        """
        Fifty writes a second for a minute make at most one sync a second: LMDB needs two for a commit.
        """
        store = self.open()
        table = store.table("t")
        for tick in range(60 * 50):
            table.put(b"%d" % (tick % 7), b"%d" % tick)
            self.clock.advance(0.02)
        self.assertLessEqual(2 * store.commits, 60 + 2)
        self.assertGreater(store.commits, 20)

    def test_soon_after_quiet(self) -> None:
        """
        A single write after a quiet time is on the disk after COMMIT_DELAY.
        """
        store = self.open()
        self.clock.pump([1.0] * 10)
        before = store.commits
        store.table("t").put(b"k", b"v")
        self.clock.advance(COMMIT_DELAY)
        self.assertEqual(store.commits, before + 1)

    def test_unchanged_is_not_written(self) -> None:
        """
        Putting what is there, or deleting what is not, writes nothing.
        """
        store = self.open()
        table = store.table("t")
        table.put(b"k", b"v")
        self.clock.advance(10)
        before = store.commits
        table.put(b"k", b"v")
        table.delete(b"other")
        self.assertFalse(table.is_pending(b"k") or table.is_pending(b"other"))
        self.clock.advance(10)
        self.assertEqual(store.commits, before)

    def test_writes_during_commit(self) -> None:
        """
        What is put while a group is being written is read at once and goes with the next group.
        """
        writer = HeldWriter()
        store = self.open(writer)
        table = store.table("t")
        table.put(b"k", b"1")
        first = store.flush()
        table.put(b"k", b"2")
        self.assertEqual(table.get(b"k"), b"2")
        self.assertEqual(list(table.scan()), [(b"k", b"2")])
        writer.release()
        self.assertTrue(self.successResultOf(first))
        self.assertEqual(table.get(b"k"), b"2")
        self.clock.advance(COMMIT_INTERVAL)
        writer.release()
        self.assertEqual(table.get(b"k"), b"2")
        self.assertFalse(table.is_pending(b"k"))

    def test_flushes_share_a_commit(self) -> None:
        """
        Flushes that come while a commit runs wait for the next one, and share it.
        """
        writer = HeldWriter()
        store = self.open(writer)
        table = store.table("t")
        table.put(b"1", b"1")
        first = store.flush()
        table.put(b"2", b"2")
        others = [store.flush() for _ in range(5)]
        writer.release()
        self.assertTrue(self.successResultOf(first))
        for other in others:
            self.assertNoResult(other)
        writer.release()
        self.assertEqual([self.successResultOf(other) for other in others], [True] * 5)
        self.assertEqual(store.commits, 2)
        self.assertTrue(self.successResultOf(store.flush()))
        self.assertEqual(store.commits, 2)

    def test_failed_commit_is_tried_again(self) -> None:
        """
        A commit that fails keeps the batch, says why, and is tried again until it succeeds; newer values win.
        """
        writer = HeldWriter()
        store = self.open(writer)
        table = store.table("t")
        table.put(b"k", b"1")
        table.put(b"j", b"1")
        flushed = store.flush()
        table.put(b"k", b"2")
        writer.release(lmdb.Error("mdb_txn_commit: No space left on device"))
        self.assertFalse(self.successResultOf(flushed))
        self.assertIn("No space left", store.problem or "")
        self.assertEqual((store.write_errors, table.get(b"k"), table.get(b"j")), (1, b"2", b"1"))
        self.clock.advance(COMMIT_INTERVAL)
        writer.release()
        self.assertIsNone(store.problem)
        self.assertEqual((table.get(b"k"), table.get(b"j")), (b"2", b"1"))

    def test_disk_that_hangs(self) -> None:
        """
        A write that does not end is a problem to show, and nobody waits for it; when it has ended after all, all is well again.
        """
        writer = HeldWriter()
        store = self.open(writer)
        table = store.table("t")
        table.put(b"k", b"1")
        first = store.flush()
        table.put(b"k", b"2")
        behind = store.flush()
        self.clock.advance(WRITE_PATIENCE)
        self.assertEqual([self.successResultOf(one) for one in (first, behind, store.flush())], [False] * 3)
        self.assertIn("hangs", store.problem or "")
        self.assertEqual((table.get(b"k"), len(writer.held)), (b"2", 1))
        writer.release()
        self.assertIsNone(store.problem)
        self.clock.advance(COMMIT_INTERVAL)
        writer.release()
        self.assertFalse(table.is_pending(b"k"))
        self.assertEqual(table.get(b"k"), b"2")

    def test_close_with_a_disk_that_hangs(self) -> None:
        """
        It does not keep the hub from ending, which says what is lost.
        """
        writer = HeldWriter()
        store = self.open(writer)
        store.table("t").put(b"k", b"1")
        self.clock.advance(COMMIT_INTERVAL)
        closed = store.close()
        self.assertNoResult(closed)
        with capturedLogs() as logged:
            self.clock.advance(WRITE_PATIENCE)
            self.successResultOf(closed)
        self.assertEqual([event["lost"] for event in logged if "lost" in event], [2])  # the key, and the file's format
        writer.release()

    def test_panic_reopens(self) -> None:
        """
        When LMDB gives up on its file, the file is opened anew, and what was pending is written.
        """
        writer = HeldWriter()
        store = self.open(writer)
        table = store.table("t")
        table.put(b"k", b"1")
        self.assertNoResult(store.flush())
        writer.release(lmdb.PanicError("mdb_txn_begin"))
        self.clock.advance(COMMIT_INTERVAL)
        writer.release()
        self.assertIsNone(store.problem)
        self.assertEqual(table.get(b"k"), b"1")

    def test_damage_met_in_writing(self) -> None:
        """
        Damage that shows in writing only makes the store start afresh, with what it keeps for itself still there.
        """
        writer = HeldWriter()
        store = self.open(writer)
        cache, journal = store.table("cache", expendable=True), store.table("journal")
        cache.put(b"k", b"1")
        store.flush()
        writer.release()
        cache.put(b"j", b"1")
        journal.put(b"event", b"e")
        store.flush()
        writer.release(lmdb.PageFullError("mdb_put: MDB_PAGE_FULL"))
        self.assertEqual((store.corrupt_files, cache.get(b"k"), cache.get(b"j"), journal.get(b"event")), (1, None, None, b"e"))
        self.clock.advance(COMMIT_INTERVAL)
        writer.release()
        self.assertIsNone(store.problem)
        self.assertEqual(journal.get(b"event"), b"e")

    def test_little_address_space(self) -> None:
        """
        Where the process may not map so large a file, it makes do with a smaller one.
        """
        really = lmdb.open

        def within_limits(path: str, *, map_size: int, **options: Any) -> lmdb.Environment:
            if map_size > 1 << 26:
                raise lmdb.MemoryError(f"{path}: Cannot allocate memory")
            return really(path, map_size=map_size, **options)

        self.patch(lmdb, "open", within_limits)
        vault = Vault(self.mktemp())
        store = self.open(vault=vault)
        self.assertIsNone(store.problem)
        store.table("t").put(b"k", b"1")
        self.successResultOf(store.close())
        self.assertEqual(self.open(vault=vault).table("t").get(b"k"), b"1")

    def test_close_commits(self) -> None:
        """
        Closing waits for the commit that runs and writes what came after it.
        """
        writer = HeldWriter()
        store = self.open(writer)
        table = store.table("t")
        table.put(b"k", b"1")
        store.flush()
        table.put(b"k", b"2")
        closed = store.close()
        writer.release()
        self.assertNoResult(closed)
        writer.release()
        self.successResultOf(closed)
        self.assertEqual(self.open().table("t").get(b"k"), b"2")
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], self.clock.getDelayedCalls())

    def test_grown_to_its_greatest_size(self) -> None:
        """
        A file that may not grow is a problem that names itself; what was written before stays readable.
        """
        store = self.open(map_size=256 * 1024)
        table = store.table("t", expendable=True)
        table.put(b"k", b"v")
        self.successResultOf(store.flush())
        table.put(b"big", b"x" * 512 * 1024)
        self.assertFalse(self.successResultOf(store.flush()))
        self.assertIn("greatest size", store.problem or "")
        self.assertEqual(table.get(b"k"), b"v")
        table.delete(b"big")
        self.assertTrue(self.successResultOf(store.flush()))
        self.assertIsNone(store.problem)


class BoundTests(StoreCase):
    """
    What waits for the disk is bounded.
    """

    def fill(self, store: Store, name: str, size: int, *, expendable: bool) -> None:
        """
        Put values of 1 MiB.
        """
        table = store.table(name, expendable=expendable)
        for number in range(size // 2**20):
            table.put(b"%d" % number, b"x" * 2**20)

    def test_pressure_commits_early(self) -> None:
        """
        A healthy disk gets a large amount at once, and nothing is dropped.
        """
        store = self.open()
        self.clock.advance(10)
        before = store.commits
        self.fill(store, "t", MAX_PENDING_BYTES + 2**20, expendable=True)
        self.clock.advance(0)
        self.assertEqual((store.commits, store.dropped), (before + 1, 0))

    def test_drop_when_the_disk_fails(self) -> None:
        """
        When the disk does not take it, expendable tables go back to the disk's state; others keep what they have.
        """
        writer = HeldWriter()
        store = self.open(writer)
        cache, journal = store.table("cache", expendable=True), store.table("journal")
        cache.put(b"old", b"1")
        store.flush()
        writer.release()
        cache.put(b"old", b"2")
        journal.put(b"event", b"e")
        store.flush()
        writer.release(OSError(5, "Input/output error"))
        self.fill(store, "cache", MAX_PENDING_BYTES + 2**20, expendable=True)
        self.clock.advance(0)
        self.assertEqual((cache.get(b"old"), cache.get(b"1"), journal.get(b"event")), (b"1", None, b"e"))
        self.assertEqual(store.dropped, MAX_PENDING_BYTES // 2**20 + 2)

    def test_slow_disk(self) -> None:
        """
        While one group is being written, as much again may wait, and no more.
        """
        writer = HeldWriter()
        store = self.open(writer)
        self.fill(store, "a", MAX_PENDING_BYTES, expendable=True)
        self.clock.advance(0)
        self.assertEqual(len(writer.held), 1)
        self.fill(store, "b", MAX_PENDING_BYTES + 2**20, expendable=True)
        self.clock.advance(0)
        self.assertEqual(store.dropped, MAX_PENDING_BYTES // 2**20 + 1)
        writer.release()
        self.assertIsNotNone(store.table("a").get(b"1"))


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


class ThreadTests(TestCase):
    """
    The store as the hub runs it: with its own thread.
    """

    async def test_commit_in_the_thread(self) -> None:
        """
        What is flushed is on the disk, and the next store finds it; both close cleanly.
        """
        clock = IReactorTime(reactor)
        path = self.mktemp()
        store = Store(clock, path)
        store.open()
        table = store.table("t")
        for number in range(1000):
            table.put(b"%d" % number, b"x" * 1000)
        self.assertTrue(await store.flush())
        self.assertEqual(table.get(b"999"), b"x" * 1000)
        table.put(b"last", b"1")
        await store.close()
        again = Store(clock, path)
        again.open()
        self.assertEqual(again.table("t").get(b"last"), b"1")
        await again.close()
