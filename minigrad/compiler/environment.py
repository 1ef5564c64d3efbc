"""What the compiler finds on this machine, and what would make it faster: for benchmarks and
`minigrad doctor`.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from minigrad.compiler import native
from minigrad.compiler.blas import chosen_blas, find_blas
from minigrad.compiler.compiled import cores

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
        facts["compiler"] = str(native.find_compiler())
        through = chosen_blas()
        tiles = "tiles in C, for this CPU's vector registers"
        facts["compiled products"] = tiles if through is None else through.name
    except native.NativeError as error:
        facts["compiler"] = f"none: {error}"
        advice.append("with a C compiler, steps run several times faster: `pip install ziglang`")
    facts["flags"] = " ".join(native.FLAGS)
    threads = os.environ.get("MINIGRAD_THREADS", cores())
    facts["threads"] = f"{threads} (MINIGRAD_THREADS; {cores()} cores, {platform.machine()})"
    state, is_good = _cache_state(native.cache_folder())
    facts["cache"] = f"{native.cache_folder()} ({state})"
    if not is_good:
        advice.append(
            "compiled steps are not kept between runs; MINIGRAD_CACHE names another folder"
        )
    if forced := os.environ.get("OPENBLAS_CORETYPE"):
        facts["OPENBLAS_CORETYPE"] = forced
        advice.append(
            f"OPENBLAS_CORETYPE={forced} forces kernels; unset, the CPU's best are chosen"
        )
    if blas is None:
        advice.append("a numpy wheel from PyPI brings OpenBLAS with it")
    elif blas.kernels in _SLOW:
        advice.append(f"{blas.kernels} kernels do not use this CPU's fused multiply-add")
    elif blas.kernels == "Haswell" and "avx512f" in native.cpu_identity():
        advice.append("the CPU has AVX-512, but OpenBLAS runs its Haswell kernels")
    if advice:
        facts["advice"] = "; ".join(advice)
    return facts


def _cache_state(folder: Path) -> tuple[str, bool]:
    """What `native.open_cache` would make of the folder, and whether it would be used."""
    try:
        problem = native.folder_problem(folder)
    except FileNotFoundError:
        above = next(p for p in folder.absolute().parents if p.exists())
        can_be_made = os.access(above, os.W_OK | os.X_OK)
        return "not there yet" if can_be_made else f"cannot be made in {above}", can_be_made
    except OSError as error:
        problem = error.strerror or str(error)
    if problem:
        return f"not used: it {problem}", False
    return f"yours, writable, {len(list(folder.glob('*.so')))} objects", True
