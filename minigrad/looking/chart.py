"""Panels as a picture: SVG, made here, or PNG, by matplotlib."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import ConfigError, MissingDependencyError
from minigrad.looking.axis import Axis, spelled
from minigrad.looking.metrics import Run
from minigrad.looking.panels import Panel, Series, Style, make_panels
from minigrad.looking.svg import document, escape, number, shortened, tag, text

# Of middle lightness, so that they stand out on white and on black; neighbours differ for
# colour-blind eyes too.
COLOURS = ("#3b7dd8", "#e0702c", "#2a9d6f", "#c2478f", "#8a68d6", "#a8861a", "#2aa3b8", "#d04a4a")
_DASHES = (None, "6 3", "2 3")  # the second and third eight runs
_STROKES: dict[Style, tuple[float, float]] = {
    "thin": (1.0, 0.25),
    "line": (1.8, 1.0),
    "points": (1.3, 1.0),
}  # width, opacity

_WIDTH, _HEIGHT = 470.0, 290.0  # of a panel with all around it
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 16.0, 34.0, 42.0  # around the axes of a panel
_EDGE = 12.0


@dataclass(frozen=True)
class Chart:
    """A grid of panels over several runs, with a legend. In a notebook it shows itself."""

    names: list[str]
    panels: list[Panel]

    def svg(self) -> str:
        """The picture as an SVG document: no script, no font, no reference to anything outside."""
        across = 1 if len(self.panels) == 1 else 2
        down = -(-len(self.panels) // across)
        width = across * _WIDTH + 2 * _EDGE
        legend, top = _legend(self.names, self.panels, width)
        body = [legend]
        for i, panel in enumerate(self.panels):
            row, column = divmod(i, across)
            body.append(_drawn(panel, _EDGE + column * _WIDTH, top + row * _HEIGHT))
        return document(
            width,
            top + down * _HEIGHT + _EDGE,
            f"{', '.join(p.title for p in self.panels)} of {', '.join(self.names)}",
            body,
        )

    def _repr_svg_(self) -> str:
        return self.svg()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture; the ending says how: .svg, or .png, which needs matplotlib. Raises
        ConfigError or MissingDependencyError.
        """
        ending = Path(path).suffix.lower()
        if ending == ".svg":
            Path(path).write_text(self.svg(), encoding="utf-8")
        elif ending == ".png":
            _matplotlib_figure(self).savefig(path, format="png", dpi=120)
        else:
            raise ConfigError(
                "plot",
                f"{path} ends neither in .svg nor in .png",
                got=str(path),
                wanted=".svg or .png",
                hint="name it plot.svg",
            )


def plot(
    runs: Sequence[Run],
    what: Sequence[str] | None = None,
    smooth: int | None = None,
    log: bool = False,
) -> Chart:
    """The curves of several runs: losses, learning rate, gradient norm, tokens per second, or what
    is named. See `make_panels`.

    plot(find_runs(["runs"])).save("plot.svg")
    """
    return Chart([run.name for run in runs], make_panels(runs, what, smooth, log))


# --- SVG


def _legend(names: Sequence[str], panels: Sequence[Panel], width: float) -> tuple[str, float]:
    """The names of the runs with their colours, in as many rows as they need, and a line on what is
    thin; and the height of all that.
    """
    labels = [shortened(name, 260 if len(names) <= 4 else 170) for name in names]
    room = 34 + 7.2 * max(map(len, labels), default=0) + 14
    columns = max(int((width - 2 * _EDGE) / room), 1)
    parts, y = [], 26.0
    for i, (name, label) in enumerate(zip(names, labels, strict=True)):
        x, y = _EDGE + 8 + i % columns * room, 26.0 + i // columns * 20
        colour, dash = _colour(i)
        parts.append(
            tag(
                "line",
                x1=x,
                y1=y - 4,
                x2=x + 24,
                y2=y - 4,
                stroke=colour,
                stroke_width=3,
                stroke_dasharray=dash,
            )
        )
        parts.append(tag("text", tag("title", escape(name)), escape(label), x=x + 32, y=y))
    styles = {series.style for panel in panels for series in panel.series}
    notes = [
        words
        for style, words in (
            ("thin", "thin: every record, thick: their mean"),
            ("points", "dots: validation"),
        )
        if style in styles
    ]
    if notes:
        y += 20
        parts.append(text(_EDGE + 8, y, ";  ".join(notes), class_="soft"))
    return tag("g", *parts, class_="legend"), y + 14


