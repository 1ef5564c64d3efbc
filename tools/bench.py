"""A whole training step (forward, backward, clipping, AdamW) of one GPT in minigrad and other
frameworks, and how far they are from the floor. A shape that begins with "llama:" is the step of a
Llama-type model with Muon, of `bench_llama.py`.

    python tools/bench.py                       all shapes; writes docs/performance.md
    python tools/bench.py --shapes 4,32,2,2,32 --rounds 5 --force --no-write
    python tools/bench.py --phases              also where the time of minigrad's C goes

Each contender lives in a process of its own, starts from the same weights and gets the same
batches; their losses are compared before anything is timed, those in bfloat16 with a wide
tolerance. Turns are interleaved. The floor is the step's matrix products alone, through the same
BLAS. A step is also given as a share of the peak, the rate of multiply-adds in registers: only its
products count, attention's as whole squares. A busy machine is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import bench_llama
import numpy as np
import pages

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ["4,32,2,2,32", "12,64,4,4,128", "8,256,6,6,384", "llama:12,64,4,4,128"]
CONTENDERS = [
    "minigrad C",
    "minigrad C, bfloat16",
    "minigrad numpy replay",
    "minigrad eager",
    "PyTorch eager",
    "PyTorch compile",
    "PyTorch eager, bfloat16",
    "PyTorch compile, bfloat16",
    "JAX jit",
    "tinygrad",
    "floor",
]
VOCABULARY = 65
WARM, BATCHES = 4, 8
_READY = 120.0  # seconds that a turn may take
_PATIENCE = 10.0  # seconds of a step beyond which a contender is named and not timed


def environment_of(threads: int) -> dict[str, str]:
    """The environment of a process in which everybody uses so many threads."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "MINIGRAD_THREADS": str(threads),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "JAX_PLATFORMS": "cpu",
        "DEV": "CPU",
        "NUM_CPU_THREADS": str(threads),
    }


class Contender:
    """A worker process: `turn(n)` makes n steps and returns their times and the last loss."""

    def __init__(self, name: str, shape: str, weights: Path, threads: int) -> None:
        self.name = name
        command = [
            sys.executable,
            str(Path(__file__).with_name("bench_worker.py")),
            name,
            shape,
            str(weights),
        ]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment_of(threads),
        )
        self.why_not = ""

    def turn(self, steps: int | str) -> dict[str, Any] | None:
        """One turn; None if the contender is not here, or gets nowhere. steps: or "phases", of
        minigrad's C: its own account of where the time goes.
        """
        assert (
            self.process.stdin is not None
            and self.process.stdout is not None
            and self.process.stderr is not None
        )
        end = threading.Timer(_READY, self.process.kill)
        end.start()
        try:
            print(steps, file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        late = not end.is_alive()
        end.cancel()
        if late:
            self.why_not = f"not ready after {_READY:.0f} s"
            return None
        if not line:
            self.why_not = (self.process.stderr.read().strip().splitlines() or ["no answer"])[-1]
            return None
        return dict(json.loads(line))

    def close(self) -> None:
        """End the process."""
        self.process.communicate(None)


def parsed(shape: str) -> tuple[str, bench_llama.Sizes]:
    """The kind of model, "" or "llama", and batch, T, layers, heads, width."""
    kind, _, numbers = shape.rpartition(":")
    B, T, L, H, C = map(int, numbers.split(","))
    return kind, (B, T, L, H, C)


def weights_of(shape: str, folder: Path, vocabulary: int = VOCABULARY) -> Path:
    """First weights and batches of a shape, in a file that every contender reads."""
    kind, (B, T, L, _, C) = parsed(shape)
    rng = np.random.default_rng(0)

    def normal(*size: int, scale: float = 0.02) -> np.ndarray:
        return rng.normal(0, scale, size).astype(np.float32)

    arrays = {
        "wte.weight": normal(vocabulary, C),
        "wpe.weight": normal(T, C),
        "ln_f.weight": np.ones(C, np.float32),
        "ln_f.bias": normal(C),
    }
    for i in range(L):
        layers = {
            "attn.in_proj_": (3 * C, C),
            "attn.out_proj.": (C, C),
            "mlp.c_fc.": (4 * C, C),
            "mlp.c_proj.": (C, 4 * C),
        }
        for name, (rows, columns) in layers.items():
            scale = (
                0.02 / (2 * L) ** 0.5 if "c_proj" in name or "out_proj" in name else 0.02
            )  # as GPT-2 starts
            arrays[f"h.{i}.{name}weight"], arrays[f"h.{i}.{name}bias"] = (
                normal(rows, columns, scale=scale),
                np.zeros(rows, np.float32),
            )
        for name in ("ln_1", "ln_2"):
            arrays[f"h.{i}.{name}.weight"], arrays[f"h.{i}.{name}.bias"] = (
                np.ones(C, np.float32),
                np.zeros(C, np.float32),
            )
    tokens = rng.integers(0, vocabulary, (BATCHES, B, T + 1))
    if kind == "llama":
        arrays = bench_llama.weights(parsed(shape)[1], vocabulary)
    path = folder / f"{shape.replace(':', '-')}.npz"
    np.savez(path, tokens=tokens, **arrays)
    return path


def peaks(threads: int) -> dict[int, dict[str, float]]:
    """What the processor can do, GFLOP/s: number of threads -> name -> rate, by `bench_peak.py`."""
    found = {}
    for n in sorted({1, threads}):
        command = [sys.executable, str(Path(__file__).with_name("bench_peak.py")), str(n)]
        ran = subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment_of(n)
        )
        found[n] = dict(json.loads(ran.stdout))
    return found


