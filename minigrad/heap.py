"""Which memory is kept for the next step, and which goes back to the system.

A training step frees at its end what the next one allocates at its start. The C library's default
hands such memory back and takes it again, page by page: for a step of 4 layers, 128 wide, that was
9,800 page faults and 30 of 137 ms. With glibc two settings stop it; elsewhere nothing is done, nor
where the user has set malloc up (MALLOC_*_ or GLIBC_TUNABLES in the environment) or sets
MINIGRAD_KEEP_MEMORY=0. Large arrays that outlive many steps, such as a cache of keys and values,
have pages of their own: a freed one would be a gap in that memory which little else fits into.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

# From glibc's malloc.h; 32 MiB is the largest threshold that it accepts.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_FROM_HEAP, _KEPT = 32 << 20, 1 << 30
_SMALLEST_MAPPED = 1 << 18  # bytes of an array that gets pages of its own


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


def mapped_zeros(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return an array of zeros whose memory goes back to the system as soon as nothing refers to
    it, and is taken only where it is written to. Small arrays are ordinary ones.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < _SMALLEST_MAPPED or not hasattr(mmap, "MAP_ANONYMOUS"):
        return np.zeros(shape, dtype)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.ndarray(shape, dtype, pages)


def clear_mapped(array: np.ndarray[Any, Any]) -> None:
    """Set an array of `mapped_zeros` to 0. The system gets its memory back until it is written to
    again.
    """
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    if isinstance(owner.base, mmap.mmap) and sys.platform.startswith("linux"):
        owner.base.madvise(mmap.MADV_DONTNEED)
    else:
        array[...] = 0
