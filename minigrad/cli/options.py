"""Options of the commands, each declared once: the parser, config files, sweeps and resumed runs
read the same tables.

A value comes from the command line, else `--set`, else `--config`, else the default.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import math
import os
import re
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from minigrad.errors import ConfigError, MinigradError, needs

REQUIRED: Any = object()  # the default of an option that has none


class Kind(NamedTuple):
    """What an option takes: its name in the help, and the value of a text."""

    metavar: str
    parse: Callable[[str], Any]


class Option(NamedTuple):
    """An option. name: as in Python, n_layer for --n-layer; all capitals for a positional argument.
    repeated: it may be given several times, and its value is a list; none is needed where the
        default is ().
    flag: by which a positional argument may be given instead, as other commands have it.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    repeated: bool = False
    flag: str = ""

    def add_to(self, parser: Parser) -> None:
        """Declare the option. A value that is not given is absent from the parsed namespace."""
        absent = any(self.default is value for value in (None, False, REQUIRED, ()))
        plain = absent or "(default" in self.help
        facts: dict[str, Any] = {
            "help": self.help + ("" if plain else f" (default {self.default})"),
            "default": argparse.SUPPRESS,
        }
        flag = "--" + self.name.replace("_", "-")
        if self.kind in (FLAG, SWITCH):
            action: Any = "store_true" if self.kind is FLAG else argparse.BooleanOptionalAction
            parser.add_argument(flag, action=action, **facts)
        elif self.flag:
            either = parser.add_mutually_exclusive_group(required=True)
            facts |= {"type": self.kind.parse, "metavar": self.name}
            either.add_argument(self.name.lower(), nargs="?", **facts)
            either.add_argument(self.flag, dest=self.name.lower(), **facts)
        elif self.name.isupper():
            many = {"nargs": "*" if self.default == () else "+"} if self.repeated else {}
            facts |= {"type": self.kind.parse, "metavar": self.name, **many}
            parser.add_argument(self.name.lower(), **facts)
        else:
            facts |= {"action": "append"} if self.repeated else {}
            facts |= {"type": self.kind.parse, "metavar": self.kind.metavar}
            parser.add_argument(flag, required=self.default is REQUIRED, **facts)

    def convert(self, value: Any) -> Any:
        """Return a value of a config file as the command line would give it."""
        if isinstance(value, dict | list):
            raise ArgumentTypeError("expected a single value")
        if self.kind in (FLAG, SWITCH):
            if str(value).lower() not in ("true", "false"):
                raise ArgumentTypeError("expected true or false")
            return str(value).lower() == "true"
        if isinstance(value, bool):
            raise ArgumentTypeError("this option takes a value other than true and false")
        return self.kind.parse(str(value))


@dataclass(frozen=True)
class Table:
    """Options, and the name of the command that reads them."""

    name: str
    options: Sequence[Option]

    def complete(self, found: Mapping[str, Any]) -> Namespace:
        """Return the options that were found, then those of --set and --config, then the defaults.
        `given` are the names of all but the defaults.
        """
        pairs = [pair.partition("=") for pair in found.get("set", ())]
        for key, equals, _ in pairs:
            if not equals:
                raise ConfigError(self.name, f"argument --set: {key!r} is not KEY=VALUE")
        named = self.settings("", ((key, value) for key, _, value in pairs))
        if file := found.get("config"):
            named = self.settings(f"{file}: ", read_toml(self.name, file).items()) | named
        given = {**named, **found}
        defaults = {o.name.lower(): o.default for o in self.options if o.default is not REQUIRED}
        return Namespace(**{**defaults, **given}, given=frozenset(given))

    def settings(self, where: str, pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        """Return options by name, from settings of a file or of --set. Raises ConfigError, which
        begins with `where`, for an unknown name or a bad value.
        """
        known = {o.name: o for o in self.options if o.name not in ("config", "set")}
        found = {}
        for key, value in pairs:
            name = key.strip().replace("-", "_")
            if name not in known:
                problem = f"{where}unknown option {key!r}"
                hint = near(name, known, f"see minigrad {self.name} --help")
                raise ConfigError(self.name, problem, got=key, hint=hint)
            try:
                found[name] = known[name].convert(value)
            except ArgumentTypeError as error:
                problem = f"{where}{key} = {value!r}: {error}"
                raise ConfigError(self.name, problem, got=value) from None
        return found


@dataclass(frozen=True)
class Command(Table):
    """A subcommand: its options, and what runs it and returns the exit code.

    help: the text of --help, the docstring of the command's module; what follows "examples:" comes
        after the options.
    """

    run: Callable[[Namespace], int]
    purpose: str
    help: str | None

    def add_to(self, commands: argparse._SubParsersAction[Parser]) -> None:
        """Add the subcommand and its options."""
        about, mark, examples = (self.help or "").partition("examples:\n")
        parser = commands.add_parser(
            self.name, help=self.purpose, description=about, epilog=mark + examples
        )
        for option in self.options:
            option.add_to(parser)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that keeps line breaks in texts and raises ConfigError for bad input."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings
        )

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError with the message."""
        raise ConfigError(self.prog, message, hint=f"see {self.prog} --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; suggest an option for one that is unknown."""
        found, extra = super().parse_known_args(args, namespace)
        if extra and self._subparsers is None:
            known = [name for name in self._option_string_actions if name != "--help"]
            hint = near(extra[0].partition("=")[0], known, f"see {self.prog} --help")
            raise ConfigError(self.prog, f"unrecognized arguments: {' '.join(extra)}", hint=hint)
        return found, extra


