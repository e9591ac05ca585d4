"""
What the C library's allocator may keep for itself, on a box with little memory.
"""

from __future__ import annotations

import ctypes

M_ARENA_MAX = -8
M_TRIM_THRESHOLD = -1
"""Parameters of mallopt(3), from malloc.h of the GNU C library."""

TRIM_THRESHOLD = 256 * 1024
"""Free bytes at the top of the heap above which they go back to the kernel."""


def be_frugal() -> None:
    """
    One arena for all threads, and memory that is free goes back to the kernel; nothing where the C library is not GNU's.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_ARENA_MAX, 1)
        library.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)


def trim() -> None:
    """
    Give back now what is free, such as what imports and a start left behind.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
