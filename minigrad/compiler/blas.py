"""The BLAS that numpy has loaded already: its sgemm as a pointer, and what is known about its
kernels and threads.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache

from minigrad.compiler import native
from minigrad.errors import ConfigError
from minigrad.ops.parallel import blas_libraries


@dataclass(frozen=True)
class Blas:
    """cblas_sgemm at an address, with its integer width; functions that set and get its number of
    threads (0: unknown).
    """

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


def chosen_blas() -> Blas | None:
    """The BLAS that compiled products go through; None where they are tiles in C.
    $MINIGRAD_PRODUCTS ("tiles", "blas") decides otherwise.

    Raises NativeError without a compiler, ConfigError for another word.
    """
    wanted = os.environ.get("MINIGRAD_PRODUCTS", "")
    if wanted not in ("", "tiles", "blas"):
        hint = 'expected "tiles" or "blas"; unset it for what is faster here'
        raise ConfigError("MINIGRAD_PRODUCTS", f"is {wanted!r}", got=wanted, hint=hint)
    tiles = native.has_tiles() if not wanted else wanted == "tiles"
    return None if tiles else find_blas()


@cache
def find_blas() -> Blas | None:
    """numpy's BLAS, or None if it cannot be found."""
    for path in blas_libraries():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        # numpy wheels prefix the symbols, distributions do not; 64_ means 64-bit integers
        for symbol, wide, prefix, suffix in _BUILDS:
            if sgemm := _address(library, symbol):
                set_threads = _address(library, f"{prefix}set_num_threads{suffix}")
                get_threads = _address(library, f"{prefix}get_num_threads{suffix}")
                name = "OpenBLAS" if set_threads else os.path.basename(path)
                kernels = _kernels(library, f"{prefix}get_corename{suffix}")
                return Blas(name, path, sgemm, wide, set_threads, get_threads, kernels)
    return None


def _address(library: ctypes.CDLL, name: str) -> int:
    function = getattr(library, name, None)
    return 0 if function is None else ctypes.cast(function, ctypes.c_void_p).value or 0


def _kernels(library: ctypes.CDLL, name: str) -> str:
    """The name of the kernels that OpenBLAS chose for this CPU, such as Haswell or SkylakeX."""
    function = getattr(library, name, None)
    if function is None:
        return "unknown"
    function.restype = ctypes.c_char_p
    return (function() or b"unknown").decode()
