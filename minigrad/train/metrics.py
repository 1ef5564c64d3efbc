"""The facts of every step, and metrics.jsonl, a line of JSON for each, which others can read
during the run.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

from minigrad import distributed


@dataclass(frozen=True)
class Report:
    """The facts of a step. Losses are in nats per token; `val_loss` is None where there was no
    evaluation.
    """

    step: int
    steps: int
    loss: float
    grad_norm: float
    lr: float
    tokens_per_second: float
    seconds_left: float
    val_loss: float | None


class MetricsLog:
    """A callback for a Trainer that appends one line per step to a file, and each at once.

        trainer = Trainer(..., callbacks=[MetricsLog("runs/a/metrics.jsonl")])

    A line: {"step", "time": unix seconds, "seconds": since the run began, "loss", "lr",
        "grad_norm", "tokens_per_second", "val_loss"}, the last only where there was an evaluation
        that gave a finite number.
    after_step: lines of later steps are cut off, with what a killed process has left of a line: a
        run that is resumed writes them again.
    Of several ranks, rank 0 writes.
    """

    def __init__(self, path: str | Path, after_step: int = 0) -> None:
        path = path if distributed.is_first() else os.devnull
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (open until the run ends)
        length, seconds = _good_part(Path(path), after_step)
        if path != os.devnull:
            self._file.truncate(length)
        self._began = time.time() - seconds

    def __call__(self, report: Report) -> None:
        """Append the line of a step."""
        now = time.time()
        line = {"step": report.step, "time": round(now, 3), "seconds": round(now - self._began, 3)}
        line |= {"loss": report.loss, "lr": report.lr, "grad_norm": report.grad_norm}
        line["tokens_per_second"] = round(report.tokens_per_second, 1)
        if report.val_loss is not None and math.isfinite(report.val_loss):
            line["val_loss"] = report.val_loss
        self._file.write(json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _good_part(path: Path, after_step: int) -> tuple[int, float]:
    """The length of the whole lines up to a step, and the seconds in the last of them."""
    length, seconds = 0, 0.0
    with path.open("rb") as file:
        for line in file:
            try:
                facts = json.loads(line)
                if facts["step"] > after_step or not line.endswith(b"\n"):
                    break
                seconds = float(facts["seconds"])
            except (ValueError, TypeError, KeyError):
                break
            length += len(line)
    return length, seconds
