"""What a run shows while it goes on: one line that changes where the output is a terminal, plain
lines where it is not.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from typing import Any, TextIO

from minigrad.train import Report

_REFRESH = (
    0.1  # seconds; a terminal redrawn at every step of a tiny model would cost more than the model
)


_FIRST, _SILENT = 3.0, 30.0  # seconds without a line: before the first, and between two


def describe(report: Report) -> str:
    """The facts of a report in one line of words."""
    minutes, seconds = divmod(round(report.seconds_left), 60)
    facts = [f"step {report.step}/{report.steps}", f"loss {report.loss:.3f}"]
    if report.val_loss is not None:
        facts.append(f"validation {report.val_loss:.3f}")
    return "  ".join(
        [*facts, f"{report.tokens_per_second:,.0f} tokens/s", f"{minutes}:{seconds:02d} left"]
    )


class PlainProgress:
    """A line per evaluation, about twenty in between over the whole run, and more where that would
    leave a reader without a sign for half a minute.
    """

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self.stream, self._now = stream, now
        self._next = now() + _FIRST

    def show(self, report: Report) -> None:
        """Print the report, if it is time for a line."""
        due = report.val_loss is not None or report.step % max(report.steps // 20, 1) == 0
        if due or self._now() >= self._next:
            self._next = self._now() + _SILENT
            print(describe(report), file=self.stream, flush=True)

    def close(self) -> None:
        """Nothing is left open."""


class LiveProgress:
    """One line, redrawn in place; evaluations stay above it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self._drawn = stream, 0.0

    def show(self, report: Report) -> None:
        """Redraw the line; keep it and begin another if the report has a validation loss."""
        now = time.monotonic()
        if report.val_loss is None and now - self._drawn < _REFRESH:
            return
        self._drawn = now
        line = describe(report)
        if report.val_loss is None:  # a line longer than the terminal could not be redrawn in place
            line = line[: shutil.get_terminal_size().columns - 1]
        # Carriage return, the line, erase what an older and longer line left behind.
        self.stream.write(f"\r{line}\x1b[K" + ("\n" if report.val_loss is not None else ""))
        self.stream.flush()

    def close(self) -> None:
        """Erase the line."""
        self.stream.write("\r\x1b[K")
        self.stream.flush()


class RichProgress:
    """The same with a bar, drawn by rich."""

    def __init__(self, bar: Any) -> None:
        self.bar, self._task, self._drawn = bar, bar.add_task("", total=None), 0.0
        bar.start()

    def show(self, report: Report) -> None:
        """Redraw bar and line; print the line above the bar if the report has a validation loss."""
        now = time.monotonic()
        if report.val_loss is not None:
            self.bar.console.print(describe(report), markup=False, highlight=False)
        elif now - self._drawn < _REFRESH:
            return
        self._drawn = now
        self.bar.update(
            self._task,
            description=describe(report),
            completed=report.step,
            total=report.steps,
            refresh=True,
        )

    def close(self) -> None:
        """Erase bar and line."""
        self.bar.stop()


def progress(stream: TextIO) -> PlainProgress | LiveProgress | RichProgress:
    """The display that suits `stream`: plain lines, or a live one if it is a terminal, with a bar
    if rich is installed.
    """
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return PlainProgress(stream)
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
    except ImportError:
        return LiveProgress(stream)
    columns = BarColumn(bar_width=24), TextColumn("{task.description}", markup=False)
    return RichProgress(
        Progress(*columns, console=Console(file=stream), auto_refresh=False, transient=True)
    )