def peak_table(found: dict[int, dict[str, float]]) -> list[str]:
    """The same as Markdown."""
    threads = max(found)
    rows = [
        f"| {name} | {' | '.join(f'{r[name]:.0f}' for r in found.values())} |" for name in found[1]
    ]
    heads = [f"{n} thread{'s' * (n > 1)}" for n in found]
    return [
        f"The peak, multiply-adds in registers: {found[threads]['multiply-adds']:.0f} GFLOP/s. The "
        "others are products of 2048 x 2048.",
        "",
        f"| GFLOP/s, the best run | {' | '.join(heads)} |",
        "|---" * (1 + len(heads)) + "|",
        *rows,
        "",
    ]


def flops_of(shape: str) -> float:
    """The operations in the products of a step: of weights, forward and twice backward, and six of
    attention, as whole squares.
    """
    kind, (B, T, L, _, C) = parsed(shape)
    if kind == "llama":
        return bench_llama.flops(parsed(shape)[1], VOCABULARY)
    return 6.0 * B * T * (12 * L * C * C + VOCABULARY * C) + 12.0 * L * B * T * T * C


def compare(
    shape: str, names: list[str], rounds: int, threads: int, folder: Path, phases: bool
) -> dict[str, Any]:
    """Contenders on one shape: losses first, then interleaved turns. name -> median ms, quartiles,
    start-up seconds; and what is missing.
    """
    weights = weights_of(shape, folder)
    if parsed(shape)[0] == "llama":
        names = [name for name in names if name in bench_llama.CONTENDERS]
    starts, losses, here, contenders = {}, {}, [], []
    for name in names:  # one after the other, so that nobody compiles while another does
        c = Contender(name, shape, weights, threads)
        contenders.append(c)
        answer = c.turn(WARM)
        if answer is None:
            print(f"  {c.name}: not here ({c.why_not})")
            continue
        if answer["times"][-1] > _PATIENCE:
            c.why_not = f"a step takes {answer['times'][-1]:.0f} s"
            print(f"  {c.name}: not timed ({c.why_not})")
            continue
        here.append(c)
        starts[c.name], losses[c.name] = answer["start"], answer["loss"]
        print(
            f"  {c.name:<24} loss after {WARM} steps {answer['loss']}   ready after "
            f"{answer['start']:.1f} s"
        )
    known = {name: loss for name, loss in losses.items() if loss is not None}
    exact = [loss for name, loss in known.items() if "bfloat16" not in name]
    off = max(known.values()) - min(known.values()) > 2e-2 * max(known.values())
    if off or max(exact) - min(exact) > 1e-4 * max(exact):
        raise SystemExit(f"the losses differ, so nothing is timed: {losses}")
    times: dict[str, list[float]] = {c.name: [] for c in here}
    for _ in range(rounds):
        for c in here:
            time.sleep(0.4)  # until threads of the one before, which spin, are asleep
            c.turn(1)
            first = c.turn(1)
            assert first is not None
            steps = max(3, min(200, int(0.4 / max(first["times"][0], 1e-6))))
            answer = c.turn(steps)
            assert answer is not None
            times[c.name].append(statistics.median(answer["times"]))
    for c in here:
        if phases and c.name == "minigrad C" and (answer := c.turn("phases")):
            print(answer["phases"])
    for c in contenders:
        c.close()
    return {
        "shape": shape,
        "starts": starts,
        "times": times,
        "missing": {c.name: c.why_not for c in contenders if c not in here},
    }


