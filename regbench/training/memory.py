"""How the process keeps memory that was freed."""

import ctypes
import platform
from functools import cache

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
# the most that older versions take as a threshold above which each allocation is a mapping of its own
LARGEST_THRESHOLD = 32 << 20


@cache
def keep_freed() -> None:
    """Have glibc keep what is freed instead of giving it back to the system, which it does for large tensors.

    A training step allocates and frees the same tens of megabytes each time. Given back, every page of them is a page
    fault in the next step: a quarter of a CPU's time, by benchmarks/speed.py. Peak memory stays what it was. Elsewhere
    than with glibc this does nothing. Source: mallopt(3).
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    if not libc.mallopt(M_MMAP_THRESHOLD, 1 << 30):
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
    libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
    libc.mallopt(M_TOP_PAD, 64 << 20)
