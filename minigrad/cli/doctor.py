"""Show BLAS, compiler, threads and cache folder, measure a matrix product, and say what would be
faster. Nothing is changed.

examples:
  minigrad doctor
  minigrad doctor --json                                  # the same facts for a program
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from typing import Any

import numpy as np

from minigrad import __version__
from minigrad.cli.options import FLAG, Command, Option
from minigrad.compiler import environment, native
from minigrad.ops.parallel import cores, find_blas

_FORCING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # override OpenBLAS's CPU detection
_OF_BLAS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
THREADS = (*_OF_BLAS, "VECLIB_MAXIMUM_THREADS", "MINIGRAD_THREADS")
_SIZE = 768  # of the measured product: large enough for BLAS to be at its best, and still quick


def run(options: Namespace) -> int:
    """Print what was found; the exit code is 0, also if something is missing."""
    facts, advice = examine()
    if options.json:
        print(json.dumps({**facts, "advice": advice}, indent=2))
        return 0
    width = max(map(len, facts)) + 2
    for name, fact in facts.items():
        if name == "GFLOP/s":
            speeds = ", ".join(f"{value:g} with {_threads(n)}" for n, value in fact.items())
            fact = f"{speeds} (float32 product, {_SIZE} wide)"
        print(f"{name:{width}}{fact}")
    print("\nwhat would be faster:" if advice else "\nno advice: this machine does what it can")
    for line in advice:
        print(f"  - {line}")
    return 0


def examine() -> tuple[dict[str, Any], list[str]]:
    """Return all facts by name, in the order to be shown; and what would be faster."""
    found = environment()
    advice = [line for line in found.pop("advice", "").split("; ") if line]
    versions = f"{__version__}, Python {sys.version.split()[0]}, numpy {np.__version__}"
    facts: dict[str, Any] = {"minigrad": versions, **found}
    if not found["compiler"].startswith("none"):
        try:
            facts["compiling"] = f"works: {native.trial():.2f} s for an empty function"
        except native.NativeError as error:
            facts["compiling"] = f"fails: {error}"
            slow = "steps run through numpy, several times slower, until the compiler works"
            advice.append(f"{slow}: repair it, or name another in CC")
    facts |= {name: os.environ[name] for name in (*_FORCING, *THREADS) if name in os.environ}
    facts["GFLOP/s"] = gflops()
    return facts, advice + thread_advice(facts["GFLOP/s"])


def gflops() -> dict[str, float]:
    """Measure a float32 matrix product in GFLOP/s, by number of threads: one, and all cores. Return
    {"?": x} if the threads of this BLAS cannot be set.
    """
    blas = find_blas()
    if blas is None or blas.set_threads is None or blas.get_threads is None:
        return {"?": _measure()}
    found, before = {}, blas.get_threads()
    try:
        for n in sorted({1, cores()}):
            blas.set_threads(n)
            found[str(n)] = _measure()
    finally:
        blas.set_threads(before)
    return found


def _measure() -> float:
    """Return the best of several products within about a quarter of a second, at least three."""
    a = np.full((_SIZE, _SIZE), 0.5, np.float32)
    out = np.empty_like(a)
    times: list[float] = []
    while len(times) < 3 or sum(times) < 0.25:
        started = time.perf_counter()
        np.matmul(a, a, out=out)
        times.append(time.perf_counter() - started)
    return round(2 * _SIZE**3 / min(times) / 1e9, 1)


def thread_advice(measured: dict[str, float]) -> list[str]:
    """Say which *_NUM_THREADS variables of this process make it slow."""
    advice, n = [], cores()
    for name in THREADS:
        value = os.environ.get(name, str(n))
        if not value.isdecimal() or int(value) < 1:
            advice.append(f"{name}={value} is not a number of threads: unset it, or set it to {n}")
        elif int(value) > n:
            why = "threads that wait for one another are many times slower"
            advice.append(f"{name}={value}, but there are {n} cores: {why}")
        elif int(value) < n:
            ours = name == "MINIGRAD_THREADS"
            steps = "compiled steps and attention" if ours else "other matrix products"
            why = "right if other processes need the rest"
            advice.append(f"{name}={value}: {steps} use {value} of {n} cores; {why}")
    if str(n) in measured and measured[str(n)] < 1.1 * measured["1"] and n > 1:
        slow = f"{n} threads multiply no faster than one"
        why = "something else is using the cores, or this container has fewer than it shows"
        advice.append(f"{slow}: {why}")
    return advice


def _threads(n: str) -> str:
    return {"1": "1 thread", "?": "BLAS's own threads"}.get(n, f"{n} threads")


OPTIONS = (Option("json", FLAG, False, "print one JSON object instead of lines"),)
_PURPOSE = "show what this machine offers, and what would be faster"
COMMAND = Command("doctor", OPTIONS, run, _PURPOSE, __doc__)
