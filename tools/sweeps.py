"""Searches over settings: a grid of 24 short runs, trained to the end, with halving, and with
halving by two workers that are killed.

    python tools/sweeps.py [--halving 3] [--kills 2] [--seed 0]

Exits with 1 unless the killed sweep ends with the study of the undisturbed one, halving takes at
most half of the steps of the full grid, and it finds the same best setting.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna

from minigrad.data import default_text

PLAN = """
out = "out"
halving = {halving}
[train]
text = "text.txt"
steps = 180
warmup = 5
n_layer = 1
n_head = 2
n_embd = 32
block_size = 32
batch_size = 8
[sweep]
lr = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
weight_decay = [0.0, 0.1]
dropout = [0.0, 0.4]
"""


def started(folder: Path, jobs: int) -> subprocess.Popen[bytes]:
    """Start `minigrad sweep` in a folder."""
    line = [sys.executable, "-m", "minigrad", "sweep", "sweep.toml", f"--jobs={jobs}"]
    return subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL)


def made(place: Path, name: str, halving: int) -> Path:
    """Return a new folder with a text and a plan in it."""
    folder = place / name
    folder.mkdir()
    (folder / "text.txt").write_text(default_text()[:100_000], encoding="utf-8")
    (folder / "sweep.toml").write_text(PLAN.format(halving=halving))
    return folder


def study(folder: Path) -> list[tuple[Any, ...]]:
    """Return the trials of a sweep: settings, state, losses by step, value."""
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "out" / "journal.log"))
    found = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
    return [(t.params, t.state.name, t.intermediate_values, t.value) for t in found.trials]


def killed(folder: Path, kills: int, generator: random.Random) -> None:
    """Sweep by two workers, which are killed together, `kills` times."""
    for _ in range(kills):
        workers = [started(folder, 1) for _ in range(2)]
        before = len(list(folder.glob("out/*/checkpoints/*.mgrd")))
        while len(list(folder.glob("out/*/checkpoints/*.mgrd"))) < before + 4:
            time.sleep(0.05)
        time.sleep(generator.random() * 3)
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        print(f"killed two workers, with {len(list(folder.glob('out/*/')))} runs begun", flush=True)
    for worker in [started(folder, 1) for _ in range(2)]:
        assert worker.wait() == 0


def main() -> int:
    """Run the three sweeps and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("halving", 3), ("kills", 2), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as place:
        full, halved, hit = (
            made(Path(place), name, n)
            for name, n in (("full", 1), ("halved", options.halving), ("hit", options.halving))
        )
        for folder in (full, halved):
            assert started(folder, 2).wait() == 0
        killed(hit, options.kills, random.Random(options.seed))
        studies = [study(folder) for folder in (full, halved, hit)]
    steps = [sum(max(at) for _, _, at, _ in trials) for trials in studies[:2]]
    best = [min((v, p) for p, s, _, v in trials if s == "COMPLETE") for trials in studies[:2]]
    for name, taken, (loss, point) in zip(("full grid", "halving"), steps, best, strict=True):
        print(f"{name:10} {taken:6,} steps, best {loss:.4f} with {point}")
    good = {
        "the killed sweep ended with the same study": studies[1] == studies[2],
        f"halving took {steps[1] / steps[0]:.0%} of the steps": steps[1] <= steps[0] / 2,
        "halving found the best setting": best[0] == best[1],
    }
    for fact, holds in good.items():
        print(f"{'yes' if holds else 'NO':4} {fact}")
    return int(not all(good.values()))


if __name__ == "__main__":
    sys.exit(main())
