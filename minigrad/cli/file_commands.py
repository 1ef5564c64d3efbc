"""`minigrad inspect`, `verify`, `diff` and `convert`: looking at weight files and changing their
format.
"""

from __future__ import annotations

from minigrad.cli.arguments import Commands
from minigrad.files import commands as files

_COMMANDS = (
    (
        "inspect",
        "show what a weight file holds",
        "minigrad inspect runs/gpt/model.mgrd --stats",
        files.add_inspect,
        files.run_inspect,
    ),
    (
        "verify",
        "check weight files down to the last byte",
        "minigrad verify runs/gpt",
        files.add_verify,
        files.run_verify,
    ),
    (
        "diff",
        "show how two weight files differ",
        "minigrad diff runs/gpt/model.mgrd runs/gpt-2/model.mgrd",
        files.add_diff,
        files.run_diff,
    ),
    (
        "convert",
        "write weights in another format",
        "minigrad convert model.mgrd model.safetensors",
        files.add_convert,
        files.run_convert,
    ),
)


def add_to(commands: Commands) -> None:
    """Add the subcommands."""
    for name, purpose, example, add, run in _COMMANDS:
        parser = commands.add_parser(
            name,
            help=purpose,
            description=f"{purpose[0].upper()}{purpose[1:]}.",
            epilog=f"example:  {example}",
        )
        add(parser)
        parser.set_defaults(run=run)
