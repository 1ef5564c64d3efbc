"""`minigrad doctor`: what this machine offers, measured, and what would make it faster. It changes
nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np

from minigrad import __version__
from minigrad.cli.arguments import Commands
from minigrad.compiler import environment, native
from minigrad.compiler.blas import find_blas
from minigrad.compiler.compiled import cores

EXAMPLES = """\
examples:
  minigrad doctor
  minigrad doctor --json                                  # the same facts for a program
"""

_FORCING = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
)  # what makes OpenBLAS believe in another processor
_THREADS = (
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "MINIGRAD_THREADS",
)
# Of the measured product: large enough for BLAS to be at its best, a few hundredths of a second on
# one core
_SIZE = 768


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "doctor",
        help="what this machine offers, and what would be faster",
        epilog=EXAMPLES,
        description="Show BLAS, compiler, threads and cache folder, measure a matrix product, and "
        "say what "
        "would be faster.\nNothing is changed.",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of lines"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what was found; the exit code is 0, also where something is missing."""
    facts, advice = examine()
    if options.json:
        print(json.dumps({**facts, "advice": advice}, indent=2))
        return 0
    width = max(map(len, facts)) + 2
    for name, fact in facts.items():
        print(f"{name:{width}}{_said(name, fact)}")
    print(
        "\nwhat would be faster:"
        if advice
        else "\nnothing to advise: this machine does what it can"
    )
    for line in advice:
        print(f"  - {line}")
    return 0


def examine() -> tuple[dict[str, Any], list[str]]:
    """All facts by name, in the order to be shown; and what would be faster."""
    found = environment()
    advice = [line for line in found.pop("advice", "").split("; ") if line]
    facts: dict[str, Any] = {
        "minigrad": f"{__version__}, Python {sys.version.split()[0]}, numpy {np.__version__}",
        **found,
    }
    if not found["compiler"].startswith("none"):
        try:
            facts["compiling"] = f"works: {native.trial():.2f} s for an empty function"
        except native.NativeError as error:
            facts["compiling"] = f"fails: {error}"
            advice.append(
                "steps run through numpy, several times slower, until the compiler works: repair "
                "it, or name another in CC"
            )
    facts |= {name: os.environ[name] for name in (*_FORCING, *_THREADS) if name in os.environ}
    facts["GFLOP/s"] = gflops()
    if measured := forced_advice(facts["GFLOP/s"]):
        advice = [line for line in advice if not line.startswith("OPENBLAS_CORETYPE")] + measured
    advice += thread_advice(facts["GFLOP/s"])
    return facts, advice


def gflops() -> dict[str, float]:
    """The measured speed of a float32 matrix product in GFLOP/s, by number of threads: one, and all
    cores; {"?": x} for a BLAS without that knob.
    """
    blas = find_blas()
    if blas is None or not blas.set_threads:
        return {"?": _measure()}
    set_threads = ctypes.CFUNCTYPE(None, ctypes.c_int)(blas.set_threads)
    before = ctypes.CFUNCTYPE(ctypes.c_int)(blas.get_threads)()
    found = {}
    try:
        for n in sorted({1, cores()}):
            set_threads(n)
            found[str(n)] = _measure()
    finally:
        set_threads(before)
    return found


def _measure() -> float:
    """The best of several products within about a quarter of a second, at least three."""
    a = np.full((_SIZE, _SIZE), 0.5, np.float32)
    out = np.empty_like(a)
    best, end, n = float("inf"), time.perf_counter() + 0.25, 0
    while n < 3 or time.perf_counter() < end:
        started = time.perf_counter()
        np.matmul(a, a, out=out)
        best = min(best, time.perf_counter() - started)
        n += 1
    return round(2 * _SIZE**3 / best / 1e9, 1)


def forced_advice(measured: dict[str, float]) -> list[str]:
    """What the same product does in a process without the variables that force OpenBLAS's kernels,
    if one is set.
    """
    forced = [name for name in _FORCING if name in os.environ]
    if not forced:
        return []
    free = {name: value for name, value in os.environ.items() if name not in forced}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "minigrad", "doctor", "--json"],
            env=free,
            capture_output=True,
            text=True,
            timeout=60,
        )
        other = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return [
            (
                f"{' and '.join(forced)} may force slow kernels; unset to see (a process without "
                "could "
                "not be started)"
            )
        ]
    kernels = other["BLAS"].split(", ")[-1].split(" (")[0]
    pairs = [
        f"{other['GFLOP/s'][n]:g} instead of {measured[n]:g} GFLOP/s with {_threads(n)}"
        for n in measured
        if n in other["GFLOP/s"]
    ]
    return [
        (
            f"measured without {' and '.join(forced)}: {kernels}, {', '.join(pairs)}; to have "
            "that: "
            f"unset {' '.join(forced)}"
        )
    ]


def thread_advice(measured: dict[str, float]) -> list[str]:
    """What the *_NUM_THREADS variables of this process make slow."""
    advice, n = [], cores()
    for name in _THREADS:
        value = os.environ.get(name)
        if value is None:
            continue
        if not value.isdecimal() or int(value) < 1:
            advice.append(f"{name}={value} is no number of threads: unset it, or set it to {n}")
        elif int(value) > n:
            advice.append(
                f"{name}={value}, but there are {n} cores: threads that wait for one another are "
                "many times slower"
            )
        elif int(value) < n:
            whose = (
                "compiled steps use"
                if name == "MINIGRAD_THREADS"
                else "matrix products outside of compiled steps use"
            )
            advice.append(
                f"{name}={value}: {whose} {value} of {n} cores; right where other processes need "
                "the rest"
            )
    if str(n) in measured and measured[str(n)] < 1.1 * measured["1"] and n > 1:
        advice.append(
            f"{n} threads multiply no faster than one: something else is using the cores, or this "
            "container has fewer than it shows"
        )
    return advice


def _threads(n: str) -> str:
    return {"1": "1 thread", "?": "BLAS's own threads"}.get(n, f"{n} threads")


def _said(name: str, fact: Any) -> str:
    if name != "GFLOP/s":
        return str(fact)
    return (
        ", ".join(f"{value:g} with {_threads(n)}" for n, value in fact.items())
        + f" (float32 product, {_SIZE} wide)"
    )
