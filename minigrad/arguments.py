"""Arguments: checks of sizes, counts, rates and choices, with one wording for all; and the names of
a function's arguments, as other libraries spell them too.

A numpy scalar is accepted wherever a Python number is, and comes back as a Python number, so that
whatever is stored or saved later is plain. A bool is not a number here.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from numbers import Real
from typing import Any

from minigrad.errors import ConfigError, DTypeError, ShapeError


def require(good: object, call: str, name: str, value: Any, wanted: str, hint: str = "") -> None:
    """Raise ConfigError unless `good`."""
    if not good:
        problem = f"{name} must be {wanted}, got {value!r}"
        raise ConfigError(call, problem, got=value, wanted=wanted, hint=hint)


def fits(good: object, call: str, problem: str, got: Any, hint: str = "") -> None:
    """Raise ShapeError unless `good`."""
    if not good:
        raise ShapeError(call, problem, got=got, hint=hint)


def as_int(call: str, name: str, value: Any, least: int = 1) -> int:
    """Return `value` as an int. Raises ConfigError unless it is an integer >= least."""
    try:
        number = least - 1 if _is_bool(value) else operator.index(value)
    except TypeError:
        number = least - 1
    require(number >= least, call, name, value, f"an integer >= {least}")
    return number


def as_place(call: str, name: str, value: Any, size: int) -> int:
    """Return `value`, a place among `size`, from the end if negative, as an int >= 0. Raises
    ConfigError unless there is one.
    """
    place = as_int(call, name, value, -size)
    require(place < size, call, name, value, f"an integer from {-size} to {size - 1}")
    return place % size


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


def one_of(call: str, name: str, value: Any, choices: tuple[str, ...]) -> Any:
    """Return `value`. Raises ConfigError unless it is one of the choices."""
    if not (isinstance(value, str) and value in choices):
        require(False, call, name, value, "one of " + ", ".join(map(repr, choices)))
    return value


# --- names: `dim` is accepted for `axis`, `keepdims` for `keepdim`, and so on. They are looked up
# only in a call with a keyword that the function does not have

_VARIADIC, _ANY_KEYWORD = 0x04, 0x08
# What other libraries call an argument, and what it is called here. A spelling is translated where
# a function has one of the second and not the first.
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "dim": ("axis",),
    "dims": ("axis", "order"),
    "axes": ("dims", "order"),
    "dimension": ("axis",),
    "keepdims": ("keepdim",),
    "axis1": ("dim1", "axis0"),
    "axis2": ("dim2", "axis1"),
    "dim1": ("axis1",),
    "dim2": ("axis2",),
    "ord": ("p",),
    "split_size": ("sizes",),
    "split_size_or_sections": ("sizes",),
    "chunks": ("n",),
    "end": ("stop", "b"),
    "ddof": ("correction",),
    "unbiased": ("correction",),
    "value": ("src",),
    "size": ("shape",),
    "newshape": ("shape",),
    "fill_value": ("value",),
    "shift": ("shifts",),
    "k": ("diagonal", "offset"),
    "reps": ("counts",),
    "padding": ("pad",),
    "a_min": ("min",),
    "a_max": ("max",),
    "other": ("b",),
    "exponent": ("b", "p"),
    "tensors": ("xs",),
    "arrays": ("tensors",),
}


def _any(*args: Any, **kwargs: Any) -> None:
    """Stands for a function whose arguments are unknown."""


class Names:
    """The names of a function's arguments, by position or by keyword alone."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.call = function.__name__
        while hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        code = getattr(function, "__code__", _any.__code__)  # C functions have none
        count, keywords = code.co_argcount, code.co_kwonlyargcount
        self.positional = code.co_varnames[:count]
        self.keyword = code.co_varnames[count : count + keywords]
        self.variadic = bool(code.co_flags & _VARIADIC)
        self.rest = code.co_varnames[count + keywords] if self.variadic else ""
        self.known = {*self.positional, *self.keyword, self.rest} - {""}
        self.takes_any_keyword = bool(code.co_flags & _ANY_KEYWORD)
        defaults = getattr(function, "__defaults__", None) or ()
        self.defaults = dict(zip(self.positional[count - len(defaults) :], defaults, strict=True))
        self.defaults |= getattr(function, "__kwdefaults__", None) or {}

    def spelled(self, name: str) -> str:
        """What an argument is called here; "" if there is none."""
        if name in self.known:
            return name
        choices = _SPELLINGS.get(name, self.positional[:1] if name == "input" else ())
        return next((n for n in choices if n in self.known), "")

    def unknown(self, name: str, call: str) -> DTypeError:
        """The error for an argument that the call does not have."""
        signature = ", ".join(n for n in (*self.positional, *self.keyword) if n != "self")
        problem, hint = f"no argument is called {name}", f"{call}({signature})"
        return DTypeError(call, problem, name, signature, hint)

    def respelled(self, given: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments under the names that they have here.

        Raises ConfigError for one that is given twice, DTypeError for an unknown one.
        """
        found: dict[str, Any] = {}
        for name, value in given.items():
            ours = self.spelled(name)
            if name == "inplace" and not ours:  # PyTorch's activations have it
                if value:
                    problem, hint = "inplace=True is not supported", f"x = {self.call}(x)"
                    raise ConfigError(self.call, problem, value, False, hint)
                continue
            if not ours:
                raise self.unknown(name, self.call)
            if ours in given and ours != name:
                problem = f"{name} and {ours} are the same argument"
                raise ConfigError(self.call, problem, tuple(given), hint="give one of them")
            found[ours] = int(value) if name == "unbiased" else value
        return found


def in_dtype(function: Callable[..., Any], x: Any, rest: Any, options: dict[str, Any]) -> Any:
    """The result of a function without an option dtype= of its own, called with one: x is cast
    before, and what adds up in a wider integer is cast after. Raises DTypeError where the result
    would be of floats, but the dtype is not.
    """
    dtype = options.pop("dtype")
    if dtype is not None:
        x = x.cast(dtype) if hasattr(x, "cast") else x.astype(dtype)
    y = function(x, *rest, **options)
    kind = getattr(getattr(y, "dtype", None), "kind", "")
    if dtype is None or x.dtype.kind not in "biu" or kind not in tuple("iuf") or y.dtype == x.dtype:
        return y
    if kind == "f":
        call, problem = function.__name__, f"gives floats, which dtype={x.dtype} does not hold"
        raise DTypeError(call, problem, dtype, "a float dtype", "convert the result: .to(dtype)")
    return y.cast(x.dtype) if hasattr(y, "cast") else y.astype(x.dtype)
