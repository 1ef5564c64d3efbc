"""The BLAS that numpy has loaded already: its sgemm as a pointer, and what is known about its kernels and threads."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache

from minigrad.ops.parallel import blas_libraries


@dataclass(frozen=True)
class Blas:
    """cblas_sgemm at an address, with its integer width; functions that set and get its number of threads (0: unknown)."""

    name: str
    path: str
    sgemm: int
    wide: bool  # 64-bit integers in the interface
    set_threads: int
    get_threads: int
    kernels: str


# (symbol of sgemm, 64-bit integers, prefix, suffix of the others)
_BUILDS = (
    ("scipy_cblas_sgemm64_", True, "scipy_openblas_", "64_"),
    ("scipy_cblas_sgemm", False, "scipy_openblas_", ""),
    ("cblas_sgemm64_", True, "openblas_", "64_"),
    ("cblas_sgemm", False, "openblas_", ""),
)


def _address(library: ctypes.CDLL, name: str) -> int:
    try:
        return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
    except AttributeError:
        return 0


@cache
def find_blas() -> Blas | None:
    """numpy's BLAS, or None if it cannot be found: then matrix products are plain loops in C."""
    for path in blas_libraries():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        for symbol, wide, prefix, suffix in _BUILDS:
            if sgemm := _address(library, symbol):
                set_threads = _address(library, f"{prefix}set_num_threads{suffix}")
                get_threads = _address(library, f"{prefix}get_num_threads{suffix}")
                name = "OpenBLAS" if set_threads else os.path.basename(path)
                return Blas(name, path, sgemm, wide, set_threads, get_threads, _kernels(library, prefix, suffix))
    return None


def _kernels(library: ctypes.CDLL, prefix: str, suffix: str) -> str:
    """The name of the kernels that OpenBLAS chose for this CPU, such as Haswell or SkylakeX."""
    try:
        function = getattr(library, f"{prefix}get_corename{suffix}")
    except AttributeError:
        return "unknown"
    function.restype = ctypes.c_char_p
    return (function() or b"unknown").decode()
