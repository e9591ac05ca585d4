"""
Tables: what is put is read at once.
"""

from __future__ import annotations

from tests.hub.cache.fixtures import InlineWriter, StoreCase
from yurt.hub.cache import Store
from yurt.hub.cache.layers import SCAN_CHUNK
from yurt.hub.cache.sealing import MAX_KEY


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
