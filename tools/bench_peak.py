"""What the processor could do: multiply-adds in registers, and products of 2048 x 2048 matrices.

    python tools/bench_peak.py [threads]      one line of JSON: name -> GFLOP/s

The loop of multiply-adds is C, built as the package builds its own. Products: the package's tiles
(in a compiled step), numpy's BLAS and PyTorch where it is installed. Set OPENBLAS_NUM_THREADS and
OMP_NUM_THREADS to the number of threads, as `bench.py` does.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from minigrad import Tensor, jit
from minigrad.compiler import native

SIZE, ROUNDS, LOOPS = 2048, 5, 20_000_000
# Twelve sums: more than the latency of a multiply-add times its units, and as many as fit registers
SOURCE = """
#include <stdint.h>
#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX2__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float vector_t __attribute__((vector_size(LANES * 4)));
int lanes(void) { return LANES; }
float multiply_add(int64_t n, float x, float y) {
    vector_t sum[12], a = x - (vector_t){0}, b = y - (vector_t){0};
    for (int i = 0; i < 12; i++) sum[i] = a * (float)i;
    for (int64_t k = 0; k < n; k++) for (int i = 0; i < 12; i++) sum[i] = sum[i] * a + b;
    float total = 0;
    for (int i = 0; i < 12; i++) for (int j = 0; j < LANES; j++) total += sum[i][j];
    return total;
}
"""


def loop(threads: int) -> tuple[float, Callable[[], object]]:
    """(floating-point operations, the function that does them) of the loop on each thread."""
    library = native.build(SOURCE).library
    run, pool = library.multiply_add, ThreadPoolExecutor(threads)
    run.argtypes, run.restype = [ctypes.c_int64, ctypes.c_float, ctypes.c_float], ctypes.c_float
    flops = 2.0 * 12 * library.lanes() * LOOPS * threads
    return flops, lambda: list(pool.map(lambda _: run(LOOPS, 0.5, 1.0), range(threads)))


def products(threads: int) -> dict[str, Callable[[], object]]:
    """Products of two matrices by name."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(SIZE, SIZE)).astype(np.float32) for _ in range(2))
    x, y, out = Tensor(a), Tensor(b), np.empty_like(a)
    step = jit(lambda x, y: x @ y, backend="c", threads=threads, audit=False)
    found: dict[str, Callable[[], object]] = {
        "minigrad's tiles": lambda: step(x, y),
        "numpy's BLAS": lambda: np.matmul(a, b, out=out),
    }
    try:
        import torch
    except ImportError:
        return found
    torch.set_num_threads(threads)
    left, right, into = (torch.from_numpy(z) for z in (a, b, out))
    return {**found, "PyTorch": lambda: torch.mm(left, right, out=into)}


def measure(threads: int) -> dict[str, float]:
    """name -> GFLOP/s, the best of some interleaved runs."""
    flops, run = loop(threads)
    runs = {"multiply-adds": (flops, run)}
    runs |= {name: (2.0 * SIZE**3, product) for name, product in products(threads).items()}
    for _, run in runs.values():
        for _ in range(3):  # the third call of a compiled step is the first replay
            run()
    best = dict.fromkeys(runs, 0.0)
    for _ in range(ROUNDS):
        for name, (flops, run) in runs.items():
            time.sleep(0.2)  # until threads of the one before, which spin, are asleep
            started = time.perf_counter()
            run()
            best[name] = max(best[name], flops / (time.perf_counter() - started) / 1e9)
    return best


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1)))