def _utf8(text: str) -> str:
    try:  # bytes that are not UTF-8 reach Python as lone surrogates
        text.encode()
    except UnicodeEncodeError:
        raise ArgumentTypeError(f"{os.fsencode(text)!r} is not UTF-8 text") from None
    return text


def _filled(text: str) -> str:
    if not text:
        raise ArgumentTypeError("an empty path")
    return text


def _unescaped(text: str) -> str:
    if not text:
        raise ArgumentTypeError("an empty text")
    signs = {"n": "\n", "t": "\t", "\\": "\\"}
    return re.sub(r"\\([nt\\])", lambda found: signs[found[1]], _utf8(text))


FLAG, SWITCH = Kind("", bool), Kind("", bool)  # --name; --name and --no-name
PATH, DIR, FILE = (Kind(name, _filled) for name in ("PATH", "DIR", "FILE"))
TEXT, SETTING = Kind("TEXT", _utf8), Kind("KEY=VALUE", str)
ESCAPED = Kind("TEXT", _unescaped)  # \n, \t and \\ as in Python: a shell has no simple way for them
WORDS = Kind("NAME,...", lambda text: [part.strip() for part in text.split(",") if part.strip()])


def _checked(metavar: str, convert: Any, is_good: Callable[[Any], bool], otherwise: str) -> Kind:
    """The texts that `convert` takes and of which it makes a good value."""

    def parse(text: str) -> Any:
        with contextlib.suppress(ValueError):
            if is_good(value := convert(text)):
                return value
        raise ArgumentTypeError(f"{text!r} is {otherwise}")

    return Kind(metavar, parse)


def one_of(*choices: str) -> Kind:
    """One of some words."""
    return _checked("NAME", str, choices.__contains__, f"none of {', '.join(choices)}")


def whole(low: int) -> Kind:
    """The integers from `low` on."""
    return _checked("N", int, lambda n: n >= low, f"not a whole number of at least {low}")


def number(low: float, high: float = math.inf, without: float | None = None) -> Kind:
    """The finite numbers from `low` to `high`, without one of the two if it is named."""
    lowest = f"above {low:g}" if without == low else f"of at least {low:g}"
    highest = f"below {high:g}" if without == high else f"at most {high:g}"
    wanted = f"from {low:g} to {high:g}" if without is None else f"{lowest} and {highest}"
    wanted = lowest if high == math.inf else wanted

    def is_good(x: float) -> bool:
        return low <= x <= high and math.isfinite(x) and x != without

    return _checked("X", float, is_good, f"not a number {wanted}")


def one_line(error: MinigradError | OSError) -> str:
    """Return an error's message without line breaks."""
    if isinstance(error, MinigradError):
        parts = [error.problem, error.hint]
    else:
        reason = error.strerror or str(error)
        parts = [f"{error.filename}: {reason}" if error.filename else reason]
    return "; ".join(" ".join(part.split()) for part in parts if part)


def near(word: str, known: Iterable[str], hint: str = "") -> str:
    """Return a hint that names the word that was meant; `hint` if none of the known is like it."""
    found = difflib.get_close_matches(word, list(known), 1)
    return f"did you mean {found[0]}?" if found else hint


def refuse(call: str, problem: str, hint: str = "leave one of the two out") -> NoReturn:
    """Raise ConfigError for options that do not go together."""
    raise ConfigError(call, problem, hint=hint)


def read_toml(call: str, path: str) -> dict[str, Any]:
    """Return the tables of a TOML file. Raises ConfigError if it is not TOML, OSError if it cannot
    be read.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        with needs(call, "Python 3.10 cannot read TOML files by itself", "tomli"):
            import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
    with open(path, "rb") as file:
        try:
            found: dict[str, Any] = tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            hint = "see https://toml.io"
            raise ConfigError(call, f"{path} is not TOML: {error}", got=path, hint=hint) from None
    return found
