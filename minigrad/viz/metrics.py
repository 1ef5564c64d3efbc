"""What a run wrote: `metrics.jsonl`, a JSON object per line, as columns.

    {"step": 10, "time": 1700000000.0, "seconds": 1.5, "loss": 2.5, "lr": 0.001, ...}
    {"step": 20, ..., "val_loss": 2.4}

A run can be read while it is being written: an incomplete last line is skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.columns import columns
from minigrad.dtypes import Array
from minigrad.errors import ConfigError, DataError

METRICS = "metrics.jsonl"
_HINT = "train first: minigrad train --out DIR writes one"


@dataclass(frozen=True)
class Run:
    """The records of one run: dicts of numbers, each with a "step", in rising order of steps."""

    name: str
    folder: Path
    records: list[dict[str, float]]

    def column(self, name: str) -> tuple[Array, Array]:
        """Return the steps that have this value (int64) and the values (float64)."""
        pairs = [(int(record["step"]), record[name]) for record in self.records if name in record]
        steps, values = zip(*pairs, strict=True) if pairs else ((), ())
        return np.array(steps, np.int64), np.array(values, np.float64)

    def columns(self) -> list[str]:
        """Return the names of the values, in order of their first appearance, without "step"."""
        names = dict.fromkeys(name for record in self.records for name in record)
        return [name for name in names if name != "step"]


def read_run(folder: str | os.PathLike[str], name: str | None = None) -> Run:
    """Read `metrics.jsonl` in a run's folder. A step that comes again, as after a resume, replaces
    everything written from that step on.

    name: what to call the run; by default the folder's own name. Raises ConfigError if the folder
    has no such file, DataError with file and line for a line that is not a record.
    """
    path = Path(folder, METRICS)
    if not path.is_file():
        problem = f"{folder} holds no {METRICS}"
        raise ConfigError("read_run", problem, got=str(folder), wanted=METRICS, hint=_HINT)
    lines = path.read_bytes().split(b"\n")
    records: list[dict[str, float]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = _record(line)
        except ValueError as error:
            if number == len(lines):  # being written, or cut off by a crash: it has no line end
                break
            hint = "remove the line to read the others"
            problem = f"{path}, line {number}: {error}"
            raise DataError("read_run", problem, got=line[:200], hint=hint) from None
        while records and records[-1]["step"] >= record["step"]:
            records.pop()
        records.append(record)
    return Run(Path(folder).resolve().name if name is None else name, Path(folder), records)


def _record(line: bytes) -> dict[str, float]:
    """Return the line's object. Raises ValueError with what is wrong with it."""
    try:
        value: Any = json.loads(line)
    except ValueError:
        raise ValueError("this is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError(f"got a {type(value).__name__}, expected an object")
    if type(value.get("step")) is not int:
        raise ValueError(f"step is {value.get('step')!r}, expected an integer")
    found = {name: number for name, number in value.items() if number is not None}
    for name, number in found.items():
        if type(number) not in (int, float):
            raise ValueError(f"{name} is {number!r}, expected a number")
    return found


def find_runs(places: Sequence[str | os.PathLike[str]]) -> list[Run]:
    """Read the runs in these folders: each is a run's own folder, or holds such folders at any
    depth. A run's name is the end of its path, as long as needed to tell the runs apart.

    Raises ConfigError for a place that is not a folder or holds no run, and what `read_run` raises.
    """
    folders: dict[Path, None] = {}
    for place in map(Path, places):
        own = (place / METRICS).is_file()
        inside = [place] if own else sorted(path.parent for path in place.rglob(METRICS))
        if not inside:
            problem = f"{place} is not a folder" if place.exists() else f"there is no {place}"
            if place.is_dir():
                problem = f"{place} and the folders in it hold no {METRICS}"
            raise ConfigError("find_runs", problem, got=str(place), wanted=METRICS, hint=_HINT)
        folders.update(dict.fromkeys(path.resolve() for path in inside))
    return [read_run(*pair) for pair in zip(folders, _names(list(folders)), strict=True)]


def _names(folders: list[Path]) -> list[str]:
    for depth in range(1, max(len(folder.parts) for folder in folders)):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def summary(runs: Sequence[Run]) -> str:
    """Return a table, a row per run: steps, last loss, best validation loss and its step, median
    tokens/s, time.
    """
    head = ("run", "steps", "loss", "best val", "at step", "tokens/s", "time")
    return "\n".join(columns([head, *map(_row, runs)]))


def _row(run: Run) -> tuple[str, ...]:
    losses, (steps, val) = run.column("loss")[1], run.column("val_loss")
    best = int(np.nanargmin(val)) if not np.isnan(val).all() else None
    speed, seconds = run.column("tokens_per_second")[1], run.column("seconds")[1]
    return (
        run.name,
        f"{int(run.records[-1]['step']):,}" if run.records else "0",
        f"{losses[-1]:.4f}" if len(losses) else "-",
        "-" if best is None else f"{val[best]:.4f}",
        "-" if best is None else f"{steps[best]:,}",
        f"{np.median(speed):,.0f}" if len(speed) else "-",
        clock(float(seconds[-1])) if len(seconds) else "-",
    )


def clock(seconds: float) -> str:
    """Format seconds: 12.5 s, 3:05, 1:02:03."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
