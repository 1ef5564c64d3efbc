"""TensorBoard's event files, written by tensorboardX."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.errors import needs
from minigrad.tensor import Tensor
from minigrad.viz.metrics import Run

_TAGS = {"loss": "loss/train", "val_loss": "loss/validation"}  # one group; others have their own
_EXPORTED = ".metrics"
_NOT_DRAWN = {"step", "time", "seconds_left", "steps"}


class EventWriter:
    """Writes an event file that `tensorboard --logdir FOLDER` shows.

        with EventWriter("logs/run-1") as events:
            events.add_scalar("loss/train", 2.5, step=10)

    It is a callback for a Trainer too: called with a report, it writes the report's numbers.
    `writer` is the SummaryWriter of tensorboardX, which can do more. suffix: the end of the file's
    name. Raises MissingDependencyError where tensorboardX is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str], *, suffix: str = "") -> None:
        with needs("EventWriter", "events need tensorboardX", "'minigrad[tensorboard]'"):
            from tensorboardX import SummaryWriter
        self.writer = SummaryWriter(str(folder), filename_suffix=suffix)

    def add_scalar(self, tag: str, value: float, step: int, wall_time: float | None = None) -> None:
        """Add a point to the curve `tag`. wall_time: Unix seconds, by default now."""
        self.writer.add_scalar(tag, float(value), step, wall_time)

    def add_text(self, tag: str, text: str, step: int = 0) -> None:
        """Add a text, which TensorBoard shows as Markdown."""
        self.writer.add_text(tag, text, step)

    def add_histogram(self, tag: str, values: Any, step: int) -> None:
        """Add the distribution of a Tensor's or an array's values; NaN and infinity are skipped."""
        array = np.asarray(values.numpy() if isinstance(values, Tensor) else values, np.float64)
        self.writer.add_histogram(tag, array[np.isfinite(array)], step)

    def __call__(self, report: Any) -> None:
        """Write the numbers of a report, or of a record of metrics.jsonl."""
        facts: Mapping[str, Any] = report if isinstance(report, Mapping) else vars(report)
        for name in facts.keys() - _NOT_DRAWN:
            if facts[name] is not None:
                tag = _TAGS.get(name, name)
                self.add_scalar(tag, facts[name], int(facts["step"]), facts.get("time"))

    def close(self) -> None:
        """Write what is pending and close the file."""
        self.writer.close()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def export_runs(runs: Sequence[Run], folder: str | os.PathLike[str]) -> list[Path]:
    """Write the numbers of each run to an event file in a folder of its name; return the folders.
    The file of an earlier export is replaced.
    """
    written = [Path(folder, *run.name.split("/")) for run in runs]
    for run, place in zip(runs, written, strict=True):
        for old in place.glob(f"*{_EXPORTED}"):
            old.unlink()
        with EventWriter(place, suffix=_EXPORTED) as events:
            for record in run.records:
                events(record)
    return written
