"""`minigrad plot`: the curves of runs, as a picture or for TensorBoard, and a table of where they
ended.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from minigrad.cli.arguments import Commands, path, whole
from minigrad.errors import ConfigError, MissingDependencyError
from minigrad.viz import export_runs, find_runs, plot, summary

DESCRIPTION = """\
Draw the losses, learning rate, gradient norm and speed of runs, one colour each, and print a table of them.
The picture may be made while a run goes on; it is an SVG, which any browser shows, or a PNG (needs matplotlib)."""

EXAMPLES = """\
examples:
  minigrad plot runs/gpt                                  # writes runs/gpt/plot.svg
  minigrad plot runs --out all.png                        # every run in a folder
  minigrad plot runs/a runs/b --what loss --log --smooth 50 --out loss.svg
  minigrad plot runs --tensorboard logs                   # then: tensorboard --logdir logs
"""


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "plot", help="draw the loss curves of runs", description=DESCRIPTION, epilog=EXAMPLES
    )
    parser.add_argument(
        "places",
        metavar="DIR",
        type=path,
        nargs="+",
        help="the folder of a run, or one that holds several",
    )
    parser.option(
        "--out",
        "FILE",
        path,
        None,
        "the picture: .svg or .png (default: plot.svg in the first DIR)",
    )
    parser.option(
        "--what",
        "NAME,...",
        str,
        None,
        "what to draw: loss, lr, grad_norm, tokens_per_second, or any other name in metrics.jsonl "
        "(default: those four)",
    )
    parser.option(
        "--smooth",
        "N",
        whole(1),
        None,
        "average noisy curves over N records; 1: not at all (default: a fiftieth of the run)",
    )
    parser.add_argument("--log", action="store_true", help="logarithmic axes for the values")
    parser.option(
        "--tensorboard",
        "DIR",
        path,
        None,
        "write TensorBoard's event files there, a folder per run, and no picture unless --out is "
        "given",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table, write what was asked for, and say where it is."""
    drawing = [f"--{name}" for name in ("what", "smooth", "log") if getattr(options, name)]
    if options.tensorboard is not None and options.out is None and drawing:
        problem = f"--tensorboard draws no picture, so {drawing[0]} has no use"
        raise ConfigError("plot", problem, got=drawing, hint="give --out FILE too")
    runs = find_runs(options.places)
    what = (
        None
        if options.what is None
        else [name.strip() for name in options.what.split(",") if name.strip()]
    )
    chart = plot(runs, what, options.smooth, options.log)
    print(summary(runs))
    if options.tensorboard is not None:
        export_runs(runs, options.tensorboard)
        print(f"\nwritten for TensorBoard: tensorboard --logdir {options.tensorboard}")
    if options.out is not None or options.tensorboard is None:
        out = options.out or str(Path(options.places[0], "plot.svg"))
        try:
            chart.save(out)
            print(f"\ndrawn in {out}")
        except MissingDependencyError as error:
            if options.out is not None:
                raise
            print(f"\n{chart.text()}\n\nfor a picture: {error.hint}")
    return 0
