"""Freed memory is kept for the next step instead of being given back to the system.

A training step frees at its end what the next one allocates at its start. The C library's default
hands such memory back and takes it again, page by page: for a step of 4 layers, 128 wide, that was
9,800 page faults and 30 of 137 ms. With glibc two settings stop it; elsewhere nothing is done, nor
where the user has set malloc up (MALLOC_*_ or GLIBC_TUNABLES in the environment) or sets
MINIGRAD_KEEP_MEMORY=0.
"""

from __future__ import annotations

import ctypes
import os
import sys

# From glibc's malloc.h; 32 MiB is the largest threshold that it accepts.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_FROM_HEAP, _KEPT = 32 << 20, 1 << 30


def keep_freed_memory() -> bool:
    """Let malloc keep up to 1 GiB of freed memory, and serve arrays up to 32 MiB from it. True if
    the C library took the settings.
    """
    tuned = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"} & {*os.environ}
    unwanted = os.environ.get("MINIGRAD_KEEP_MEMORY") == "0"
    if tuned or unwanted or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    taken = mallopt(_M_MMAP_THRESHOLD, _LARGEST_FROM_HEAP)
    return bool(taken and mallopt(_M_TRIM_THRESHOLD, _KEPT))
