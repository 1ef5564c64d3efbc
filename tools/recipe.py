"""Train with one setting changed at a time, and write what it brings into docs/recipe.md.

    python tools/recipe.py --seeds 5 --only sgd,muon --write

A variant is a few options of `minigrad train`, or fields of GPTConfig, or settings of Muon; the
rest is the default. Each run is a process of its own with one thread. Results are kept in a file, a
line of JSON for each run, and runs that are there are not made again; the tables are made from all
of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "recipe.jsonl"
GPT2 = {"arch": "gpt2", "optimizer": "adamw", "schedule": "cosine", "final_lr": 0.1}
ADAMW = {"optimizer": "adamw"}

# Tables: title, then the name of each row with what differs from the default.
TABLES: dict[str, dict[str, dict[str, Any]]] = {
    "From GPT-2 to the default": {
        "GPT-2, AdamW, cosine to a tenth": GPT2,
        "GPT-2, AdamW, decay to 0": {**ADAMW, "arch": "gpt2"},
        "modern parts, AdamW": ADAMW,
        "the default: modern parts, Muon": {},
        "GPT-2, Muon": {"arch": "gpt2"},
    },
    "At equal time": {
        "Muon, 1,150 steps": {"steps": 1150},
        "Muon, three iterations, 1,325 steps": {"muon.ns_steps": 3, "steps": 1325},
        "AdamW, 1,450 steps": {**ADAMW, "steps": 1450},
    },
    "Parts": {
        "LayerNorm": {"norm": "layer"},
        "no QK-norm": {"qk_norm": False},
        "learned positions": {"positions": "learned"},
        "GELU": {"mlp": "gelu"},
        "relu squared": {"mlp": "relu2"},
        "biases": {"bias": True},
        "GPT-2's initialisation": {"init": "gpt2"},
    },
    "Optimizer": {
        "Muon 0.01": {"lr": 0.01},
        "Muon 0.04": {"lr": 0.04},
        "momentum 0.9": {"muon.momentum": 0.9},
        "three iterations": {"muon.ns_steps": 3},
        "weight decay 0.1": {"weight_decay": 0.1},
        "AdamW 0.006": {**ADAMW, "lr": 6e-3},
    },
    "Schedule": {
        "cosine": {"schedule": "cosine"},
        "linear from the start": {"schedule": "linear"},
        "decay over the last 20 %": {"decay": 0.2},
        "decay over the last 80 %": {"decay": 0.8},
    },
    "Context and batch": {
        "context 128, batch 6": {"block_size": 128, "batch_size": 6},
        "context 128, batch 12, half the steps": {"block_size": 128, "steps": 750},
        "batch 24, half the steps": {"batch_size": 24, "steps": 750},
    },
}


def trainer_of(changes: dict[str, Any], text: str, jit: bool | None = None) -> Any:
    """The Trainer of a run with these changes to the default of `minigrad train`."""
    from minigrad.cli import recipe
    from minigrad.cli.train import COMMAND, build_trainer
    from minigrad.data import CharTokenizer, TextData
    from minigrad.models import GPT, GPTConfig
    from minigrad.models.gpt import ARCHITECTURES
    from minigrad.random import manual_seed

    known = {option.name for option in COMMAND.options}
    options = COMMAND.complete({k: v for k, v in changes.items() if k in known})
    recipe.settle(options)
    options.parts, options.jit = 1, jit
    fields = {field.name for field in dataclasses.fields(GPTConfig)}
    muon = {k.partition(".")[2]: v for k, v in changes.items() if k.startswith("muon.")}
    recipe.OPTIMIZERS["muon"].settings.update(muon)
    if unknown := changes.keys() - known - fields - {f"muon.{name}" for name in muon}:
        raise SystemExit(f"unknown settings: {sorted(unknown)}")
    tokenizer = CharTokenizer.from_text(text)
    sizes = {name: getattr(options, name) for name in ("block_size", "batch_size", "seed")}
    data = TextData(tokenizer.encode(text), **sizes)
    manual_seed(options.seed)
    names = ("block_size", "n_layer", "n_head", "n_embd", "dropout")
    parts = {**ARCHITECTURES[options.arch], **{k: v for k, v in changes.items() if k in fields}}
    config = {name: getattr(options, name) for name in names} | parts
    return build_trainer(options, GPT(GPTConfig(tokenizer.vocab_size, **config)), data)


def run(changes: dict[str, Any], path: str | None) -> dict[str, Any]:
    """Train; the last validation loss, the training loss of the last 100 steps, and the time."""
    from minigrad.data import default_text, read_text

    trainer = trainer_of(changes, read_text(path) if path else default_text())
    trainer.eval_interval = trainer.steps
    trainer.prepare()
    began, losses = (time.perf_counter(), time.process_time()), []
    for report in trainer.run():
        losses.append(report.loss)
    seconds, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    return {
        "val_loss": report.val_loss,
        "loss": statistics.mean(losses[-100:]),
        "seconds": round(seconds, 1),
        "cpu_ms": round(1e3 * cpu / len(losses), 2),
        "steps": len(losses),
        "backend": trainer.backend,
    }


def missing(results: list[dict[str, Any]], changes: dict[str, Any], seeds: int) -> list[int]:
    """The seeds that have no result."""
    made = {r["seed"] for r in results if r["changes"] == changes}
    return [seed for seed in range(seeds) if seed not in made]


def read(path: Path) -> list[dict[str, Any]]:
    """The results that are there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(results: list[dict[str, Any]], title: str) -> list[str]:
    """One table, of the rows that have results. The spread is the standard deviation over seeds;
    time is the processor's, with one thread.
    """
    rows = {"the default": {}, **TABLES[title]}
    lines = ["| | validation loss | spread | to the default | seeds | ms per step |"]
    lines.append("|---|---|---|---|---|---|")
    base = [r["val_loss"] for r in results if r["changes"] == {}]
    for name, changes in rows.items():
        found = [r for r in results if r["changes"] == changes]
        if not found or (name == "the default" and {} in TABLES[title].values()):
            continue
        losses = [r["val_loss"] for r in found]
        mean, spread = statistics.mean(losses), "-"
        if len(losses) > 1:
            spread = f"{statistics.stdev(losses):.3f}"
        change = f"{mean - statistics.mean(base):+.3f}" if base else ""
        cpu = statistics.median(r["cpu_ms"] for r in found)
        lines.append(f"| {name} | {mean:.3f} | {spread} | {change} | {len(found)} | {cpu:.1f} |")
    return [f"### {title}", "", *lines, ""] if len(lines) > 2 else []


