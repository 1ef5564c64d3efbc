"""The command `minigrad`: a module per subcommand, each with a COMMAND whose --help is the module's
docstring; this file joins them.

Bad input ends in one line on stderr and exit code 2; a broken pipe and Ctrl-C end quietly.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from minigrad import __version__, start
from minigrad.cli import (
    chat,
    doctor,
    embed,
    evaluate,
    file_commands,
    finetune,
    generate,
    plot,
    show,
    sweep,
    train,
)
from minigrad.cli.options import Parser, near, one_line, refuse
from minigrad.distributed import end_together
from minigrad.errors import MinigradError

__all__ = ["main"]

_MODULES = (train, finetune, generate, chat, evaluate, embed, plot, show, sweep)
_LISTED = (*(module.COMMAND for module in _MODULES), *file_commands.COMMANDS, doctor.COMMAND)
COMMANDS = {command.name: command for command in _LISTED}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (those of the process if None) and return the exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller (`>&-`)
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (open until the process ends)
        # A character that the terminal's encoding lacks must not end a run of three minutes.
        getattr(sys, name).reconfigure(errors="replace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["help"]:  # `minigrad help train`, as in git
        words = [*words[1:2], "--help"]
    try:
        start.hand_over()
        if words and not words[0].startswith("-") and words[0] not in COMMANDS:
            hint = near(words[0], COMMANDS, "minigrad --help lists the commands")
            refuse("minigrad", f"there is no command {words[0]!r}", hint)
        with end_together():
            found = vars(_parser().parse_args(words or ["--help"]))
            command = COMMANDS[found.pop("command")]
            return command.run(command.complete(found))
    except BrokenPipeError:
        # The reader is gone (`| head`). Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (MinigradError, OSError) as error:
        called = " ".join(["minigrad", *[word for word in words[:1] if word in COMMANDS]])
        print(f"{called}: error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


def _parser() -> Parser:
    parser = Parser(
        prog="minigrad",
        description="Train small transformers on text and let them write.",
        epilog="example:  minigrad train --text my_notes/ && minigrad generate --model runs/gpt "
        "--prompt 'Once'",
    )
    parser.add_argument("--version", action="version", version=f"minigrad {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    for command in COMMANDS.values():
        command.add_to(commands)
    return parser
