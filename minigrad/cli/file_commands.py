"""`minigrad inspect`, `verify`, `diff` and `convert`: commands on weights files."""

from argparse import Namespace
from functools import partial
from pathlib import Path

from minigrad.cli.options import Command
from minigrad.cli.run_folder import WEIGHTS
from minigrad.files import commands as files

_ROWS = (
    ("inspect", "show what a weights file holds", "runs/gpt --stats"),
    ("verify", "check weights files down to the last byte", "runs/gpt"),
    ("diff", "show how two weights files differ", "runs/gpt runs/gpt-2"),
    ("convert", "write weights in another format", "runs/gpt model.safetensors"),
)


def _run(name: str, options: Namespace) -> int:
    """Run a command of `files`, which gets the model of a run's folder for the folder."""
    for place, value in vars(options).items():
        if place in ("a", "b", "source") and (Path(value) / WEIGHTS).exists():
            setattr(options, place, str(Path(value) / WEIGHTS))
    code: int = getattr(files, f"run_{name}")(options)
    return code


COMMANDS = tuple(
    Command(
        name,
        partial(_run, name),
        purpose,
        examples=f"  minigrad {name} {example}\n",
        add=getattr(files, f"add_{name}"),
    )
    for name, purpose, example in _ROWS
)
