"""What compiling costs, and what a busy core costs a compiled step.

    python tools/bench_compile.py [--shapes 4,32,2,2,32 ...] [--write]

Compiling: the second call of a training step records, compiles and runs once to compare; that
    call's time above those of the first one, which
records alone, and of a compiled step; in a process with an empty cache, then in another with a full
one.
Busy: the median step while another process keeps one core busy, over that while none does,
    alternately, in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_worker import training_step
from pages import PERFORMANCE, machine

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ["4,32,2,2,32", "12,64,4,4,128", "8,256,6,6,384"]
VOCABULARY = 65


def make(shape: str) -> Any:
    """A compiled step of no arguments."""
    from minigrad import Tensor
    from minigrad.models import GPT, GPTConfig
    from minigrad.optim import AdamW

    B, T, L, H, C = map(int, shape.split(","))
    model = GPT(GPTConfig.gpt2(VOCABULARY, T, L, H, C))
    run = training_step(model, AdamW(model.parameters(), lr=1e-3), "c")
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (B, T + 1))
    x, y = Tensor(tokens[:, :-1]), Tensor(tokens[:, 1:])
    return lambda: float(run(x, y))


def seconds(step: Any, count: int) -> list[float]:
    """The times of so many calls."""
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return times


def work(kind: str, shape: str) -> None:
    """In a process of its own: print one answer as JSON."""
    step = make(shape)
    first, second, third = seconds(step, 3)
    if kind == "compile":
        print(json.dumps(max(second - first - third, 0.0)))
        return
    seconds(step, 3)
    count = max(5, min(200, int(1 / seconds(step, 1)[0])))
    idle, busy = [], []
    for _ in range(5):
        idle.append(statistics.median(seconds(step, count)))
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        time.sleep(0.2)
        busy.append(statistics.median(seconds(step, count)))
        other.kill()
        other.wait()
    ratios = sorted(b / i for b, i in zip(busy, idle, strict=True))
    print(
        json.dumps(
            [
                statistics.median(idle),
                statistics.median(busy),
                ratios[0],
                statistics.median(ratios),
                ratios[-1],
            ]
        )
    )


def ask(kind: str, shape: str, cache: str) -> Any:
    """The answer of a process."""
    environment = {
        **os.environ,
        "MINIGRAD_CACHE": cache,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    done = subprocess.run(
        [sys.executable, __file__, "--work", kind, "--shapes", shape],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return json.loads(done.stdout)


def main() -> None:
    """Ask for each shape, print, and write if wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--write", action="store_true", help="write docs/performance.md")
    parser.add_argument("--work", choices=["compile", "busy"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.shapes[0])
        return
    load = ", ".join(f"{x:.2f}" for x in os.getloadavg())
    rows = [
        "## Compiling, and a busy core",
        "",
        f"`tools/bench_compile.py`. {machine()}, {os.cpu_count()} cores, load average {load}.",
        "",
        "| (batch, T, layers, heads, width) | compiling, s | from the cache, s | idle step, ms | "
        "with one core busy, ms | times slower |",
        "|---|---|---|---|---|---|",
    ]
    for shape in options.shapes:
        with tempfile.TemporaryDirectory() as cache:
            new = ask("compile", shape, cache)
            kept = statistics.median(ask("compile", shape, cache) for _ in range(3))
            idle, busy, least, ratio, most = ask("busy", shape, cache)
        rows.append(
            f"| ({shape.replace(',', ', ')}) | {new:.2f} | {kept:.2f} | {1e3 * idle:.2f} | "
            f"{1e3 * busy:.2f} | {ratio:.2f} "
            f"({least:.2f} .. {most:.2f}) |"
        )
        print(rows[-1])
    print("\n".join(rows))
    if options.write:
        PERFORMANCE.write("bench_compile", rows)


if __name__ == "__main__":
    main()
