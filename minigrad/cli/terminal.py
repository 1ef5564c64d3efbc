"""What a run prints: progress, as a bar drawn by rich on a terminal where it is installed, else as
plain lines; and the files of a text that were skipped.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from minigrad.data import TextData, read_text
from minigrad.dtypes import Array
from minigrad.files.opening import open_regular, printable
from minigrad.train import Interruption, Report

_REFRESH = 0.1  # seconds: redrawing at every step of a tiny model would cost more than the step
_FIRST, _SILENT = 3.0, 30.0  # seconds to the first plain line, and the most between two
_SLOW = 1.0  # seconds of compiling without a word


def describe(report: Report) -> str:
    """Format a report as one line."""
    minutes, seconds = divmod(round(report.seconds_left), 60)
    facts = [f"step {report.step}/{report.steps}", f"loss {report.loss:.3f}"]
    if report.val_loss is not None:
        facts.append(f"validation {report.val_loss:.3f}")
    facts += [f"{report.tokens_per_second:,.0f} tokens/s", f"{minutes}:{seconds:02d} left"]
    return "  ".join(facts)


class PlainProgress:
    """A line per evaluation, about twenty between them over the whole run, and one at least every
    half minute.
    """

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self.stream, self._now = stream, now
        self._next = now() + _FIRST

    def show(self, report: Report) -> None:
        """Print the report if a line is due."""
        due = report.val_loss is not None or report.step % max(report.steps // 20, 1) == 0
        if due or self._now() >= self._next:
            self._next = self._now() + _SILENT
            print(describe(report), file=self.stream, flush=True)

    def say(self, line: str) -> None:
        """Print a line about something that takes long."""
        print(line, file=self.stream, flush=True)

    def close(self) -> None:
        """Do nothing: every line is complete."""


class RichProgress:
    """A bar that is redrawn in place; lines with a validation loss stay above it."""

    def __init__(self, bar: Any) -> None:
        self.bar, self._task, self._drawn = bar, bar.add_task("", total=None), 0.0
        bar.start()

    def show(self, report: Report) -> None:
        """Redraw the bar if it is due; print the line above it if it has a validation loss."""
        now, line = time.monotonic(), describe(report)
        if report.val_loss is not None:
            self.bar.console.print(line, markup=False, highlight=False)
        elif now - self._drawn < _REFRESH:
            return
        self._drawn = now
        facts = {"completed": report.step, "total": report.steps}
        self.bar.update(self._task, description=line, refresh=True, **facts)

    def say(self, line: str) -> None:
        """Show a line in place of the bar's."""
        self.bar.update(self._task, description=line, refresh=True)

    def close(self) -> None:
        """Erase the bar."""
        self.bar.stop()


def progress(stream: TextIO) -> PlainProgress | RichProgress:
    """Return the display that suits the stream."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return PlainProgress(stream)
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
    except ImportError:
        return PlainProgress(stream)
    columns = BarColumn(bar_width=24), TextColumn("{task.description}", markup=False)
    console = Console(file=stream)
    return RichProgress(Progress(*columns, console=console, auto_refresh=False, transient=True))


def tell(interruption: Interruption, show: Callable[[Any], None], progress: Any) -> None:
    """Show progress. If its reader is gone (`| head`; `| tee`, which the same Ctrl-C ends; a closed
    terminal), request a stop, so that what was computed is saved.
    """
    try:
        show(progress)
    except OSError:
        interruption.note(signal.SIGPIPE)


def watched(
    batches: Iterable[tuple[Array, Array]],
    doing: str,
    targets: int,
    say: Callable[[str], None],
    now: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[Array, Array]]:
    """Yield the batches (x, y), and say every few seconds how many of the targets are done."""
    due, seen = now() + _FIRST, 0
    for x, y in batches:
        if now() >= due:
            due = now() + _FIRST
            say(f"{doing} {seen / targets:.0%} done")
        seen += int((y >= 0).sum())
        yield x, y


class ValidationStopped(Exception):
    """Raised by `WatchedData` when a validation is to end before all of it is done."""


class WatchedData:
    """The data of a run, whose validation says how far it is where it takes seconds.

    stop: called before each batch of the validation; if true, ValidationStopped is raised.
    compiles: True if the next validation compiles the model for its first batch, which is said if
        it takes a second.
    """

    def __init__(
        self,
        data: TextData,
        say: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
        stop: Callable[[], bool] = bool,
    ) -> None:
        self.data, self.batch, self.say, self._now, self._stop = data, data.batch, say, now, stop
        self.compiles = False

    def validation(self) -> Iterator[tuple[Array, Array]]:
        """Yield the batches of the data's validation."""
        batches, targets = self.data.validation(), len(self.data.val)
        slow = threading.Timer(_SLOW, self.say, ["jit      compiling the validation ..."])
        if self.compiles:
            slow.start()
        try:
            for batch in watched(batches, "validation", targets, self.say, self._now):
                if self._stop():
                    raise ValidationStopped
                yield batch
                slow.cancel()
                self.compiles = False
        finally:
            slow.cancel()


def read_and_report(place: str | Path, stream: TextIO) -> str:
    """Return the text of a file or a folder; print how many files were skipped, and their names."""
    skipped: list[Path] = []
    if not Path(place).exists():
        open_regular(str(place), "read_text")  # raises an error that names similar files
    text = read_text(place, skipped)
    if skipped:
        names = ", ".join(printable(str(path)) for path in skipped[:3])
        names += f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        line = f"skipped  {len(skipped)} files that are not UTF-8 text: {names}"
        print(line, file=stream, flush=True)
    return text
