"""What the compiler finds on this machine, and what would make it faster: for benchmarks and `minigrad doctor`."""

from __future__ import annotations

import os
import platform

from minigrad.compiler import native
from minigrad.compiler.blas import find_blas
from minigrad.compiler.compiled import cores

_SLOW = {"Prescott", "Core2", "Nehalem", "Sandybridge", "Barcelona", "Bobcat"}  # OpenBLAS kernels without fused multiply-add


def environment() -> dict[str, str]:
    """BLAS and its kernels, compiler, flags, threads, cache folder; and under "advice" what would be faster, if anything. Changes nothing."""
    blas, facts, advice = find_blas(), {}, []
    facts["BLAS"] = f"{blas.name}, {blas.kernels} kernels ({blas.path})" if blas else "none found: matrix products are plain loops in C"
    if blas is None:
        advice.append("a numpy wheel from PyPI brings OpenBLAS with it")
    try:
        facts["compiler"] = str(native.find_compiler())
    except native.NativeError as error:
        facts["compiler"] = f"none: {error}"
        advice.append("with a C compiler, steps run several times faster: `pip install ziglang` brings one")
    facts["flags"] = " ".join(native.FLAGS)
    facts["threads"] = f"{os.environ.get('MINIGRAD_THREADS', cores())} (MINIGRAD_THREADS; {cores()} cores, {platform.machine()})"
    facts["cache"] = str(native.cache_folder())
    try:
        native.open_cache(native.cache_folder())
    except native.NativeError as error:
        facts["cache"] += f" (not used: {error})"
        advice.append("MINIGRAD_CACHE names another cache folder")
    forced = os.environ.get("OPENBLAS_CORETYPE")
    if forced:
        facts["OPENBLAS_CORETYPE"] = forced
        advice.append(f"OPENBLAS_CORETYPE={forced} forces OpenBLAS kernels; without it the CPU's best are chosen")
    if blas and blas.kernels in _SLOW:
        advice.append(f"{blas.kernels} kernels do not use this CPU's fused multiply-add")
    elif blas and blas.kernels == "Haswell" and "avx512f" in native.cpu_identity():
        advice.append("the CPU has AVX-512, but OpenBLAS runs its Haswell kernels")
    if advice:
        facts["advice"] = "; ".join(advice)
    return facts