def compete(changes: dict[str, Any], seed: int, text: str | None) -> dict[str, Any]:
    """Run in a process of its own."""
    threads = {f"{name}_THREADS": "1" for name in ("MINIGRAD", "OPENBLAS", "OMP")}
    call = [sys.executable, __file__, "--run", json.dumps({**changes, "seed": seed})]
    done = subprocess.run(
        [*call, *(["--text", text] if text else [])],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **threads, "PYTHONPATH": str(ROOT)},
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert math.isfinite(answer["val_loss"])
    return answer


def main() -> None:
    """Parse, make the runs that are missing, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="runs of each variant")
    parser.add_argument("--only", default="", help="words in names of tables or rows, with commas")
    parser.add_argument("--text", help="a UTF-8 text file (default: Python's documentation)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON", help="for all")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/recipe.md")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        return print(json.dumps(run(json.loads(options.run), options.text)))
    common = {k: json.loads(v) for k, _, v in (pair.partition("=") for pair in options.set)}
    words = [word.strip().lower() for word in options.only.split(",") if word.strip()]
    for seed in range(options.seeds):
        for title, rows in TABLES.items():
            for name, row in rows.items():
                changes, results = {**common, **row}, read(options.results)
                wanted = not words or any(word in f"{title} {name}".lower() for word in words)
                if wanted and seed in missing(results, changes, options.seeds):
                    answer = compete(changes, seed, options.text)
                    line = {"changes": changes, "seed": seed, "name": name, **answer}
                    print(json.dumps(line), flush=True)
                    with options.results.open("a") as file:
                        file.write(json.dumps(line) + "\n")
    results = read(options.results)
    lines = [line for title in TABLES for line in table(results, title)]
    print("\n".join(lines))
    if options.write:
        import pages

        page = ROOT / "docs" / "recipe.md"
        page.write_text(pages.replaced(page.read_text(), "recipe", lines))
    return None


if __name__ == "__main__":
    main()
