"""A whole training run on a text, minigrad's compiled step beside PyTorch's eager one: the time it
takes, and the validation loss it reaches.

    python tools/bench_text.py --text FILE [--steps 2000] [--write]

The setting is nanoGPT's for a CPU: 4 layers, 4 heads, 128 wide, context 64, batch 12, 2000 steps,
no dropout. AdamW's learning rate rises for 100 steps to 3e-3 and falls along a cosine to a tenth of
that, as in `minigrad train`. Both start from the same weights and see the same batches. The
validation loss is over all of the last tenth of the text. Time is the training steps' alone; each
contender runs in a process of its own, one after the other.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pages
from bench import machine, others_use, weights_of
from bench_worker import CONTENDERS

from minigrad.data import CharTokenizer, TextData, read_text

B, T, LAYERS, HEADS, WIDTH = 12, 64, 4, 4, 128
NAMES = ("minigrad C", "PyTorch eager")


def learning_rate(
    step: int, steps: int, top: float = 3e-3, low: float = 3e-4, warmup: int = 100
) -> float:
    """Up along a line, down along half a cosine."""
    if step < warmup:
        return top * (step + 1) / (warmup + 1)
    return (
        low + (top - low) * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2
    )


def run(name: str, text: str, weights: str, steps: int) -> None:
    """One contender's whole run: a line of JSON now and then, the last one with the result."""
    with np.load(weights) as file:
        arrays = {k: file[k] for k in file.files if k != "tokens"}
    content = read_text(text)
    data = TextData(
        CharTokenizer.from_text(content).encode(content), block_size=T, batch_size=B, seed=0
    )
    contender = CONTENDERS[name](arrays, (B, T, LAYERS, HEADS, WIDTH))
    assert contender.loss is not None
    seconds = 0.0
    for step in range(steps):
        x, y = (np.ascontiguousarray(a, np.int64) for a in data.batch(step))
        begun = time.perf_counter()
        loss = contender.step(x, y, learning_rate(step, steps))
        seconds += time.perf_counter() - begun
        if (step + 1) % 500 == 0:
            print(json.dumps({"step": step + 1, "loss": loss, "seconds": seconds}), flush=True)
    losses = [
        (contender.loss(x.astype(np.int64), y.astype(np.int64)), y.size)
        for x, y in data.validation()
    ]
    total = sum(loss * n for loss, n in losses) / sum(n for _, n in losses)
    print(
        json.dumps({"val_loss": total, "seconds": seconds, "tokens": sum(n for _, n in losses)}),
        flush=True,
    )


def compete(name: str, text: str, weights: Path, steps: int) -> dict[str, Any] | None:
    """The result of a contender in a process of its own; None if it is not installed."""
    command = [
        sys.executable,
        __file__,
        "--text",
        text,
        "--steps",
        str(steps),
        "--run",
        name,
        str(weights),
    ]
    root = str(Path(__file__).resolve().parents[1])
    environment = {
        **os.environ,
        "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        answer = None
        for line in process.stdout:
            print(f"  {name}: {line.strip()}", flush=True)
            answer = json.loads(line)
    return answer if process.returncode == 0 else None


def report(results: dict[str, dict[str, Any]], text: str, steps: int) -> list[str]:
    """The section of the page."""
    ours = results[NAMES[0]]["seconds"]
    lines = [
        "## A whole run",
        "",
        f"{Path(text).name}, characters; {LAYERS} layers, {HEADS} heads, {WIDTH} wide, context "
        f"{T}, batch {B}, {steps} steps, no dropout. "
        "nanoGPT's README reports a validation loss of 1.88 for this setting.",
        "",
        "| | seconds for the steps | validation loss, nats per character | times minigrad C |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {r['seconds']:.1f} | {r['val_loss']:.3f} | {r['seconds'] / ours:.2f} |"
        for name, r in results.items()
    ]
    return [*lines, "", *machine(os.cpu_count() or 1).splitlines()]


def main() -> None:
    """Parse, refuse a busy machine, run one after the other, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", required=True, help="a UTF-8 text file")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too")
    parser.add_argument(
        "--write", action="store_true", help="put the figures into docs/performance.md"
    )
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        return run(options.run[0], options.text, options.run[1], options.steps)
    if others_use() > 0.05 and not options.force:
        raise SystemExit("the machine is busy: wait, or --force")
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = CharTokenizer.from_text(read_text(options.text)).vocab_size
        weights = weights_of(f"{B},{T},{LAYERS},{HEADS},{WIDTH}", Path(folder), vocabulary)
        answers = {name: compete(name, options.text, weights, options.steps) for name in NAMES}
    lines = report(
        {name: answer for name, answer in answers.items() if answer}, options.text, options.steps
    )
    print("\n".join(lines))
    if options.write:
        pages.PERFORMANCE.write("bench_text", lines)
    return None


if __name__ == "__main__":
    main()
