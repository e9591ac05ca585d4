"""
What the C library's allocator may keep for itself, on a box with little memory.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterable, Iterator

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

M_ARENA_MAX = -8
"""A parameter of mallopt(3), from malloc.h of the GNU C library."""

M_MMAP_THRESHOLD = -3
M_TRIM_THRESHOLD = -1
"""The same: from which size on a block comes from the kernel and goes back by itself, and what is kept free beyond which."""

MADV_DONTNEED = 4
"""Advice of madvise(2): nothing is lost where nothing was written, nor where what is written goes to a file that is shared."""

GC_THRESHOLDS = (5_000, 20, 20)
"""Objects more than before that make the collector look at the youngest, and how many such looks make it look further."""

CONNECTION_THRESHOLDS = (5_000, 10, 3)
"""
The same where most of what is made belongs to connections: one that has ended is some seventy objects in cycles, old by then.
Ten thousand dials that were given up left 85 MB with the others, and 15 with these.
"""

OWN_BLOCK = 4 * 1024 * 1024
MAX_FREE = 8 * 1024 * 1024
"""
Bytes of such a block, and of what is kept free until the next :func:`trim`.  The library's own measures give back the memory of
each long list, and to get it anew, page by page, takes a fifth of the time that such a list does.
"""

QUIET_LOOKS = 4
"""Looks at the youngest since the last look at all, after which the next quiet moment is used for one."""

TRIM_INTERVAL = 1.0
"""Seconds between two calls of :func:`trim`; one takes about a millisecond."""


def be_frugal() -> None:
    """
    One arena for all threads, and no memory given back but by :func:`trim`; nothing where the C library is not GNU's.

    Its thresholds adapt themselves until one is set, so both are: with the first at its default, each buffer that a socket is
    read into would come from the kernel and go back, at a third of the time that a small GET takes.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_ARENA_MAX, 1)
        library.mallopt(M_MMAP_THRESHOLD, OWN_BLOCK)
        library.mallopt(M_TRIM_THRESHOLD, MAX_FREE)


def trim() -> None:
    """
    Give back now what is free, wherever in the heap, and what was read of files that are mapped to be shared: of its cache a hub
    would else hold all it ever looked at, 13 MB after some thousand watch events.  The kernel still has it in its cache of pages.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
    _let_go("/proc/self/maps", shared_mappings)


def shared_mappings(maps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """
    Start and length of the mappings of shared files, out of ``/proc/PID/maps``.
    """
    for line in maps:
        words = line.split(maxsplit=5)
        if words[1].endswith("s") and words[-1].startswith("/"):
            start, end = (int(word, 16) for word in words[0].split("-"))
            yield start, end - start


def unchanged_mappings(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """
    Start and length of the mappings of files in which this process has written nothing, out of ``/proc/PID/smaps``.
    """
    start = end = 0
    for line in smaps:
        words = line.split()
        if not words[0].endswith(":"):
            start, end = (int(word, 16) for word in words[0].split("-"))
            readable_file = words[1].startswith("r-") and words[1].endswith("p") and words[-1].startswith("/")
            end = end if readable_file else start
        elif words[0] == "Anonymous:" and words[1] == "0" and end > start:
            yield start, end - start


def release_code() -> None:
    """
    Let go of the code that only imports and the start ran: a sixth of a small daemon.  The kernel still has it in its page cache,
    where daemons share it, and gives back what is called again.
    """
    _let_go("/proc/self/smaps", unchanged_mappings)


def _let_go(file: str, choose: Callable[[Iterable[str]], Iterable[tuple[int, int]]]) -> None:
    """
    Let go of the mappings chosen among those that ``file`` tells of.
    """
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is None:
        return
    try:
        with open(file) as lines:
            mappings = list(choose(lines))
    except OSError:
        return
    for start, length in mappings:
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), MADV_DONTNEED)


def leave_out_what_stays() -> None:
    """
    Take what imports and the start have made out of the garbage collector's sight, less what they left in cycles.
    """
    gc.collect()
    gc.freeze()


class ReturnMemory(Service):
    """
    Give freed memory back to the kernel, again and again, and once, a little after the start, the code that only that needed.

    The garbage collector looks for cycles less often: a request makes a few, and the default looks through everything young at
    every tenth request.  A look at all that the start has made takes as long as many requests, and has to wait, too.

    The C library keeps what imports and large bodies needed: a hub of 64 MB that has passed on a few lists of 1,000 pods stays
    at 74 MB without this.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        trim: Callable[[], object] = trim,
        release: Callable[[], object] = release_code,
        *,
        thresholds: tuple[int, int, int] = GC_THRESHOLDS,
    ) -> None:
        self.returning = LoopingCall(self._return)
        self.returning.clock = reactor
        self._trim = trim
        self._release: Callable[[], object] | None = release
        self._thresholds = thresholds
        self._looks = 0

    def startService(self) -> None:
        """
        Begin, a little after the start: then the imports are over, and who waited for the daemon has been answered.
        """
        super().startService()
        be_frugal()
        gc.set_threshold(*self._thresholds)
        self.returning.start(TRIM_INTERVAL, now=False)

    def stopService(self) -> None:
        """
        Leave the rest to the end of the process.
        """
        super().stopService()
        self.returning.stop()

    def _return(self) -> None:
        release, self._release = self._release, None
        if release is None:
            self._use_quiet_moment()
            self._trim()
        else:
            leave_out_what_stays()
            self._trim()
            release()

    def _use_quiet_moment(self) -> None:
        """
        Collect what connections that have ended left in cycles: the collector itself looks at what is old only after many new
        objects, which on a quiet box may be never.
        """
        looks = gc.get_stats()[0]["collections"]
        _, of_youngest, of_middle = gc.get_count()
        if looks == self._looks and of_youngest + of_middle * gc.get_threshold()[1] >= QUIET_LOOKS:
            gc.collect()
        self._looks = looks
