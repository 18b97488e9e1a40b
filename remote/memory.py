"""What a long-lived process asks of the C library's allocator: to give back what is not needed any more.

Buffers of chunks, a megabyte or four each, come and go in many threads. Left alone, glibc keeps an arena for each of several
threads, and after the first large buffer that is freed takes the next ones from there too: the process then holds several times
what it uses, and seems to grow for hours.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Of malloc.h; see mallopt(3)."""
LARGE = 256 * 1024
"""Bytes from which on a buffer has pages of its own, which go back when it is freed."""
KEPT = 2**20
ARENAS = 2


def give_back_freed_memory() -> None:
    """Call it before the first thread starts. Does nothing where the C library is another one."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    mallopt(_M_MMAP_THRESHOLD, LARGE)
    mallopt(_M_TRIM_THRESHOLD, KEPT)
    mallopt(_M_ARENA_MAX, ARENAS)
