"""Kill ranks at random moments, and time data parallelism.

    python tools/ranks.py --kills 50 [--seed 0]        # kill one of three ranks, resume, compare
    python tools/ranks.py --recipe 60                  # the default recipe, for 60 steps
    python tools/ranks.py --times [--rounds 5] [--write]     # needs two idle cores; --write puts
                                                       # the figures into docs/distributed.md
    python tools/ranks.py --model                      # print the cost model's table

1. A run of three ranks (dropout on, a checkpoint every 2 steps) loses a random rank to SIGKILL
   after a random time and is resumed, on three ranks or on one, until that has happened so often.
   Each launch must end within 5 seconds of the kill, every checkpoint must validate, and the
   weights at the end must equal, to the bit, those of one process that was never killed.
2. `minigrad train` with its default model and recipe, for a number of steps, as one process and on
   1, 2 and 4 ranks; and on 4 ranks that lose one to SIGKILL, resumed as one process. The SHA-256 of
   the weights must be one and the same.
3. Tokens per second of training at (batch 8, 256 tokens, 6 layers, 6 heads, 384 wide), with the
   same global batch: one rank with one thread, two ranks with one thread each, one process with
   two threads. The medians of `--rounds` launches that take turns, and the time that a rank
   spends in sums over ranks.

Both need mpi4py and an MPI: pip install 'minigrad[mpi]' mpich.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = "It was the best of times, it was the worst of times; " * 40 + "and so on.\n"
SMALL = """--n-layer 1 --n-head 2 --n-embd 16 --block-size 16 --batch-size 6 --dropout 0.2
    --eval-interval 50 --save-interval 2 --sample 0 --seed 5 --parts 3"""
LIMIT = 5.0  # seconds from the death of a rank to the end of the launch


def launcher() -> tuple[list[str], dict[str, str]]:
    """The command and the environment that start ranks: PyPI's mpich if there is one, else the
    `mpiexec` on PATH. Raises FileNotFoundError where there is none.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found: dict[str, Path] = {}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("mpich") or ():
            found[file.name] = Path(str(file.locate())).resolve()
    if "libmpi.so.12" in found:
        environment["MPI4PY_LIBMPI"] = str(found["libmpi.so.12"])
    mpiexec = str(found["mpiexec"]) if "mpiexec" in found else shutil.which("mpiexec")
    if mpiexec is None or importlib.util.find_spec("mpi4py") is None:
        raise FileNotFoundError("mpiexec and mpi4py: pip install mpi4py mpich")
    return [mpiexec], environment


def rank_processes(launcher_pid: int) -> dict[int, int]:
    """rank -> process id, of the ranks below a launcher (Linux, MPICH)."""
    parents, ranks = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rsplit(")")[-1].split()[1]
            )
    for pid in parents:
        above = pid
        while above in parents and above != launcher_pid:
            above = parents[above]
        with contextlib.suppress(OSError, ValueError, IndexError):
            entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            said = next((x for x in entries if x.startswith(b"PMI_RANK=")), b"")
            if above == launcher_pid and pid != launcher_pid:
                ranks[int(said[9:])] = pid
    return ranks


def train(ranks: int, *arguments: str) -> list[str]:
    """The command for `minigrad train` on some ranks; 0 for a process without a launcher."""
    start = [*launcher()[0], "-n", str(ranks)] if ranks else []
    return [*start, sys.executable, "-m", "minigrad", "train", *arguments]


def weights(folder: Path) -> str:
    """The SHA-256 of the weights of a run's model."""
    from minigrad.files import load

    arrays = load(folder / "model.mgrd")
    return hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()


# --- 1: kills