def table(results: list[dict[str, Any]], peak: float) -> str:
    """The results as Markdown. peak: GFLOP/s of all threads."""
    text = []
    for r in results:
        times, (kind, sizes) = r["times"], parsed(r["shape"])
        ours = statistics.median(times["minigrad C"])
        text += [
            f"### {'A Llama-type model with Muon, ' if kind else ''}"
            f"(batch, T, layers, heads, width) = {sizes}",
            "",
            "| | ms per step, median | spread of the medians | times minigrad C "
            "| share of the peak | ready after, s |",
            "|---|---|---|---|---|---|",
        ]
        for name, medians in times.items():
            m = statistics.median(medians)
            spread = f"{1e3 * min(medians):.2f} .. {1e3 * max(medians):.2f}"
            share = flops_of(r["shape"]) / m / (1e9 * peak)
            text.append(
                f"| {name} | {1e3 * m:.2f} | {spread} | {m / ours:.2f} | {share:.0%} "
                f"| {r['starts'][name]:.1f} |"
            )
        if "floor" in times:
            text += [
                "",
                f"minigrad C takes {ours / statistics.median(times['floor']):.2f} times the floor.",
            ]
        text += [f"Not measured: {name} ({why})." for name, why in r["missing"].items()] + [""]
    return "\n".join(text)


def machine(threads: int) -> str:
    """What was measured on."""
    from minigrad.compiler import environment

    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "")
    model = model or platform.processor()
    facts = "\n".join(
        f"{key}: {re.sub(r'/[^ )]*/', '', value)}  "
        for key, value in environment().items()
        if key != "cache"
    )
    load = ", ".join(f"{x:.2f}" for x in os.getloadavg())
    return (
        f"{model}, {threads} threads; Python {platform.python_version()}, numpy "
        f"{np.__version__}  \n{facts}\nload average at the start: {load}\n"
    )


def others_use() -> float:
    """How much of the processors others used in one second, as a share. The load average would also
    tell of what ended a minute ago.
    """

    def ticks() -> tuple[int, int]:
        fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(fields) - fields[3] - fields[4], sum(fields)

    if not Path("/proc/stat").exists():
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    busy, total = ticks()
    time.sleep(1)
    later_busy, later_total = ticks()
    return (later_busy - busy) / max(later_total - total, 1)


def main() -> None:
    """Parse, refuse a busy machine, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="*", default=SHAPES)
    parser.add_argument("--contenders", nargs="*", default=CONTENDERS, choices=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument(
        "--force", action="store_true", help="measure on a busy machine too, and say so"
    )
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument(
        "--phases", action="store_true", help="print minigrad's phases with their times too"
    )
    options = parser.parse_args()
    share = others_use()
    busy = share > 0.05
    if busy and not options.force:
        raise SystemExit(
            f"the machine is busy (others use {share:.0%} of the processors): wait, or --force"
        )
    head = (
        machine(options.threads) + f"others used {share:.1%} of the processors before the start\n"
    )
    print(head)
    rates = peaks(options.threads)
    print("\n".join(peak_table(rates)))
    with tempfile.TemporaryDirectory() as folder:
        results = []
        for shape in options.shapes:
            print(shape)
            results.append(
                compare(
                    shape,
                    options.contenders,
                    options.rounds,
                    options.threads,
                    Path(folder),
                    options.phases,
                )
            )
    warning = "**The machine was busy: these figures are indicative only.**\n\n" if busy else ""
    report = (
        "## A training step\n\nMeasured by `python tools/bench.py`, which says what and "
        f"how.\n\n{warning}{head}\n" + "\n".join(peak_table(rates)) + "\n"
        f"{table(results, rates[options.threads]['multiply-adds'])}"
    )
    print(report)
    if not options.no_write:
        pages.PERFORMANCE.write("bench", report.splitlines())


if __name__ == "__main__":
    main()
