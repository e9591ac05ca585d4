"""
Tests of the return of memory.
"""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from yurt.memory import TRIM_INTERVAL, ReturnMemory, be_frugal, release_code, trim, unchanged_mappings


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