def kill_ranks(kills: int, seed: int) -> None:
    """Kill one rank of three that often, and resume."""
    from minigrad.files import load_checkpoint

    rng, environment = random.Random(seed), launcher()[1]
    done, longest, ends = 0, 0.0, []
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        (home / "text.txt").write_text(TEXT)
        new = ["--text", "text.txt", *SMALL.split(), "--steps", "1000"]
        run = {"cwd": home, "env": environment}
        whole = train(0, *new, "--out", "whole")
        subprocess.run(whole, check=True, stdout=subprocess.DEVNULL, **run)
        arguments, finished = [*new, "--out", "killed"], False
        while not finished:
            ranks = 3 if done < kills else rng.choice((0, 3))
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            process = subprocess.Popen(train(ranks, *arguments), **quiet, **run)
            if done < kills:
                time.sleep(rng.uniform(0.5, 4.0))
                victims = rank_processes(process.pid)
                if victims:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victims[rng.choice(sorted(victims))], signal.SIGKILL)
                        done += 1
                start = time.monotonic()
                process.wait(timeout=600)
                if victims:
                    ends.append(time.monotonic() - start)
                    longest = max(ends)
                    print(f"kill {done}: the launch ended after {ends[-1]:.2f} s", flush=True)
                    assert longest < LIMIT, f"a launch went on for {longest:.1f} s"
                for path in (home / "killed" / "checkpoints").glob("step-*.mgrd"):
                    load_checkpoint(path)
            finished = process.wait(timeout=600) == 0
            saved = list((home / "killed" / "checkpoints").glob("step-*.mgrd"))
            arguments = (
                ["--resume", "killed"] if saved else [*new, "--out", "killed", "--overwrite"]
            )
            if finished and done < kills:  # this run is over: once more from the start
                assert weights(home / "killed") == weights(home / "whole")
                shutil.rmtree(home / "killed")
                arguments, finished = [*new, "--out", "killed"], False
        assert weights(home / "killed") == weights(home / "whole")
    median = statistics.median(ends) if ends else 0.0
    print(
        f"{done} kills: launches ended within {longest:.2f} s (median {median:.2f}), same weights"
    )


# --- 2: the default recipe


def compare_recipe(steps: int) -> None:
    """Train the default model on different numbers of ranks; print and compare the weights."""
    environment, found = launcher()[1], {}
    with tempfile.TemporaryDirectory() as place:
        run = {"cwd": place, "env": environment, "stdout": subprocess.DEVNULL}
        new = ["--steps", str(steps), "--parts", "4", "--sample", "0", "--save-interval", "5"]
        for ranks in (0, 1, 2, 4):
            out = ["--out", f"on-{ranks}"]
            subprocess.run(train(ranks, *new, *out), check=True, **run)
            found[f"{ranks} ranks" if ranks else "1 process"] = weights(Path(place, out[1]))
        process = subprocess.Popen(
            train(4, *new, "--out", "killed"), **run, stderr=subprocess.DEVNULL
        )
        folder = Path(place, "killed", "checkpoints")
        while len(list(folder.glob("step-*.mgrd"))) < 2:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        os.kill(rank_processes(process.pid)[2], signal.SIGKILL)
        assert process.wait(timeout=60) != 0
        subprocess.run(train(0, "--resume", "killed"), check=True, **run)
        found["4 ranks, one killed, resumed as 1 process"] = weights(Path(place, "killed"))
    for name, digest in found.items():
        print(f"{digest[:16]}  {name}")
    assert len({*found.values()}) == 1, "the weights differ"


# --- 3: times

POINTS = {
    "1 rank of 1 thread": (1, 1),
    "2 ranks of 1 thread": (2, 1),
    "1 process of 2 threads": (0, 2),
}


def worker(steps: int) -> None:
    """One launch: print the tokens per second and the share of the time in sums, from rank 0."""
    import numpy as np

    import minigrad
    from minigrad import distributed
    from minigrad.data import TextData
    from minigrad.models import GPT, GPTConfig
    from minigrad.optim import AdamW
    from minigrad.train import Trainer

    minigrad.manual_seed(0)
    tokens = np.random.default_rng(0).integers(0, 65, 20_000).astype(np.int32)
    data = TextData(tokens, block_size=256, batch_size=8)
    model = GPT(GPTConfig.gpt2(vocab_size=65, block_size=256, n_layer=6, n_head=6, n_embd=384))
    trainer = Trainer(model, AdamW(model.parameters(), lr=1e-3), data, steps=steps + 2, parts=2)
    distributed.share_cores()
    trainer.prepare()
    model.train()
    inner, spent = distributed.sum_arrays, [0.0]

    def timed(arrays):
        start = time.perf_counter()
        try:
            return inner(arrays)
        finally:
            spent[0] += time.perf_counter() - start

    distributed.sum_arrays = timed
    for _ in range(2):
        trainer.train_step()
    spent[0], seconds = 0.0, []
    for _ in range(steps):
        start = time.perf_counter()
        trainer.train_step()
        seconds.append(time.perf_counter() - start)
    if distributed.is_first():
        found = {"tokens/s": 8 * 256 / statistics.median(seconds), "share": spent[0] / sum(seconds)}
        print(json.dumps(found), flush=True)


