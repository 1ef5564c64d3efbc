"""What the compiler finds on this machine, and what would make it faster: for benchmarks and
`minigrad doctor`.
"""

from __future__ import annotations

import os
import platform
import stat
from pathlib import Path

from minigrad.compiler import native
from minigrad.compiler.blas import chosen_blas, find_blas
from minigrad.compiler.compiled import cores

_SLOW = {
    "Prescott",
    "Core2",
    "Nehalem",
    "Sandybridge",
    "Barcelona",
    "Bobcat",
}  # OpenBLAS kernels without fused multiply-add


def environment() -> dict[str, str]:
    """BLAS and its kernels, compiler, flags, threads, cache folder; and under "advice" what would
    be faster, if anything. Changes nothing.
    """
    blas, facts, advice = find_blas(), {}, []
    facts["BLAS"] = f"{blas.name}, {blas.kernels} kernels ({blas.path})" if blas else "none found"
    if blas is None:
        advice.append("a numpy wheel from PyPI brings OpenBLAS with it")
    try:
        facts["compiler"] = str(native.find_compiler())
        through = chosen_blas()
        facts["compiled products"] = (
            "tiles in C, for this CPU's vector registers" if through is None else through.name
        )
    except native.NativeError as error:
        facts["compiler"] = f"none: {error}"
        advice.append(
            "with a C compiler, steps run several times faster: `pip install ziglang` brings one"
        )
    facts["flags"] = " ".join(native.FLAGS)
    facts["threads"] = (
        f"{os.environ.get('MINIGRAD_THREADS', cores())} (MINIGRAD_THREADS; {cores()} cores, "
        f"{platform.machine()})"
    )
    state, good = _cache_state(native.cache_folder())
    facts["cache"] = f"{native.cache_folder()} ({state})"
    if not good:
        advice.append(
            "compiled steps are not kept from run to run; MINIGRAD_CACHE names another cache folder"
        )
    forced = os.environ.get("OPENBLAS_CORETYPE")
    if forced:
        facts["OPENBLAS_CORETYPE"] = forced
        advice.append(
            f"OPENBLAS_CORETYPE={forced} forces OpenBLAS kernels: without it the CPU's best are "
            "chosen"
        )
    if blas and blas.kernels in _SLOW:
        advice.append(f"{blas.kernels} kernels do not use this CPU's fused multiply-add")
    elif blas and blas.kernels == "Haswell" and "avx512f" in native.cpu_identity():
        advice.append("the CPU has AVX-512, but OpenBLAS runs its Haswell kernels")
    if advice:
        facts["advice"] = "; ".join(advice)
    return facts


def _cache_state(folder: Path) -> tuple[str, bool]:
    """What `native.open_cache` would make of the folder, found out without touching it; and whether
    it would be used.
    """
    try:
        facts = folder.lstat()
    except FileNotFoundError:
        above = next(p for p in folder.absolute().parents if p.exists())
        return (
            ("not there yet", True)
            if os.access(above, os.W_OK | os.X_OK)
            else (f"cannot be made in {above}", False)
        )
    except OSError as error:
        return f"not used: {error.strerror}", False
    if hasattr(os, "getuid") and facts.st_uid != os.getuid():
        return f"not used: it belongs to uid {facts.st_uid}", False
    if not stat.S_ISDIR(facts.st_mode):
        return "not used: a link or a file, not a folder", False
    if facts.st_mode & stat.S_ISVTX:
        return "not used: all users share it", False
    if not os.access(folder, os.W_OK | os.X_OK):
        return "not used: it cannot be written", False
    return f"yours, writable, {len(list(folder.glob('*.so')))} objects", True