def _drawn(panel: Panel, left: float, top: float) -> str:
    """One panel with its upper left corner there."""
    across, up = panel_axes(panel, left, top)
    x0, x1, y0, y1 = across.start, across.end, up.start, up.end
    parts = [text(x0, y1 - 12, panel.title, class_="heading")]
    for value, label in zip(up.ticks(), spelled(up.ticks()), strict=True):
        y = float(up.place(value))
        parts.append(tag("line", class_="grid", x1=x0, y1=y, x2=x1, y2=y))
        parts.append(text(x0 - 8, y + 4, label, "end", class_="soft tick-y"))
    for value, label in zip(across.ticks(6), spelled(across.ticks(6)), strict=True):
        x = float(across.place(value))
        parts.append(tag("line", class_="axis", x1=x, y1=y0, x2=x, y2=y0 + 4))
        parts.append(text(x, y0 + 18, label, "middle", class_="soft tick-x"))
    parts.append(tag("line", class_="axis", x1=x0, y1=y0, x2=x1, y2=y0))
    parts.append(text(x1, y0 + 34, "step", "end", class_="soft"))
    # Thin lines first, so that no run's noise hides another's mean.
    for series in sorted(panel.series, key=lambda s: s.style != "thin"):
        parts.append(_line(series, across, up))
    return tag("g", *parts, class_="panel")


def panel_axes(panel: Panel, left: float, top: float) -> tuple[Axis, Axis]:
    """The axes of a panel: steps from left to right, values from the bottom up."""
    steps = np.concatenate([s.x for s in panel.series] or [np.zeros(0)]).astype(np.float64)
    values = np.concatenate([s.y for s in panel.series] or [np.zeros(0)])
    values = values[np.isfinite(values)]
    across = Axis.around(steps, left + _LEFT, left + _WIDTH - _RIGHT, margin=0.02)
    return across, Axis.around(
        values, top + _HEIGHT - _BOTTOM, top + _TOP, log=panel.log, zero=panel.zero
    )


def _line(series: Series, across: Axis, up: Axis) -> str:
    """The series' points joined, with a gap where a number is not finite; dots on a series of
    points.
    """
    colour, dash = _colour(series.run)
    width, opacity = _STROKES[series.style]
    parts = [tag("title", escape(series.name))]
    for x, y in _pieces(series.x, series.y):
        pixels = list(zip(across.place(x), up.place(y), strict=True))
        points = " ".join(f"{number(a)},{number(b)}" for a, b in pixels)
        parts.append(
            tag(
                "polyline",
                points=points,
                fill="none",
                stroke=colour,
                stroke_width=width,
                stroke_opacity=opacity,
                stroke_linejoin="round",
                stroke_linecap="round",
                stroke_dasharray=dash,
            )
        )
        if series.style == "points" or len(pixels) == 1:
            parts += [
                tag("circle", cx=float(a), cy=float(b), r=2.6, fill=colour) for a, b in pixels
            ]
    return tag("g", *parts, class_=f"series {series.style}")


def _pieces(x: Array, y: Array) -> Iterator[tuple[Array, Array]]:
    """The stretches in which y is finite."""
    good = np.isfinite(y)
    for is_good, group in itertools.groupby(range(len(y)), key=lambda i: bool(good[i])):
        if is_good:
            chosen = list(group)
            yield x[chosen], y[chosen]


def _colour(run: int) -> tuple[str, str | None]:
    return COLOURS[run % len(COLOURS)], _DASHES[run // len(COLOURS) % len(_DASHES)]


# --- PNG


def _matplotlib_figure(chart: Chart) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            "plot",
            "a PNG needs matplotlib",
            got="no matplotlib",
            wanted="matplotlib",
            hint="pip install 'minigrad[plot]', or write .svg, which needs nothing",
        ) from None
    across = 1 if len(chart.panels) == 1 else 2
    down = -(-len(chart.panels) // across)
    figure = Figure(figsize=(4.9 * across, 3.1 * down + 0.5), layout="constrained")
    for i, panel in enumerate(chart.panels):
        axes = figure.add_subplot(down, across, i + 1)
        _draw_with_matplotlib(axes, panel)
    handles = [
        axes.plot([], [], color=_colour(i)[0], linestyle=_matplotlib_dash(i), linewidth=3)[0]
        for i in range(len(chart.names))
    ]
    figure.legend(
        handles,
        [shortened(name, 260) for name in chart.names],
        loc="outside upper left",
        ncols=4,
        frameon=False,
        fontsize=9,
    )
    return figure


def _draw_with_matplotlib(axes: Any, panel: Panel) -> None:
    for series in panel.series:
        width, opacity = _STROKES[series.style]
        marker = "o" if series.style == "points" or len(series.x) == 1 else ""
        axes.plot(
            series.x,
            series.y,
            color=_colour(series.run)[0],
            linestyle=_matplotlib_dash(series.run),
            linewidth=width * 0.75,
            alpha=opacity,
            marker=marker,
            markersize=3.5,
        )
    axes.set_title(panel.title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel("step", loc="right", fontsize=9)
    axes.set_yscale("log" if panel.log else "linear")
    if panel.zero and not panel.log:
        axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _matplotlib_dash(run: int) -> Any:
    dash = _colour(run)[1]
    return "solid" if dash is None else (0, tuple(float(part) / 2 for part in dash.split()))
