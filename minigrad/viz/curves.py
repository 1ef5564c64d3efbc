"""Curves of runs: what to draw, and how, as a picture or as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

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


@dataclass(frozen=True)
class Series:
    """One line in a panel. run: index of the run, which gives the colour.
    style: "thin" for raw numbers under a smoothed line, "points" for validation losses.
    """

    name: str
    run: int
    style: Literal["thin", "line", "points"]
    x: Array
    y: Array


@dataclass(frozen=True)
class Panel:
    """One pair of axes. zero: the axis of the values begins at 0."""

    title: str
    series: list[Series]
    log: bool = False
    zero: bool = False


@dataclass(frozen=True)
class Chart(Picture):
    """A grid of panels over several runs, with a legend."""

    names: list[str]
    panels: list[Panel]

    def _fill(self, figure: Any) -> None:
        columns = min(len(self.panels), 2)
        rows = -(-len(self.panels) // columns)
        figure.set_size_inches(4.9 * columns, 3.1 * rows + 0.5)
        for i, panel in enumerate(self.panels):
            axes = figure.add_subplot(rows, columns, i + 1)
            _draw(axes, panel)
        handles = [axes.plot([], [], linewidth=3, **_look(i))[0] for i in range(len(self.names))]
        names = [plain(_shortened(name)) for name in self.names]
        figure.legend(handles, names, loc="outside upper left", ncols=2 * columns, frameon=False)

    def text(self, width: int = 64, height: int = 12) -> str:
        """Return the first panel's curves, without the thin ones, as a chart of characters."""
        chart = _in_characters(self.panels[0], width, height)
        marks = "  ".join(
            f"{_MARKS[i % len(_MARKS)]} {_shortened(name)}" for i, name in enumerate(self.names)
        )
        return f"{chart}\n{'':9}  {marks}" if len(self.names) > 1 else chart


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
    panels = []
    for name in names:
        series = [s for i, run in enumerate(runs) for s in _series(run, i, name, smooth)]
        panels.append(Panel(_TITLES.get(name, name), series, log, name in _FROM_ZERO))
    return Chart([run.name for run in runs], panels)


def _series(run: Run, index: int, name: str, smooth: int | None) -> list[Series]:
    x, y = run.column(name)
    label, found = f"{run.name}: {name}", []
    window = max(len(y) // 50, 1) if smooth is None else smooth
    if name in _NOISY and window > 1:
        found.append(Series(label, index, "thin", x, y))
        mean = smoothed(y, window)
        found.append(Series(f"{label}, mean of {window}", index, "line", x, mean))
    elif len(y):
        found.append(Series(label, index, "points" if name == "val_loss" else "line", x, y))
    if name == "loss" and len(run.column("val_loss")[0]):
        found.append(Series(f"{run.name}: val_loss", index, "points", *run.column("val_loss")))
    return found


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


def _draw(axes: Any, panel: Panel) -> None:
    # Thin lines first, so that the noise of one run does not hide the mean of another.
    for series in sorted(panel.series, key=lambda s: s.style != "thin"):
        width, opacity, marker = _LOOKS[series.style]
        marker = "o" if len(series.x) == 1 else marker
        (line,) = axes.plot(series.x, series.y, marker=marker, markersize=3, **_look(series.run))
        line.set(linewidth=width, alpha=opacity, gid=plain(series.name))
    axes.set_title(plain(panel.title), loc="left", fontweight="bold")
    axes.set_xlabel("step", loc="right")
    axes.set_yscale("log" if panel.log else "linear")
    if panel.zero and not panel.log:
        axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _in_characters(panel: Panel, width: int, height: int) -> str:
    shown = [s for s in panel.series if s.style != "thin"]
    x = np.concatenate([s.x for s in shown]).astype(np.float64)
    y = np.concatenate([s.y for s in shown])
    runs = np.concatenate([np.full(len(s.x), s.run) for s in shown])
    good = np.isfinite(y) & ((y > 0) | (not panel.log))
    if not good.any():
        return f"{panel.title}: nothing to draw"
    x, y, runs = x[good], np.log(y[good]) if panel.log else y[good], runs[good]
    columns = (x - x.min()) / max(np.ptp(x), 1) * (width - 1)
    rows = (y.max() - y) / (np.ptp(y) or 1) * (height - 1)
    grid = np.full((height, width), " ")
    grid[np.rint(rows).astype(int), np.rint(columns).astype(int)] = np.array([*_MARKS])[
        runs % len(_MARKS)
    ]
    top, bottom = (f"{np.exp(v) if panel.log else v:.4g}" for v in (y.max(), y.min()))
    labels = [top, *[""] * (height - 2), bottom]
    lines = [
        f"{label:>9} │{''.join(row).rstrip()}" for label, row in zip(labels, grid, strict=True)
    ]
    last = f"step {int(x.max()):,}"
    return "\n".join([panel.title, *lines, f"{'':9} └{'─' * width}", last.rjust(width + 11)])


def _shortened(name: str, most: int = 40) -> str:
    """Cut a name in the middle: names of runs tend to differ at their ends."""
    half = most // 2
    return name if len(name) <= most else f"{name[:half]}…{name[half + 1 - most :]}"
