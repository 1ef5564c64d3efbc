"""Settings in a TOML file."""

from __future__ import annotations

import sys
from typing import Any

from minigrad.errors import ConfigError, MissingDependencyError


def read_toml(call: str, path: str) -> dict[str, Any]:
    """The tables of a TOML file. Raises ConfigError, in the name of `call`, for what is no TOML,
    OSError for what cannot be read.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            problem = "Python 3.10 cannot read TOML files by itself"
            hint = "pip install tomli"
            wanted = "tomli"
            raise MissingDependencyError(
                call, problem, got=path, wanted=wanted, hint=hint
            ) from None
    with open(path, "rb") as file:
        try:
            found: dict[str, Any] = tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            problem = f"{path} is not TOML: {error}"
            hint = "see https://toml.io for what it looks like"
            raise ConfigError(call, problem, got=path, hint=hint) from None
    return found
