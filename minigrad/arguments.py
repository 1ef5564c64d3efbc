"""Checks of arguments that are numbers: sizes, counts, rates.

A numpy scalar is accepted wherever a Python number is, and comes back as a Python number, so that
whatever is stored or saved later is plain. A bool is not a number here.
"""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

from minigrad.errors import ConfigError


def as_int(call: str, name: str, value: Any, least: int = 1) -> int:
    """Return `value` as an int. Raises ConfigError unless it is an integer >= least."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        wanted = f"an integer >= {least}"
        raise ConfigError(call, f"{name} must be {wanted}, got {value!r}", got=value, wanted=wanted)
    return number


def as_sizes(call: str, **sizes: Any) -> tuple[int, ...]:
    """Return the keyword arguments as ints, in order. Raises ConfigError unless all are >= 1."""
    return tuple(as_int(call, name, size) for name, size in sizes.items())


def as_float(
    call: str, name: str, value: Any, least: float, most: float, *, below: bool = False
) -> float:
    """Return `value` as a float. Raises ConfigError unless it is a real number in [least, most], or
    in [least, most) if `below`.
    """
    real = isinstance(value, Real) and not isinstance(value, bool)
    number = float(value) if real else math.nan
    if not (least <= number < most if below else least <= number <= most):
        wanted = f"a number in [{least:g}, {most:g}{')' if below else ']'}"
        raise ConfigError(call, f"{name} must be {wanted}, got {value!r}", got=value, wanted=wanted)
    return number
