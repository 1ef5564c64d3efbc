"""How soon a validation loss is reached, and how low it gets in one and in five minutes: minigrad's
recipe and its GPT-2 recipe, and the same two in PyTorch where it is installed.

    python tools/speedrun.py --seeds 5 --write
    python tools/speedrun.py --seeds 2 --frameworks minigrad --minutes "" --first 500   # small
    python tools/speedrun.py --seeds 3 --frameworks minigrad --minutes 1 --target 0     # 7 minutes
    python tools/speedrun.py --matmul float32,bfloat16 --steps 481 --minutes 1,5        # with both

The text is tinyshakespeare, ../shared/data/tinyshakespeare.txt unless given. Both frameworks begin
with the same weights and see the same batches and learning rates; minigrad's step is compiled,
PyTorch's forward and backward pass with --torch-compile. Each run is a process of its own; the
contenders take turns. Time is that of the training steps alone, without compiling and evaluating.

Every run is kept, a line of JSON in --results, and one that is there for this processor is not made
again: a call may be stopped, and several short ones fill the tables, which have all that is kept.
After a change of the recipe, remove its lines.

The GPT-2 recipe is nanoGPT's for a CPU, 2,000 steps. For the other recipe the tool first looks for
the shortest run that reaches the loss, with one seed and two layers: the rate ends at 0, so a
run of each length is a run of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pages
from bench import machine, others_use
from recipe import GPT2, ROOT, read, trainer_of

TEXT = ROOT.parent / "shared" / "data" / "tinyshakespeare.txt"
RESULTS = ROOT / "docs" / "speedrun.jsonl"
RECIPES: dict[str, dict[str, Any]] = {"recipe": {}, "GPT-2 recipe": GPT2}
FEW_STEPS = {"n_layer": 2}  # two layers with more steps are better there, see docs/recipe.md
Step = Callable[[Any, Any], float]
Losses = Callable[[Any, Any], float]


def minigrad(trainer: Any) -> tuple[Step, Losses]:
    """The compiled steps of the Trainer."""
    trainer.prepare()
    return lambda x, y: trainer.train_step()[0], lambda x, y: float(trainer.engine.loss(x, y))


def pytorch(trainer: Any, compiled: bool) -> tuple[Step, Losses]:
    """The same model and optimizers in PyTorch, from the Trainer's weights and with its rates."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    w = {
        name: torch.nn.Parameter(torch.from_numpy(p.numpy().copy()))
        for name, p in trainer.model.named_parameters()
    }
    optimizers, pairs = [], []
    for group in trainer.optimizer.param_groups:
        kind = getattr(torch.optim, type(group.owner).__name__)
        keys = {"lr", "weight_decay", "betas", "eps", "momentum", "nesterov", "ns_steps"}
        settings = {k: group[k] for k in keys & set(group)}
        settings |= {"fused": True} if kind is torch.optim.AdamW else {}
        optimizers.append(kind([w[names[id(p)]] for p in group["params"]], **settings))
        pairs.append((group, optimizers[-1]))
    trainer.model.train()
    loss_of = torch_loss(torch, trainer.model.config, w)
    function = torch.compile(loss_of) if compiled else loss_of

    def step(x: Any, y: Any) -> float:
        for group, optimizer in pairs:
            optimizer.param_groups[0]["lr"] = group["lr"]
            optimizer.zero_grad(set_to_none=True)
        loss = function(torch.from_numpy(x), torch.from_numpy(y))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(w.values(), trainer.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
        trainer.schedule.step()
        return float(loss.detach())

    def losses(x: Any, y: Any) -> float:
        with torch.no_grad():
            return float(loss_of(torch.from_numpy(x), torch.from_numpy(y)))

    return step, losses


def torch_loss(torch: Any, config: Any, w: dict[str, Any]) -> Callable[[Any, Any], Any]:
    """The loss of a GPT of this config and these weights, written with torch's functions."""
    F, C, D = torch.nn.functional, config.n_embd, config.n_embd // config.n_head
    angles = torch.outer(
        torch.arange(config.block_size), 10000.0 ** (-torch.arange(0, D, 2).double() / D)
    )
    cos, sin = angles.cos().float(), angles.sin().float()

    def norm(x: Any, name: str) -> Any:
        if config.norm == "rms":
            return F.rms_norm(x, (C,), w[name + ".weight"], 1e-6)
        return F.layer_norm(x, (C,), w[name + ".weight"], w.get(name + ".bias"))

    def linear(x: Any, name: str) -> Any:
        return F.linear(x, w[name + ".weight"], w.get(name + ".bias"))

    def turned(x: Any) -> Any:
        T, (a, b) = x.shape[2], x.chunk(2, -1)
        return torch.cat((a * cos[:T] - b * sin[:T], b * cos[:T] + a * sin[:T]), -1)

    def attention(x: Any, p: str) -> Any:
        qkv = F.linear(x, w[p + "in_proj_weight"], w.get(p + "in_proj_bias"))
        q, k, v = (t.unflatten(2, (-1, D)).transpose(1, 2) for t in qkv.split(C, 2))
        if config.qk_norm:
            q = F.rms_norm(q, (D,), w[p + "q_norm.weight"], 1e-6)
            k = F.rms_norm(k, (D,), w[p + "k_norm.weight"], 1e-6)
        if config.positions == "rotary":
            q, k = turned(q), turned(k)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return linear(y.transpose(1, 2).flatten(2), p + "out_proj")

    def mlp(x: Any, p: str) -> Any:
        if config.mlp == "swiglu":
            x = F.silu(linear(x, p + "gate_proj")) * linear(x, p + "up_proj")
            return linear(x, p + "down_proj")
        x = linear(x, p + "c_fc")
        x = F.gelu(x, approximate="tanh") if config.mlp == "gelu" else F.relu(x).square()
        return linear(x, p + "c_proj")

    def loss(x: Any, y: Any) -> Any:
        h = w["wte.weight"][x]
        if config.positions == "learned":
            h = h + w["wpe.weight"][: x.shape[1]]
        for i in range(config.n_layer):
            h = h + attention(norm(h, f"h.{i}.ln_1"), f"h.{i}.attn.")
            h = h + mlp(norm(h, f"h.{i}.ln_2"), f"h.{i}.mlp.")
        logits = F.linear(norm(h, "ln_f"), w["wte.weight"])
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())

    return loss


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Train for a number of steps, or for as many as fit into `budget` seconds, with a larger model
    where `minigrad train --minutes` takes one.
    """
    text, readings = Path(job["text"]).read_text(encoding="utf-8"), 0.0

    def contender(steps: int) -> tuple[Any, Step, Losses]:
        changes = {**job["changes"], "seed": job["seed"], "steps": steps}
        trainer = trainer_of(changes, text, readings=readings)
        made = minigrad(trainer) if job["framework"] == "minigrad" else None
        return trainer, *(made or pytorch(trainer, job["compiled"]))

    def timed(steps: int, take: int) -> tuple[Any, Losses, list[float]]:
        trainer, step, losses = contender(steps)
        seconds = []
        for n in range(take):
            x, y = (np.ascontiguousarray(a, np.int64) for a in trainer.data.batch(n))
            began = time.perf_counter()
            step(x, y)
            seconds.append(time.perf_counter() - began)
        return trainer, losses, seconds

    steps = job["steps"]
    for _ in range(2 if job["budget"] else 0):
        trainer, _, seconds = timed(1000, job["warmup"])
        steps = max(int(job["budget"] / statistics.median(seconds[len(seconds) // 3 :])), 1)
        seen = steps * trainer.data.batch(0)[0].size / len(trainer.data.train)
        readings = readings or seen  # by the default size
    trainer, losses, seconds = timed(steps, steps)
    trainer.model.eval()
    total = count = 0.0
    for x, y in trainer.data.validation():
        total += losses(x.astype(np.int64), y.astype(np.int64)) * y.size
        count += y.size
    return {"steps": steps, "seconds": sum(seconds), "val_loss": total / count}


def compete(options: argparse.Namespace, **job: Any) -> dict[str, Any] | None:
    """Run in a process of its own, unless that was done before; None if the framework is not
    installed, or has no such products.
    """
    job = {"compiled": options.torch_compile, "steps": 0, "budget": 0, **job}
    if job["framework"] != "minigrad" and "matmul" in job["changes"]:
        return None
    job |= {"text": options.text.name, "processor": processor()}
    for line in read(options.results):
        if job.items() <= line.items():
            return line
    paths = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    words = json.dumps({**job, "text": str(options.text), "warmup": options.warmup})
    done = subprocess.run(
        [sys.executable, __file__, "--run", words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    if done.returncode:
        return None
    line = {**job, "answer": json.loads(done.stdout.splitlines()[-1])}
    print(f"  {job['framework']}, {job['name']}, seed {job['seed']}: {line['answer']}", flush=True)
    with options.results.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return line


def processor() -> str:
    """The processor, the threads and BLAS's kernels, which tell its vector registers where the name
    does not: a time is only compared with others of these.
    """
    from minigrad.compiler import environment

    return (
        f"{machine(os.cpu_count() or 1).partition(';')[0]}, {environment()['BLAS'].split(' (')[0]}"
    )


def shortest(options: argparse.Namespace) -> int:
    """The steps of the shortest run of minigrad's recipe that reaches the loss, to a tenth."""
    steps = options.first
    while steps < options.gpt2_steps:
        found = compete(
            options, framework="minigrad", name="recipe", seed=0, steps=steps, changes=FEW_STEPS
        )
        if found and found["answer"]["val_loss"] <= options.target:
            break
        steps = max(steps + 1, steps * 11 // 10)
    return steps


def race(options: argparse.Namespace, title: str, jobs: dict[str, dict[str, Any]]) -> list[str]:
    """All contenders, in turn, once with each seed; a table of the medians and ranges of all runs
    that are kept.
    """
    for seed in range(options.seeds):
        for framework in options.frameworks.split(","):
            for name, job in jobs.items():
                compete(options, framework=framework, name=name, seed=seed, **job)
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    facts = {"processor": processor(), "text": options.text.name, "compiled": options.torch_compile}
    for line in read(options.results):
        job = facts | {"steps": 0, "budget": 0, **jobs.get(line["name"], {"name": ""})}
        if job.items() <= line.items():
            found[f"{line['framework']}, {line['name']}"].append(line["answer"])
    slowest = max(statistics.median(r["seconds"] for r in rows) for rows in found.values())
    lines = [f"### {title}", "", "| | runs | steps | seconds | of the slowest | validation loss |"]
    lines += ["|---|---|---|---|---|---|"]
    for name, rows in sorted(found.items()):
        steps = statistics.median_low(r["steps"] for r in rows)
        seconds, losses = ([r[key] for r in rows] for key in ("seconds", "val_loss"))
        middle = statistics.median(seconds)
        lines.append(
            f"| {name} | {len(rows)} | {steps:,} | {middle:.1f} ({min(seconds):.1f} .. "
            f"{max(seconds):.1f}) | {middle / slowest:.0%} | {statistics.mean(losses):.3f} "
            f"({min(losses):.3f} .. {max(losses):.3f}) |"
        )
    return [*lines, ""]


def show(options: argparse.Namespace, section: str, title: str, tables: list[str]) -> None:
    """Print tables and what was measured where, and write them into their section of the page."""
    lines = [
        f"## {title}",
        "",
        f"`tools/speedrun.py`, {options.text.name}, characters, in turn; seconds are medians of "
        "the training steps alone, losses means, with ranges. PyTorch "
        f"{'by torch.compile' if options.torch_compile else 'eager'}. Its Muon orthogonalises in "
        "bfloat16, in the recipe, which is slow on a CPU that has no instructions for it.",
        "",
        *tables,
        *machine(os.cpu_count() or 1).splitlines(),
    ]
    print("\n".join(lines))
    if options.write:
        pages.PERFORMANCE.write(section, lines)


def contenders(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The recipes by name, with each of the products that are wanted."""
    return {
        name if matmul == "float32" else f"{name}, {matmul} products": {**changes, **product}
        for matmul in options.matmul.split(",")
        for product in [{} if matmul == "float32" else {"matmul": matmul}]
        for name, changes in RECIPES.items()
    }


def main() -> None:
    """Parse, refuse a busy machine, race, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, default=TEXT, help="a UTF-8 text file")
    parser.add_argument("--target", type=float, default=1.78, help="the loss to reach; 0: none")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each contender")
    parser.add_argument("--frameworks", default="minigrad,PyTorch", help="those to compare")
    parser.add_argument("--matmul", default="float32", help="products: float32,bfloat16")
    parser.add_argument("--gpt2-steps", type=int, default=2000)
    parser.add_argument("--first", type=int, default=300, help="steps to begin the search with")
    parser.add_argument("--steps", type=int, help="steps of the recipe, instead of a search")
    parser.add_argument("--minutes", default="1,5", help="budgets for the lowest loss, if any")
    parser.add_argument("--warmup", type=int, default=30, help="steps that measure the speed")
    parser.add_argument("--torch-compile", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS, help="a line for each run")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too")
    parser.add_argument("--write", action="store_true", help="write into docs/performance.md")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        return print(json.dumps(run(json.loads(options.run))))
    if not options.text.exists():
        return print(f"skipped: there is no {options.text}; name a text with --text")
    if others_use() > 0.05 and not options.force:
        raise SystemExit("the machine is busy: wait, or --force")
    lines: list[str] = []
    if options.target:
        steps = options.steps or shortest(options)
        jobs = {
            name: {"changes": c, "steps": options.gpt2_steps}
            if "arch" in c
            else {"changes": FEW_STEPS | c, "steps": steps}
            for name, c in contenders(options).items()
        }
        lines = race(options, f"A validation loss of {options.target:g}", jobs)
        show(options, "speedrun", "Time to quality", lines)
    lines = []
    for minutes in map(float, filter(None, options.minutes.split(","))):
        jobs = {n: {"changes": c, "budget": 60 * minutes} for n, c in contenders(options).items()}
        lines += race(options, f"The loss after {minutes:g} min of steps", jobs)
    if lines:
        show(options, "speedrun_minutes", "Quality for time", lines)
    return None


if __name__ == "__main__":
    main()
