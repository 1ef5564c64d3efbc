"""Train with one setting changed at a time, and write what it brings into docs/recipe.md.

    python tools/recipe.py --seeds 5 --only sgd,muon --write
    python tools/recipe.py --seeds 5 --former DIR --write

A variant is a few options of `minigrad train`, or fields of GPTConfig, or settings of Muon, or
"adamw", the rate of AdamW as a share of Muon's; the rest is the default. Each run is a process of
its own with one thread. Results are kept in a file, a line of JSON for each run, and runs that are
there are not made again; the tables are made from all of them. --former: instead of the variants,
run the whole command `minigrad train` of another version, a checkout in DIR, and of this one, in
turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "recipe.jsonl"
GPT2 = {
    "arch": "gpt2",
    "optimizer": "adamw",
    "schedule": "cosine",
    "final_lr": 0.1,
    "n_layer": 4,
    "block_size": 64,
    "batch_size": 12,
    "warmup": 100,
    "steps": 1500,
}
ADAMW = {"optimizer": "adamw"}
# The first modern default, and what was tried from there.
FIRST = {
    "n_layer": 4,
    "block_size": 64,
    "batch_size": 12,
    "muon.ns_steps": 5,
    "adamw": 0.15,
    "warmup": 100,
}
THREE = {**FIRST, "muon.ns_steps": 3}
LONG = {**THREE, "block_size": 128, "batch_size": 6}
SHORT = {**LONG, "steps": 500, "warmup": 50}
THREADS = {f"{name}_THREADS": "1" for name in ("MINIGRAD", "OPENBLAS", "OMP")}

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
        "five iterations, 1,150 steps": {**FIRST, "steps": 1150},
        "three iterations, 1,325 steps": {**THREE, "steps": 1325},
        "three iterations, 1,210 steps": {**THREE, "steps": 1210},
        "the same, weight decay 0.1": {**THREE, "steps": 1210, "weight_decay": 0.1},
        "the same, batch 8, 1,700 steps": {**THREE, "batch_size": 8, "steps": 1700},
        "AdamW, 1,450 steps": {
            **ADAMW,
            "n_layer": 4,
            "block_size": 64,
            "batch_size": 12,
            "warmup": 100,
            "steps": 1450,
        },
        "context 128, batch 6, 1,140 steps": {**LONG, "steps": 1140},
        "the same, relu squared, 1,230 steps": {**LONG, "mlp": "relu2", "steps": 1230},
        "the same, AdamW with Muon's rate, warm-up 50, 1,150 steps": {
            **LONG,
            "adamw": 1.0,
            "warmup": 50,
            "steps": 1150,
        },
        "the same, decay over the last 35 %, 1,150 steps": {**LONG, "decay": 0.35, "steps": 1150},
        "the same, three layers, 1,500 steps": {**LONG, "n_layer": 3, "steps": 1500},
        "the same, three layers, batch 8, 1,170 steps": {
            **LONG,
            "n_layer": 3,
            "batch_size": 8,
            "steps": 1170,
        },
        "context 256, batch 3, 1,040 steps": {
            **LONG,
            "block_size": 256,
            "batch_size": 3,
            "steps": 1040,
        },
    },
    "500 steps, context 128, batch 6": {
        "AdamW 0.15 times Muon's rate": SHORT,
        "AdamW 0.4 times": {**SHORT, "adamw": 0.4},
        "AdamW with Muon's rate, warm-up 20": {**SHORT, "adamw": 1.0, "warmup": 20},
        "Muon 0.03, AdamW 0.009, warm-up 20": {
            **SHORT,
            "lr": 0.03,
            "adamw": 0.3,
            "warmup": 20,
        },
        "decay over the last 80 %, warm-up 20": {**SHORT, "decay": 0.8, "warmup": 20},
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
        "five iterations": {"muon.ns_steps": 5},
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
        "context 64, batch 16": {"block_size": 64, "batch_size": 16},
        "context 64, batch 32, half the steps": {
            "block_size": 64,
            "batch_size": 32,
            "steps": 550,
        },
    },
}


def trainer_of(
    changes: dict[str, Any], text: str, jit: bool | None = None, readings: float = 0.0
) -> Any:
    """The Trainer of a run with these changes to the default of `minigrad train`. readings: how
    often the default size would read the text in the time there is.
    """
    from minigrad.cli import recipe
    from minigrad.cli.train import COMMAND, build_trainer
    from minigrad.data import CharTokenizer, TextData
    from minigrad.models import GPT, GPTConfig
    from minigrad.models.gpt import ARCHITECTURES
    from minigrad.random import manual_seed

    known = {option.name for option in COMMAND.options}
    options = COMMAND.complete({k: v for k, v in changes.items() if k in known})
    recipe.settle(options)
    recipe.grow(options, readings)
    options.parts, options.jit = 1, jit
    fields = {field.name for field in dataclasses.fields(GPTConfig)}
    muon = {k.partition(".")[2]: v for k, v in changes.items() if k.startswith("muon.")}
    recipe.OPTIMIZERS["muon"].settings.update(muon)
    recipe.ADAMW_OF_MUON = changes.get("adamw", recipe.ADAMW_OF_MUON)
    if unknown := changes.keys() - known - fields - {"adamw", *(f"muon.{name}" for name in muon)}:
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
    made = {r["seed"] for r in results if r.get("changes") == changes}
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
    base = [r["val_loss"] for r in results if r.get("changes") == {}]
    for name, changes in rows.items():
        found = [r for r in results if r.get("changes") == changes]
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


def command(root: Path, seed: int) -> dict[str, Any]:
    """Run `minigrad train` of a checkout, with evaluations, compiling and sample: the last
    validation loss, and the processor's time.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", "--seed", str(seed), "--out", f"{folder}/run"]
        env = {**os.environ, **THREADS, "PYTHONPATH": str(root)}
        call = [sys.executable, "-m", "minigrad", *words]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(call, cwd=folder, env=env, check=True, stdout=sys.stderr)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        last = Path(folder, "run", "metrics.jsonl").read_text().splitlines()[-1]
    cpu = sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))
    report = json.loads(last)
    return {"val_loss": report["val_loss"], "cpu_s": round(cpu, 1), "steps": report["step"]}


