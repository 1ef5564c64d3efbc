"""The peak memory of a training step, eager and compiled: resident pages above what was there once
everything is imported.

    python tools/bench_memory.py [--shapes 4,32,2,2,32 12,64,4,4,128] [--write]

Model, optimizer and gradients count, recordings do not: the peak is that of steps 6 to 8, which are
replayed, after freed pages have been given back. Step 9 is an audit, recorded again, and has a
column of its own. Each runs in a process of its own. Linux only: the peak is read, and reset, under
/proc.
"""

import argparse
import ctypes
import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from bench_worker import training_step
from pages import PERFORMANCE, machine

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ["4,32,2,2,32", "12,64,4,4,128", "8,256,6,6,384"]
VOCABULARY = 65


def resident(peak: bool) -> float:
    """Megabytes of resident memory, now or at the peak."""
    found = re.search(
        rf"Vm{'HWM' if peak else 'RSS'}:\s+(\d+)", Path("/proc/self/status").read_text()
    )
    assert found is not None
    return int(found[1]) / 1024


def settle() -> None:
    """Give freed pages back and begin a new peak."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def work(kind: str, shape: str) -> None:
    """Print the megabytes of one contender, in steps 6 to 8 and in step 9."""
    import minigrad.compiler  # noqa: F401 (it is there before the measurement begins)
    from minigrad import Tensor
    from minigrad.models import GPT, GPTConfig
    from minigrad.optim import AdamW

    B, T, L, H, C = map(int, shape.split(","))
    np.ones((512, 512), np.float32) @ np.ones((512, 512), np.float32)  # BLAS takes its buffers
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (B, T + 1))
    settle()
    before = resident(peak=False)
    model = GPT(GPTConfig.gpt2(VOCABULARY, T, L, H, C))
    run = training_step(
        model, AdamW(model.parameters(), lr=1e-3), None if kind == "eager" else kind
    )
    x, y = Tensor(tokens[:, :-1]), Tensor(tokens[:, 1:])
    for _ in range(5):
        float(run(x, y))
    for steps in (3, 1):
        settle()
        for _ in range(steps):
            if kind != "eager" and run.ready(x, y) != (steps == 3):
                raise SystemExit("audits come at other steps now")
            float(run(x, y))
        print(resident(peak=True) - before)


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        return work(*sys.argv[2:4])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args()
    lines = [
        "## Peak memory of a training step",
        "",
        f"`tools/bench_memory.py`. {machine()}. Megabytes above what the imports take.",
        "",
        "| batch, T, layers, heads, width | eager | numpy replay | C | C / eager | an audit of C |",
        "|---|---|---|---|---|---|",
    ]
    environment = {
        **os.environ,
        "MINIGRAD_KEEP_MEMORY": "0",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    for shape in options.shapes:
        found = []
        for kind in ("eager", "numpy", "c"):
            call = [sys.executable, __file__, "--work", kind, shape]
            ran = subprocess.run(call, env=environment, capture_output=True, text=True, check=True)
            found.append([float(peak) for peak in ran.stdout.split()])
        (eager, _), (replayed, _), (compiled, audited) = found
        lines.append(
            f"| ({shape.replace(',', ', ')}) | {eager:.1f} | {replayed:.1f} | {compiled:.1f} | "
            f"{compiled / eager:.2f} | {audited:.1f} |"
        )
        print(lines[-1], flush=True)
    if options.write:
        PERFORMANCE.write("bench_memory", lines)
    return None


if __name__ == "__main__":
    main()
