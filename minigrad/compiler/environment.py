"""What the compiler finds on this machine, and what would make it faster: for benchmarks and
`minigrad doctor`.
"""

from __future__ import annotations

import os
import platform

from minigrad.compiler import native
from minigrad.compiler.compiled import chosen_blas
from minigrad.ops.parallel import cores, find_blas

# OpenBLAS kernels without fused multiply-add
_SLOW = ("Prescott", "Core2", "Nehalem", "Sandybridge", "Barcelona", "Bobcat")


def environment() -> dict[str, str]:
    """BLAS and its kernels, compiler, flags, threads, cache folder; and under "advice" what would
    be faster, if anything. Changes nothing.
    """
    # Facts are shown in this order
    blas, facts, advice = find_blas(), {}, list[str]()
    facts["BLAS"] = f"{blas.name}, {blas.kernels} kernels ({blas.path})" if blas else "none found"
    try:
        facts["flags"] = " ".join(native.flags())
        facts["compiler"] = str(native.find_compiler())
        through = chosen_blas()
        tiles = "tiles in C, for this CPU's vector registers"
        facts["compiled products"] = tiles if through is None else through.name
        facts["in bfloat16"] = native.bfloat16_products() or "none faster than float32"
    except native.NativeError as error:
        facts["compiler"] = f"none: {error}"
        advice.append("with a C compiler, steps run several times faster: `pip install ziglang`")
    threads = os.environ.get("MINIGRAD_THREADS", cores())
    facts["threads"] = f"{threads} (MINIGRAD_THREADS; {cores()} cores, {platform.machine()})"
    folder = native.cache_folder()
    problem, objects = native.cache_problem(folder), len(list(folder.glob("*.so")))
    there = f"yours, writable, {objects} objects" if folder.exists() else "not there yet"
    facts["cache"] = f"{folder} ({f'not used: it {problem}' if problem else there})"
    if problem:
        advice.append(
            "compiled steps are not kept between runs; MINIGRAD_CACHE names another folder"
        )
    if forced := os.environ.get("OPENBLAS_CORETYPE"):
        facts["OPENBLAS_CORETYPE"] = forced
        advice.append(f"OPENBLAS_CORETYPE={forced} forces kernels: unset it for the CPU's best")
    if blas is None:
        advice.append("a numpy wheel from PyPI brings OpenBLAS with it")
    elif blas.kernels in _SLOW:
        advice.append(f"{blas.kernels} kernels do not use this CPU's fused multiply-add")
    elif blas.kernels == "Haswell" and "avx512f" in native.cpu_identity():
        advice.append("the CPU has AVX-512, but OpenBLAS runs its Haswell kernels")
    if advice:
        facts["advice"] = "; ".join(advice)
    return facts
