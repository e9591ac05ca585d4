"""
The store: what is put is written in groups, and what waits is bounded.
"""

from __future__ import annotations

from typing import Any

import lmdb
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from tests.hub.cache.fixtures import HeldWriter, StoreCase
from yurt.hub.cache import Store
from yurt.hub.cache.store import (
    COMMIT_DELAY,
    COMMIT_INTERVAL,
    MAX_PENDING_BYTES,
    WRITE_PATIENCE,
)
from yurt.hub.cache.vault import Vault


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
        Damage that shows in writing only makes the store go on with what can be read, and with what it keeps for itself.
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
        self.assertEqual((store.corrupt_files, cache.get(b"k"), cache.get(b"j"), journal.get(b"event")), (1, b"1", None, b"e"))
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
