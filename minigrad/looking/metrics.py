"""What a run wrote down: `metrics.jsonl`, a JSON object per line, as columns.

    {"step": 10, "time": 1700000000.0, "seconds": 1.5, "loss": 2.5, "lr": 0.001, "grad_norm": 1.0,
    "tokens_per_second": 9000.0} {"step": 20, ..., "val_loss": 2.4}

Reading does not disturb a run that is still being written: a torn last line is left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import ConfigError, DataError

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Run:
    """The records of one run. A record is a dict with a "step", of rising steps; other values are
    floats.
    """

    name: str
    folder: Path
    records: list[dict[str, float]]

    def column(self, name: str) -> tuple[Array, Array]:
        """The steps that have a value of this name, int64, and the values, float64; empty where
        there is none.
        """
        pairs = [(int(record["step"]), record[name]) for record in self.records if name in record]
        steps, values = zip(*pairs, strict=True) if pairs else ((), ())
        return np.array(steps, np.int64), np.array(values, np.float64)

    def columns(self) -> list[str]:
        """The names of the values that it has, in the order of their first coming, without "step"."""
        return [
            name
            for name in dict.fromkeys(key for record in self.records for key in record)
            if name != "step"
        ]


def read_run(folder: str | os.PathLike[str], name: str | None = None) -> Run:
    """Read `metrics.jsonl` of a run's folder. A step that comes again, as after a resume, replaces
    what was written from that step on.

    name: what to call the run; the folder's own name unless given. A last line without its end is
        left out if it is torn. Raises ConfigError if
    the folder has no such file, DataError with file and line for anything else that is not a
    record.
    """
    path = Path(folder, METRICS)
    if not path.is_file():
        raise ConfigError(
            "read_run",
            f"{folder} holds no {METRICS}",
            got=str(folder),
            wanted=METRICS,
            hint="minigrad train writes one in the folder of the run",
        )
    lines = path.read_bytes().split(b"\n")
    records: list[dict[str, float]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = _record(line)
        except ValueError as error:
            if number == len(lines):
                # Being written just now, or cut off by a crash: there is no line end behind it
                break
            raise DataError(
                "read_run",
                f"{path}, line {number}: {error}",
                got=line[:200],
                wanted='{"step": 1, "loss": 2.5, ...}',
                hint="remove the line to read the others",
            ) from None
        while records and records[-1]["step"] >= record["step"]:
            records.pop()
        records.append(record)
    return Run(Path(folder).resolve().name if name is None else name, Path(folder), records)


def _record(line: bytes) -> dict[str, float]:
    """The line's object. Raises ValueError with what is wrong with it."""
    try:
        value: Any = json.loads(line)
    except ValueError:
        raise ValueError("this is no JSON") from None
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__} where an object is wanted")
    if type(value.get("step")) is not int:
        raise ValueError(f"step is {value.get('step')!r}, no whole number")
    for name, number in value.items():
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise ValueError(f"{name} is {number!r}, no number")
    return {name: number for name, number in value.items() if number is not None}


def find_runs(places: Sequence[str | os.PathLike[str]]) -> list[Run]:
    """The runs in these folders: each is a run's own folder, or holds such folders at any depth.
    Names tell them apart.

    Raises ConfigError for a place that is no folder or in which there is no run, and what
    `read_run` raises.
    """
    folders: dict[Path, None] = {}
    for place in map(Path, places):
        if not place.is_dir():
            raise ConfigError(
                "find_runs",
                f"{place} is not a folder",
                got=str(place),
                wanted="the folder of a run, or one that holds several",
            )
        inside = (
            [place]
            if (place / METRICS).is_file()
            else sorted(path.parent for path in place.rglob(METRICS))
        )
        if not inside:
            raise ConfigError(
                "find_runs",
                f"{place} holds no {METRICS}, and no folder in it does",
                got=str(place),
                wanted=METRICS,
                hint="minigrad train writes one in the folder of the run",
            )
        folders.update(dict.fromkeys(path.resolve() for path in inside))
    return [
        read_run(folder, name) for folder, name in zip(folders, _names(list(folders)), strict=True)
    ]


def _names(folders: list[Path]) -> list[str]:
    """The end of each path that is long enough to tell the folders apart: "gpt", or "a/gpt" and
    "b/gpt".
    """
    for depth in range(1, max(len(folder.parts) for folder in folders)):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def summary(runs: Sequence[Run]) -> str:
    """A table, a row per run: steps, last loss, best validation loss and its step, tokens/s
    (median), time.
    """
    rows = [("run", "steps", "loss", "best val", "at step", "tokens/s", "time")]
    for run in runs:
        steps, losses = run.column("loss")
        val_steps, val = run.column("val_loss")
        best = int(np.nanargmin(val)) if len(val) and not np.isnan(val).all() else None
        speed, seconds = run.column("tokens_per_second")[1], run.column("seconds")[1]
        rows.append(
            (
                run.name,
                f"{int(run.records[-1]['step']):,}" if run.records else "0",
                f"{losses[-1]:.4f}" if len(steps) else "-",
                "-" if best is None else f"{val[best]:.4f}",
                "-" if best is None else f"{val_steps[best]:,}",
                f"{np.median(speed):,.0f}" if len(speed) else "-",
                clock(float(seconds[-1])) if len(seconds) else "-",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    )


def clock(seconds: float) -> str:
    """Seconds as people say them: 12.5 s, 3:05, 1:02:03."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