def table_of_commands(results: list[dict[str, Any]]) -> list[str]:
    """The whole command of two versions."""
    lines = ["| | steps | validation loss | spread | range | seeds | seconds of the processor |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name in ("former", "default"):
        found = [r for r in results if r.get("command") == name]
        if not found:
            return []
        losses, seconds = ([r[key] for r in found] for key in ("val_loss", "cpu_s"))
        spread = f"{statistics.stdev(losses):.3f}" if len(losses) > 1 else "-"
        lines.append(
            f"| {name} | {found[0]['steps']:,} | {statistics.mean(losses):.3f} | "
            f"{spread} | {min(losses):.3f} .. {max(losses):.3f} | "
            f"{len(found)} | {statistics.median(seconds):.1f} |"
        )
    return ["### The whole command", "", *lines, ""]


def compete(changes: dict[str, Any], seed: int, text: str | None) -> dict[str, Any]:
    """Run in a process of its own."""
    call = [sys.executable, __file__, "--run", json.dumps({**changes, "seed": seed})]
    done = subprocess.run(
        [*call, *(["--text", text] if text else [])],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **THREADS, "PYTHONPATH": str(ROOT)},
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert math.isfinite(answer["val_loss"])
    return answer


def variants(options: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    """Make the runs of the tables that are wanted and missing."""
    common = {k: json.loads(v) for k, _, v in (pair.partition("=") for pair in options.set)}
    words = [word.strip().lower() for word in options.only.split(",") if word.strip()]
    for title, rows in TABLES.items():
        for name, row in rows.items():
            changes, results = {**common, **row}, read(options.results)
            wanted = not words or any(word in f"{title} {name}".lower() for word in words)
            if wanted and seed in missing(results, changes, options.seeds):
                answer = compete(changes, seed, options.text)
                yield {"changes": changes, "seed": seed, "name": name, **answer}


def commands(options: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    """Make the runs of the whole command that are missing, of the other version and of this."""
    for name, root in (("former", options.former.resolve()), ("default", ROOT)):
        made = [r for r in read(options.results) if r.get("command") == name]
        if seed not in {r["seed"] for r in made}:
            yield {"command": name, "seed": seed, **command(root, seed)}


def main() -> None:
    """Parse, make the runs that are missing, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="runs of each variant")
    parser.add_argument("--only", default="", help="words in names of tables or rows, with commas")
    parser.add_argument("--text", help="a UTF-8 text file (default: Python's documentation)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON", help="for all")
    parser.add_argument("--former", type=Path, metavar="DIR", help="a checkout of another version")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/recipe.md")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        return print(json.dumps(run(json.loads(options.run), options.text)))
    for seed in range(options.seeds):
        for line in commands(options, seed) if options.former else variants(options, seed):
            print(json.dumps(line), flush=True)
            with options.results.open("a") as file:
                file.write(json.dumps(line) + "\n")
    results = read(options.results)
    lines = [line for title in TABLES for line in table(results, title)]
    lines = table_of_commands(results) + lines
    print("\n".join(lines))
    if options.write:
        import pages

        page = ROOT / "docs" / "recipe.md"
        page.write_text(pages.replaced(page.read_text(), "recipe", lines))
    return None


if __name__ == "__main__":
    main()
