"""Draw the losses, learning rate, gradient norm and speed of runs, one colour each, and print a
table of them. It works during a run. Pictures, SVG or PNG, need matplotlib; without it a small
chart is printed.

examples:
  minigrad plot runs/gpt                                  # writes runs/gpt/plot.svg
  minigrad plot runs --out all.png                        # every run in a folder
  minigrad plot runs/a runs/b --what loss --log --smooth 50 --out loss.svg
  minigrad plot runs --tensorboard logs                   # then: tensorboard --logdir logs
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from minigrad.cli.options import DIR, FILE, FLAG, REQUIRED, WORDS, Command, Option, refuse, whole
from minigrad.errors import MissingDependencyError
from minigrad.viz import export_runs, find_runs, plot, summary
from minigrad.viz.curves import USUAL
from minigrad.viz.metrics import METRICS

OPTIONS = (
    Option("DIR", DIR, REQUIRED, "the folder of a run, or one that holds several", repeated=True),
    Option("out", FILE, None, "the picture: .svg or .png (default: plot.svg in the first DIR)"),
    Option("what", WORDS, None, f"names in metrics.jsonl (default: {','.join(USUAL)})"),
    Option("smooth", whole(1), None, "records in a mean; 1: none (default: a fiftieth of the run)"),
    Option("log", FLAG, False, "logarithmic axes for the values"),
    Option("tensorboard", DIR, None, "write event files for TensorBoard here instead of a picture"),
)


def run(options: Namespace) -> int:
    """Print the table, write what was asked for, and say where it is."""
    drawing = [name for name in ("what", "smooth", "log") if getattr(options, name)]
    if options.tensorboard is not None and options.out is None and drawing:
        problem = f"--tensorboard draws no picture, so --{drawing[0]} has no use"
        refuse("plot", problem, "give --out FILE too")
    runs = find_runs([_run_of(Path(place)) for place in options.dir])
    chart = plot(runs, options.what, options.smooth, options.log)
    print(summary(runs))
    if options.tensorboard is not None:
        export_runs(runs, options.tensorboard)
        print(f"\nwritten for TensorBoard: tensorboard --logdir {options.tensorboard}")
    if options.out is not None or options.tensorboard is None:
        out = options.out or str(_run_of(Path(options.dir[0])) / "plot.svg")
        try:
            chart.save(out)
            print(f"\ndrawn in {out}")
        except MissingDependencyError as error:
            if options.out is not None:
                raise
            print(f"\n{chart.text()}\n\nfor a picture: {error.hint}")
    return 0


def _run_of(place: Path) -> Path:
    """Return the folder of the run to which a model or a checkpoint belongs."""
    above = (folder for folder in place.parents if place.is_file() and (folder / METRICS).exists())
    return next(above, place)


COMMAND = Command("plot", OPTIONS, run, "draw the loss curves of runs", __doc__)
