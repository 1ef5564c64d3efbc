"""Checks of arguments: sizes, counts, rates and choices, with one wording for all.

A numpy scalar is accepted wherever a Python number is, and comes back as a Python number, so that
whatever is stored or saved later is plain. A bool is not a number here.
"""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

from minigrad.errors import ConfigError


def require(good: object, call: str, name: str, value: Any, wanted: str, hint: str = "") -> None:
    """Raise ConfigError unless `good`."""
    if not good:
        problem = f"{name} must be {wanted}, got {value!r}"
        raise ConfigError(call, problem, got=value, wanted=wanted, hint=hint)


def as_int(call: str, name: str, value: Any, least: int = 1) -> int:
    """Return `value` as an int. Raises ConfigError unless it is an integer >= least."""
    try:
        number = least - 1 if _is_bool(value) else operator.index(value)
    except TypeError:
        number = least - 1
    require(number >= least, call, name, value, f"an integer >= {least}")
    return number


def as_sizes(call: str, **sizes: Any) -> tuple[int, ...]:
    """Return the keyword arguments as ints, in order. Raises ConfigError unless all are >= 1."""
    return tuple(as_int(call, name, size) for name, size in sizes.items())


def as_float(
    call: str,
    name: str,
    value: Any,
    least: float,
    most: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
) -> float:
    """Return `value` as a float. Raises ConfigError unless it is a real number in [least, most]:
    greater than `least` if `above`, less than `most` if `below`. NaN is in no interval.
    """
    real = type(value) is float or (isinstance(value, Real) and not _is_bool(value))
    number = float(value) if real else math.nan
    low_enough = number < most if below else number <= most
    if not (low_enough and (least < number if above else least <= number)):
        left, right = "(" if above else "[", ")" if below else "]"
        require(False, call, name, value, f"a number in {left}{least:g}, {most:g}{right}")
    return number


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", "") == "b"


def one_of(call: str, name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise ConfigError unless `value` is one of the choices."""
    if not (isinstance(value, str) and value in choices):
        require(False, call, name, value, "one of " + ", ".join(map(repr, choices)))
