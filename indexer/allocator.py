"""When freed memory stays with the process, and when it goes back to the system.

An indexer keeps its pages from its start on: the memory of one commit is that of the next. Taken
from the system each time, as by default, page faults take about half of its system CPU time. Who
has read a whole ledger gives back what only that took.
"""

import ctypes

import pyarrow as pa

# malloc.h; the numbers are part of the C library's binary interface.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_NEVER = (1 << 31) - 1


def keep_pages() -> None:
    """Let the C library hand out pages again instead of returning them, and Arrow use it too.

    Does nothing where the C library is another than GNU's. From then on the process holds as much
    memory as it has needed at most.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for option, value in ((_M_TRIM_THRESHOLD, _NEVER), (_M_MMAP_MAX, 0), (_M_ARENA_MAX, 1)):
        mallopt(option, value)
    pa.set_memory_pool(pa.system_memory_pool())


def give_pages_back() -> None:
    """Return freed memory to the system, as far as the C library and Arrow can."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # GNU's
    if trim is not None:
        trim(0)
