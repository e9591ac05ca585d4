"""
Tests of the return of memory.
"""

import gc
from mmap import mmap
from weakref import ref

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from yurt.memory import (
    QUIET_LOOKS,
    TRIM_INTERVAL,
    ReturnMemory,
    be_frugal,
    release_code,
    shared_mappings,
    trim,
    unchanged_mappings,
)

LARGE = 16 * 1024 * 1024


class ReturnMemoryTests(SynchronousTestCase):
    """
    Tests of ReturnMemory.
    """

    def test_now_and_then(self) -> None:
        """
        Memory is returned once an interval while the service runs, and code once in all.
        """
        clock = Clock()
        calls: list[str] = []
        service = ReturnMemory(clock, lambda: calls.append("trim"), lambda: calls.append("release"))
        service.startService()
        self.assertEqual(calls, [])
        clock.pump([TRIM_INTERVAL] * 3)
        self.assertEqual(calls, ["trim", "release", "trim", "trim"])
        service.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_quiet_moment(self) -> None:
        """
        What was left in a cycle after it had grown old goes in the next quiet moment, though nothing new is made.
        """
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)
        clock = Clock()
        service = ReturnMemory(clock, lambda: None, lambda: None, thresholds=(100, 1_000, 1_000))
        service.startService()
        self.addCleanup(service.stopService)
        clock.advance(TRIM_INTERVAL)  # what there is by now stays
        cycle = [Failure(ValueError("left in a cycle"))]
        cycle.append(cycle)  # type: ignore[arg-type]
        left = ref(cycle[0])
        kept = [[number] for number in range(100 * (QUIET_LOOKS + 1))]
        del cycle
        clock.advance(TRIM_INTERVAL)
        self.assertIsNotNone(left())
        clock.advance(TRIM_INTERVAL)
        self.assertIsNone(left())
        self.assertEqual(len(kept), 100 * (QUIET_LOOKS + 1))

    def test_this_c_library(self) -> None:
        """
        Whatever the C library offers, the calls work.
        """
        be_frugal()
        trim()
        release_code()

    def test_mappings(self) -> None:
        """
        Only mappings of files are given back, and of those only what was neither written to nor may be.
        """
        smaps = []
        for span, rights, name, anonymous in (
            ("1000-3000", "r-xp", "/lib/a.so", 0),
            ("3000-4000", "r--p", "/lib/a.so", 4),
            ("4000-5000", "rw-p", "/lib/a.so", 0),
            ("5000-6000", "r--p", "/lib/with blank (deleted)", 0),
            ("6000-7000", "r-xp", "[vdso]", 0),
            ("7000-8000", "r--p", "", 0),
            ("8000-9000", "r--s", "/shared", 0),
            ("9000-b000", "r--p", "/lib/b.so", 0),
        ):
            smaps += [f"{span} {rights} 00000000 08:01 42    {name}\n", "Rss:    8 kB\n", f"Anonymous:   {anonymous} kB\n"]
        self.assertEqual(list(unchanged_mappings(smaps)), [(0x1000, 0x2000), (0x9000, 0x2000)])

    def test_shared_mappings(self) -> None:
        """
        Only mappings of files that are shared are given back: what was written there goes to the file.
        """
        maps = [
            "1000-3000 r--s 00000000 08:01 42    /cache/data with blank\n",
            "3000-4000 rw-s 00000000 08:01 42    /cache/data\n",
            "4000-5000 rw-p 00000000 08:01 42    /lib/a.so\n",
            "5000-6000 rw-p 00000000 00:00 0\n",
            "6000-7000 r-xs 00000000 00:00 0     [vvar]\n",
        ]
        self.assertEqual(list(shared_mappings(maps)), [(0x1000, 0x2000), (0x3000, 0x1000)])

    def test_shared_file(self) -> None:
        """
        What was looked at of a shared file is resident no more, and can still be read; what was written is not lost.
        """
        path = self.mktemp()
        with open(path, "w+b") as file:
            file.truncate(LARGE)
            mapped = mmap(file.fileno(), LARGE)
        with mapped:
            mapped[:] = b"x" * LARGE
            before = resident_of_files()
            trim()
            self.assertLess(resident_of_files(), before - LARGE // 2)
            self.assertEqual(mapped[:], b"x" * LARGE)


def resident_of_files() -> int:
    """
    Bytes of mapped files that this process has in memory.
    """
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssFile:"))