def measure(rounds: int, steps: int, write: bool) -> None:
    """Print the medians and the two ratios."""
    import pages

    found: dict[str, list[dict[str, float]]] = {name: [] for name in POINTS}
    for _ in range(rounds):
        for name, (ranks, threads) in POINTS.items():
            start, environment = launcher()
            environment |= dict.fromkeys(("MINIGRAD_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
            command = [*start, "-n", str(ranks)] if ranks else []
            command += [sys.executable, __file__, "--worker", str(steps)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    lines, speed = (
        [],
        {name: statistics.median(x["tokens/s"] for x in runs) for name, runs in found.items()},
    )
    for name, runs in found.items():
        share = statistics.median(x["share"] for x in runs)
        lines.append(f"- {name}: {speed[name]:,.0f} tokens/s, {share:.1%} of it in sums over ranks")
    one, two, threads = speed.values()
    lines += [
        f"- two ranks against one rank of one thread: {two / one:.2f} times (wanted: 1.85)",
        f"- two ranks against one process of two threads: {two / threads:.2f} times (wanted: 0.95)",
        f"- medians of {rounds} launches of {steps} steps; {pages.machine()}",
    ]
    print("\n".join(lines))
    if write:
        page = ROOT / "docs" / "distributed.md"
        old = re.search("<!-- ranks -->.*?<!-- end -->", page.read_text(), flags=re.DOTALL)
        assert old is not None, f"{page} has no section for the figures"
        new = "\n".join(["<!-- ranks -->", *lines, "<!-- end -->"])
        page.write_text(page.read_text().replace(old[0], new))


# --- 4: the cost model

MODELS = {"0.8 M": (0.8e6, 768), "10.7 M": (10.7e6, 2048), "124 M": (124e6, 4096)}
NETWORKS = {
    "10 Gb/s Ethernet": (30e-6, 1.1e9),
    "100 Gb/s InfiniBand": (2e-6, 11e9),
}
FLOPS, ADDED = 200e9, 10e9  # of a rank: operations per second, and bytes per second of additions


def cost(parameters: float, tokens: float, latency: float, bandwidth: float, n: int) -> list[float]:
    """Seconds of computing and of communicating, in a step of n ranks with `tokens` each."""
    buckets = math.ceil(parameters / (1 << 20))
    messages = 2 * math.log2(n) * buckets * latency
    sent = 2 * (1 - 1 / n) * 4 * parameters / bandwidth
    return [
        6 * parameters * tokens / FLOPS,
        messages + sent + (1 - 1 / n) * 12 * parameters / ADDED,
    ]


def print_model() -> None:
    """Print the table of docs/distributed.md: milliseconds, and the share of the step."""
    sizes = (2, 4, 8, 32, 128, 1024)
    print("| network, parameters (tokens per rank) | step |" + "".join(f" {n} |" for n in sizes))
    print("|---" * (len(sizes) + 2) + "|")
    for network, facts in NETWORKS.items():
        for model, (parameters, tokens) in MODELS.items():
            found = [cost(parameters, tokens, *facts, n) for n in sizes]
            row = [f"{b * 1e3:.1f} ms, {b / (a + b):.0%}" for a, b in found]
            step = f"{found[0][0] * 1e3:,.0f} ms"
            print(f"| {network}, {model} ({tokens:,}) | {step} | " + " | ".join(row) + " |")


def main() -> None:
    """Run from the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=0, help="how many ranks to kill (default 0)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--recipe", type=int, default=0, help="steps of the default recipe")
    parser.add_argument("--times", action="store_true", help="measure the three points")
    parser.add_argument("--rounds", type=int, default=5, help="launches per point (default 5)")
    parser.add_argument("--steps", type=int, default=8, help="steps per launch (default 8)")
    parser.add_argument("--write", action="store_true", help="put the times into the page")
    parser.add_argument("--model", action="store_true", help="print the cost model's table")
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
    if options.kills:
        kill_ranks(options.kills, options.seed)
    if options.recipe:
        compare_recipe(options.recipe)
    if options.times:
        measure(options.rounds, options.steps, options.write)
    if options.model:
        print_model()


if __name__ == "__main__":
    main()
