"""What a plot of runs shows: panels, and in each the series of numbers to draw. How they are drawn
is not known here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import ConfigError
from minigrad.looking.metrics import Run

Style = Literal["thin", "line", "points"]
USUAL = ("loss", "lr", "grad_norm", "tokens_per_second")
_TITLES = {
    "loss": "loss",
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_second": "tokens per second",
    "val_loss": "validation loss",
    "seconds": "seconds since the beginning",
}
_NOISY = {"loss", "grad_norm", "tokens_per_second"}
_FROM_ZERO = {"lr", "tokens_per_second", "seconds"}
_MOST_POINTS = 800  # of a series: two for each pixel of the width of a panel


@dataclass(frozen=True)
class Series:
    """One line in a panel. run: which run it belongs to, for its colour; style: thin is the raw
    numbers under a smoothed line.
    """

    name: str
    run: int
    style: Style
    x: Array
    y: Array


@dataclass(frozen=True)
class Panel:
    """One pair of axes. zero: the values are amounts, whose axis begins at 0."""

    title: str
    series: list[Series]
    log: bool = False
    zero: bool = False


def make_panels(
    runs: Sequence[Run],
    what: Sequence[str] | None = None,
    smooth: int | None = None,
    log: bool = False,
) -> list[Panel]:
    """A panel for each name of `what` ("loss" with the validation loss in it), each with all runs
    that have such values.

    what: names of values in metrics.jsonl; of loss, lr, grad_norm and tokens_per_second those that
        there are, unless given. smooth: noisy values
    are drawn thin, with their mean over so many neighbouring records above; a fiftieth of the run
    unless given, 1 for no mean.
    log: logarithmic axes; values that are not positive are left out. Raises ConfigError for a name
        that no run has.
    """
    known = dict.fromkeys(name for run in runs for name in run.columns())
    names = [name for name in USUAL if name in known] if what is None else list(what)
    for name in names or ["loss"]:
        if name not in known:
            raise ConfigError(
                "plot",
                f"no run has a value named {name!r}",
                got=name,
                wanted=sorted(known),
                hint=f"there is: {', '.join(known) or 'nothing yet'}",
            )
    if smooth is not None and smooth < 1:
        raise ConfigError(
            "plot", f"smooth={smooth}", got=smooth, wanted="a whole number of at least 1"
        )
    panels = []
    for name in names:
        series = [s for i, run in enumerate(runs) for s in _series(run, i, name, smooth)]
        shown = [_positive(s) for s in series] if log else series
        panels.append(Panel(_TITLES.get(name, name), shown, log, name in _FROM_ZERO))
    return panels


def _series(run: Run, index: int, name: str, smooth: int | None) -> list[Series]:
    x, y = run.column(name)
    label, found = f"{run.name}: {name}", []
    window = max(len(y) // 50, 1) if smooth is None else smooth
    if name in _NOISY and window > 1:
        found.append(Series(label, index, "thin", *thinned(x, y)))
        found.append(
            Series(f"{label}, mean of {window}", index, "line", *thinned(x, smoothed(y, window)))
        )
    elif len(y):
        found.append(
            Series(label, index, "points" if name == "val_loss" else "line", *thinned(x, y))
        )
    if name == "loss" and len(run.column("val_loss")[0]):
        found.append(Series(f"{run.name}: val_loss", index, "points", *run.column("val_loss")))
    return found


def smoothed(y: Array, window: int) -> Array:
    """The mean over the `window` numbers around each (one more if that is even); NaN and infinity
    count for nothing.

    At the beginning, where curves are steep, it is over as many numbers before as behind; at the
    end over those that there are.
    """
    good = np.isfinite(y)
    sums = np.concatenate([[0.0], np.cumsum(np.where(good, y, 0.0))])
    counts = np.concatenate([[0], np.cumsum(good)])
    middle = np.arange(len(y))
    reach = np.minimum(middle, window // 2)
    low, high = middle - reach, np.minimum(middle + reach + 1, len(y))
    with np.errstate(invalid="ignore"):
        return (sums[high] - sums[low]) / (counts[high] - counts[low])


def thinned(x: Array, y: Array, most: int = _MOST_POINTS) -> tuple[Array, Array]:
    """At most about `most` of the points: of each stretch the lowest and the highest, so that no
    peak is lost.
    """
    if len(y) <= most:
        return x, y
    edges = np.linspace(0, len(y), most // 2 + 1).astype(np.int64)
    keep = {0, len(y) - 1}
    for start, stop in itertools.pairwise(edges.tolist()):
        part = y[start:stop]
        bad = ~np.isfinite(part)
        keep |= {
            start + int(np.where(bad, np.inf, part).argmin()),
            start + int(np.where(bad, -np.inf, part).argmax()),
        }
        if bad.any():
            keep.add(start + int(bad.argmax()))  # a gap stays a gap
    chosen = np.array(sorted(keep))
    return x[chosen], y[chosen]


def _positive(series: Series) -> Series:
    with np.errstate(invalid="ignore"):
        return Series(
            series.name,
            series.run,
            series.style,
            series.x,
            np.where(series.y > 0, series.y, np.nan),
        )
