"""How this process's C library keeps memory, on ranks whose device is the CPU."""

import ctypes
import os
from contextlib import suppress

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Numbers of glibc's `mallopt`."""


def keep_freed_memory() -> None:
    """What a step frees stays with the process for the next step, instead of going back to the system and being zeroed again.

    glibc maps each large buffer anew; with an 88M student that costs a CPU rank a second per step (LOG.md). Nothing where the
    C library is another, or where the environment sets the allocator (MALLOC_*, GLIBC_TUNABLES, LD_PRELOAD).
    """
    if any(name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD") for name in os.environ):
        return
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version()
        library.mallopt(MMAP_MAX, 0)
        library.mallopt(TRIM_THRESHOLD, -1)
        library.mallopt(TOP_PAD, 64 << 20)
