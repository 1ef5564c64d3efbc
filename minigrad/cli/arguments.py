"""The command line's grammar: a parser that complains in one line, options that show their
defaults, and the numbers they take.
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from minigrad.errors import MinigradError

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that keeps the line breaks of its texts and whose error is one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings
        )

    def error(self, message: str) -> NoReturn:
        """Print one line that says what is wrong and where to read on; exit with code 2."""
        print(f"{self.prog}: error: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; an option that there is not gets a suggestion."""
        found, extra = self.parse_known_args(args, namespace)
        if extra:
            choices = next((a.choices for a in self._actions if a.choices and a.nargs), {}) or {}
            chosen = dict(choices).get(getattr(found, "command", None), self)
            known = [name for name in chosen._option_string_actions if name != "--help"]
            near = difflib.get_close_matches(extra[0].partition("=")[0], known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            chosen.error(f"unrecognized arguments: {' '.join(extra)}{hint}")
        return found

    def option(
        self, name: str, metavar: str, kind: Callable[[str], Any], default: Any, help: str
    ) -> None:
        """Add an option that takes a value; its help shows the default, if it has one."""
        shown = "" if default is None or "(default" in help else f" (default {default})"
        self.add_argument(
            name, metavar=metavar, type=kind, default=default, help=help + shown, action=_Given
        )

    def switch(self, name: str, default: bool | None, help: str) -> None:
        """Add `--name` and `--no-name`."""
        self.add_argument(
            f"--{name}",
            f"--no-{name}",
            dest=name,
            nargs=0,
            default=default,
            help=help,
            action=_GivenSwitch,
        )


class _Given(argparse.Action):
    """Stores the value, and in `given` that it was named on the command line and not by a config
    file (`configured`).
    """

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        setattr(namespace, self.dest, values)
        namespace.given = {*getattr(namespace, "given", ()), self.dest}
        namespace.configured = frozenset(getattr(namespace, "configured", ())) - {self.dest}


class _GivenSwitch(_Given):
    """--name and --no-name, likewise."""

    def format_usage(self) -> str:
        return " | ".join(self.option_strings)

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        super().__call__(parser, namespace, not str(option).startswith("--no-"), option)


def utf8(text: str) -> str:
    """A text. Bytes that are not UTF-8 reach Python as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{os.fsencode(text)!r} is not UTF-8 text") from None
    return text


def path(text: str) -> str:
    """A path; an empty one would mean the current folder, which nobody asked for."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path")
    return text


def unescaped(text: str) -> str:
    """A text that is not empty, with \\n, \\t and \\\\ as in Python: a shell has no simple way to
    write a line end.
    """
    if not text:
        raise argparse.ArgumentTypeError("an empty text")
    text = utf8(text)
    signs = {"n": "\n", "t": "\t", "\\": "\\"}
    return re.sub(r"\\([nt\\])", lambda found: signs[found[1]], text)


def one_of(*choices: str) -> Callable[[str], str]:
    """One of some words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(choices)}")
        return text

    return parse


def whole(low: int) -> Callable[[str], int]:
    """The whole numbers from `low` on."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {low}")
        return value

    return parse


def number(
    low: float, high: float = math.inf, without: float | None = None
) -> Callable[[str], float]:
    """The finite numbers from `low` to `high`, without one of the two if it is named."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low <= value <= high and math.isfinite(value)) or value == without:
            wanted = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            wanted += "" if without is None else f", without {without:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {wanted}")
        return value

    return parse


def one_line(error: MinigradError | OSError) -> str:
    """What an error has to say, without line breaks."""
    if isinstance(error, MinigradError):
        parts = [error.problem, error.hint]
    else:
        parts = [
            f"{error.filename}: {error.strerror}"
            if error.filename
            else error.strerror or str(error)
        ]
    return "; ".join(" ".join(part.split()) for part in parts if part)
