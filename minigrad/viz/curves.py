"""Curves of runs: what to draw, and how, as a picture or as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import ConfigError
from minigrad.viz.metrics import Run
from minigrad.viz.picture import Picture, plain

USUAL = ("loss", "lr", "grad_norm", "tokens_per_second")
_TITLES = {
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_second": "tokens per second",
    "val_loss": "validation loss",
    "seconds": "seconds since the start",
}
_NOISY = {"loss", "grad_norm", "tokens_per_second"}
_MARKS = "*o+x#@"  # of the runs, in a chart of characters
_FROM_ZERO = {"lr", "tokens_per_second", "seconds"}
_LOOKS = {"thin": (0.8, 0.25, ""), "line": (1.4, 1.0, ""), "points": (1.0, 1.0, "o")}


class Series(NamedTuple):
    """One line in a panel. run: index of the run, which gives the colour.
    style: "thin" for raw numbers under a smoothed line, "points" for validation losses.
    """

    name: str
    run: int
    style: Literal["thin", "line", "points"]
    x: Array
    y: Array


@dataclass(frozen=True)
class Chart(Picture):
    """A grid of panels, one per value, over several runs, with a legend: see `plot`."""

    runs: Sequence[Run]
    values: list[str]
    smooth: int | None
    log: bool

    def _series(self, value: str) -> Iterator[Series]:
        """Yield the lines in the panel of a value."""
        for i, run in enumerate(self.runs):
            x, y = run.column(value)
            label = f"{run.name}: {value}"
            window = max(len(y) // 50, 1) if self.smooth is None else self.smooth
            if value in _NOISY and window > 1:
                yield Series(label, i, "thin", x, y)
                yield Series(f"{label}, mean of {window}", i, "line", x, smoothed(y, window))
            elif len(y):
                yield Series(label, i, "points" if value == "val_loss" else "line", x, y)
            if value == "loss" and len(run.column("val_loss")[0]):
                yield Series(f"{run.name}: val_loss", i, "points", *run.column("val_loss"))

    def _fill(self, figure: Any) -> None:
        columns = min(len(self.values), 2)
        rows = -(-len(self.values) // columns)
        figure.set_size_inches(4.9 * columns, 3.1 * rows + 0.5)
        for i, value in enumerate(self.values):
            self._panel(figure.add_subplot(rows, columns, i + 1), value)
        axes = figure.axes[-1]
        handles = [axes.plot([], [], linewidth=3, **_look(i))[0] for i in range(len(self.runs))]
        names = [plain(_shortened(run.name)) for run in self.runs]
        figure.legend(handles, names, loc="outside upper left", ncols=2 * columns, frameon=False)

    def _panel(self, axes: Any, value: str) -> None:
        # Thin lines first, so that the noise of one run does not hide the mean of another.
        for series in sorted(self._series(value), key=lambda s: s.style != "thin"):
            width, opacity, marker = _LOOKS[series.style]
            marker = "o" if len(series.x) == 1 else marker
            (line,) = axes.plot(
                series.x, series.y, marker=marker, markersize=3, **_look(series.run)
            )
            line.set(linewidth=width, alpha=opacity, gid=plain(series.name))
        axes.set_title(plain(_TITLES.get(value, value)), loc="left", fontweight="bold")
        axes.set_xlabel("step", loc="right")
        axes.set_yscale("log" if self.log else "linear")
        if value in _FROM_ZERO and not self.log:
            axes.set_ylim(bottom=0)
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right", "left"]].set_visible(False)

    def text(self, width: int = 64, height: int = 12) -> str:
        """Return the first panel's curves, without the thin ones, as a chart of characters."""
        title = _TITLES.get(self.values[0], self.values[0])
        shown = [s for s in self._series(self.values[0]) if s.style != "thin"]
        x = np.concatenate([s.x for s in shown]).astype(np.float64)
        y = np.concatenate([s.y for s in shown])
        marks = np.concatenate([np.full(len(s.x), _MARKS[s.run % len(_MARKS)]) for s in shown])
        good = np.isfinite(y) & ((y > 0) | (not self.log))
        if not good.any():
            return f"{title}: nothing to draw"
        x, y, marks = x[good], np.log(y[good]) if self.log else y[good], marks[good]
        columns = (x - x.min()) / max(np.ptp(x), 1) * (width - 1)
        rows = (y.max() - y) / (np.ptp(y) or 1) * (height - 1)
        grid = np.full((height, width), " ")
        grid[np.rint(rows).astype(int), np.rint(columns).astype(int)] = marks
        top, bottom = (f"{np.exp(v) if self.log else v:.4g}" for v in (y.max(), y.min()))
        labels = [top, *[""] * (height - 2), bottom]
        cells = ("".join(row).rstrip() for row in grid)
        lines = [f"{label:>9} │{row}" for label, row in zip(labels, cells, strict=True)]
        last = f"step {int(x.max()):,}"
        lines = [title, *lines, f"{'':9} └{'─' * width}", last.rjust(width + 11)]
        names = (f"{_MARKS[i % len(_MARKS)]} {_shortened(r.name)}" for i, r in enumerate(self.runs))
        return "\n".join([*lines, *[f"{'':9}  {'  '.join(names)}"] * (len(self.runs) > 1)])


def plot(
    runs: Sequence[Run],
    what: Sequence[str] | None = None,
    smooth: int | None = None,
    log: bool = False,
) -> Chart:
    """Return the curves of runs, a panel per name in `what`; "loss" includes the validation loss.

        plot(find_runs(["runs"])).save("plot.svg")

    what: names of values in metrics.jsonl; by default loss, lr, grad_norm and tokens_per_second.
    smooth: draw noisy values thin, and over them their mean over this many records; by default a
        fiftieth of the run; 1 for no mean.
    log: logarithmic axes; values that are not positive are left out.
    Raises ConfigError for a name that no run has.
    """
    known = dict.fromkeys(name for run in runs for name in run.columns())
    names = [name for name in USUAL if name in known] if what is None else list(what)
    for name in names or ["loss"]:
        if name not in known:
            hint = f"known: {', '.join(known) or 'nothing yet'}"
            problem = f"no run has a value named {name!r}"
            raise ConfigError("plot", problem, got=name, wanted=sorted(known), hint=hint)
    return Chart(runs, names, smooth, log)


def smoothed(y: Array, window: int) -> Array:
    """Return the mean over up to window // 2 values on each side of each value, and over equally
    many on both sides near the start, where curves are steep. NaN and infinity are skipped.
    """
    good = np.isfinite(y)
    sums = np.concatenate([[0.0], np.cumsum(np.where(good, y, 0.0))])
    counts = np.concatenate([[0], np.cumsum(good)])
    index = np.arange(len(y))
    reach = np.minimum(index, window // 2)
    low, high = index - reach, np.minimum(index + reach + 1, len(y))
    with np.errstate(invalid="ignore"):
        return (sums[high] - sums[low]) / (counts[high] - counts[low])


def _look(run: int) -> dict[str, Any]:
    return {"color": f"C{run % 10}", "linestyle": ("-", "--", ":")[run // 10 % 3]}


def _shortened(name: str, most: int = 40) -> str:
    """Cut a name in the middle: names of runs tend to differ at their ends."""
    half = most // 2
    return name if len(name) <= most else f"{name[:half]}…{name[half + 1 - most :]}"
