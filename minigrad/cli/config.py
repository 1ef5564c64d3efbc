"""Options from a TOML file (`--config FILE`) and by name (`--set key=value`).

What is later in the line of defaults, file, command line wins. Keys are the options' names, with
dashes or underscores.
"""

from __future__ import annotations

import argparse
import difflib
from typing import Any

from minigrad.cli.arguments import Parser, one_line
from minigrad.cli.toml import read_toml
from minigrad.errors import MinigradError

_NOT_SETTINGS = {"help", "config", "set"}


def add_config_options(parser: Parser) -> None:
    """Add `--config` and `--set`."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        action=_FromFile,
        parser=parser,
        default=argparse.SUPPRESS,
        help="options from a TOML file, named as here; what the command line says wins (default: "
        "none)",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action=_ByName,
        parser=parser,
        default=argparse.SUPPRESS,
        help="an option by its name in a config file; may be given several times (default: none)",
    )


class _Setting(argparse.Action):
    """An action that sets other options of its parser."""

    def __init__(
        self, option_strings: list[str], dest: str, parser: Parser, **settings: Any
    ) -> None:
        super().__init__(option_strings, dest, **settings)
        self.parser = parser

    def assign(self, namespace: argparse.Namespace, where: str, key: str, value: Any) -> str:
        """Set one option and return its name. Raises ArgumentError, which names the place, for an
        unknown key and for a bad value.
        """
        options = {
            a.dest: a
            for a in self.parser._actions
            if a.option_strings and a.dest not in _NOT_SETTINGS
        }
        name = key.strip().replace("-", "_")
        if name not in options:
            close = difflib.get_close_matches(name, options, 1)
            raise argparse.ArgumentError(
                self,
                f"{where}unknown option {key!r}"
                + (f"; did you mean {close[0]!r}?" if close else ""),
            )
        try:
            setattr(namespace, name, _converted(options[name], value))
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise argparse.ArgumentError(self, f"{where}{key} = {value!r}: {error}") from None
        return name


def _converted(option: argparse.Action, value: Any) -> Any:
    """The value as the option's own text would give it."""
    if isinstance(value, (dict, list)):
        raise argparse.ArgumentTypeError("an option has one value")
    if option.nargs == 0:  # a switch
        text = str(value).lower()
        if text not in ("true", "false"):
            raise argparse.ArgumentTypeError("wanted is true or false")
        return text == "true"
    if isinstance(value, bool):
        raise argparse.ArgumentTypeError("this option is no switch")
    return option.type(str(value)) if callable(option.type) else str(value)


class _FromFile(_Setting):
    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        try:
            settings = read_toml("train", values)
        except (MinigradError, OSError) as error:
            raise argparse.ArgumentError(self, one_line(error)) from None
        said, before = namespace.given - namespace.configured, argparse.Namespace(**vars(namespace))
        names = {
            self.assign(namespace, f"{values}: ", key, value) for key, value in settings.items()
        }
        for name in names & said:
            setattr(namespace, name, getattr(before, name))
        namespace.given |= names
        namespace.configured |= names - said


class _ByName(_Setting):
    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        key, equals, value = values.partition("=")
        if not equals:
            raise argparse.ArgumentError(self, f"{values!r} is not KEY=VALUE")
        name = self.assign(namespace, "", key, value)
        namespace.given |= {name}
        namespace.configured -= {name}
