"""`minigrad inspect`, `verify`, `diff` and `convert`: commands on weights files."""

from argparse import Namespace
from collections.abc import Callable

from minigrad.cli.options import FILE, FLAG, PATH, REQUIRED, Command, Option
from minigrad.files import commands as files


def _command(call: Callable[..., int], purpose: str, example: str, *options: Option) -> Command:
    """A command that calls a function of `files` with its options."""

    def run(given: Namespace) -> int:
        return call(**{option.name.lower(): vars(given)[option.name.lower()] for option in options})

    name = call.__name__
    about = f"{purpose.capitalize()}.\n\nexamples:\n  minigrad {name} {example}\n"
    return Command(name, run, purpose, options, about)


COMMANDS = (
    _command(
        files.inspect,
        "show what a weights file holds",
        "runs/gpt --stats",
        Option("FILE", FILE, REQUIRED, "weights or a checkpoint: .mgrd, .safetensors, .npz, .gguf"),
        Option("stats", FLAG, False, "read the arrays too, and show min, max, mean and NaNs"),
    ),
    _command(
        files.verify,
        "check weights files down to the last byte",
        "runs/gpt",
        Option("PATH", PATH, REQUIRED, "a file, or a folder whose files are all checked", True),
    ),
    _command(
        files.diff,
        "show how two weights files differ",
        "runs/gpt runs/gpt-2",
        Option("A", FILE, REQUIRED, "a file of weights or a checkpoint"),
        Option("B", FILE, REQUIRED, "another one, of any of the formats"),
    ),
    _command(
        files.convert,
        "write weights in another format",
        "runs/gpt model.safetensors",
        Option("SOURCE", FILE, REQUIRED, "the file to read: .mgrd, .safetensors or .npz"),
        Option("TARGET", FILE, REQUIRED, "the file to write; its ending names the format"),
    ),
)
