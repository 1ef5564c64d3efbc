"""Functions composed of several ops, as users see them: `@composite`.

    @composite(widen=True)
    def silu(x):
        \"\"\"Return x sigmoid(x).\"\"\"
        return x * sigmoid(x)

What it adds to the function: the argument names of other libraries, errors that name the call, and
for 16-bit floats one rounding at the end. Each op computes in float32 and rounds its result; a
chain of them would round between its steps: a mean of 70,000 ones would be inf, as their sum is.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar, overload

import numpy as np

from minigrad.arguments import Names, in_dtype
from minigrad.dtypes import float32, is_float, is_half, promote
from minigrad.errors import ConfigError, MinigradError, kind_of
from minigrad.ops.movement import cast
from minigrad.primitive import as_tuple

F = TypeVar("F", bound=Callable[..., Any])
RAW = (TypeError, ValueError, IndexError, AttributeError, OverflowError, ZeroDivisionError)


@overload
def composite(function: F) -> F: ...
@overload
def composite(
    *, widen: bool = False, numpy: Any = (), name: str = "", lists: bool = False
) -> Callable[[F], F]: ...
def composite(
    function: Any = None,
    *,
    widen: bool = False,
    numpy: Any = (),
    name: str = "",
    lists: bool = False,
) -> Any:
    """Make a function of operands and options into one for users.

    widen: compute float16 and bfloat16 operands in float32, and round the results once, to the
        dtype that an op on the same operands gives.
    numpy: the numpy functions that it answers for when they are called on a Tensor.
    name: its name, if not that of the function.
    lists: take lists among the positional arguments for operands.
    """
    if function is None:
        return functools.partial(composite, widen=widen, numpy=numpy, name=name, lists=lists)
    names = Names(function)
    names.call = call = name or function.__name__
    known = {*names.positional, *names.keyword}
    most = sys.maxsize if names.variadic else len(names.positional)
    inner = _in_float32(function) if widen else function

    @functools.wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        try:
            if options and not (known.issuperset(options) or names.takes_any_keyword):
                if "dtype" in options and "dtype" not in known:
                    return in_dtype(called, args[0], args[1:], options)
                options = names.respelled(options)
                if names.rest in options:  # reshape(shape=(2, 3)) is reshape(2, 3)
                    args = (*args, options.pop(names.rest))
            if len(args) > most:  # further ones are the keywords, in order
                options = dict(zip(names.keyword, args[most:], strict=False), **options)
                args = args[: max(most, len(args) - len(names.keyword))]
            if lists and list in map(type, args):
                args = tuple(_as_array(x) if type(x) is list else x for x in args)
            return inner(*args, **options)
        except MinigradError as error:
            error.named(call)
            raise
        except RAW as error:
            raise _explained(call, function, args, options, error) from error

    if name:
        called.__name__ = called.__qualname__ = name
    called.__dict__["numpy"] = as_tuple(numpy)
    return called


def _in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    def rounded_once(*args: Any, **options: Any) -> Any:
        for x in args:
            dtype = getattr(x, "dtype", float32)
            if dtype is not float32 and is_half(dtype):
                break
        else:
            return function(*args, **options)
        dtypes = [getattr(x, "dtype", None) for x in args]
        target = promote(*(d for d in dtypes if d is not None and is_float(d)))
        wide = (
            cast(x, dtype=float32) if d is not None and is_half(d) else x
            for x, d in zip(args, dtypes, strict=True)
        )
        results = function(*wide, **options)
        if isinstance(results, tuple):
            return tuple(_rounded(y, target) for y in results)
        return _rounded(results, target)

    return rounded_once


def _as_array(numbers: list[Any]) -> Any:
    array = np.asarray(numbers)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _rounded(y: Any, dtype: Any) -> Any:
    return cast(y, dtype=dtype) if is_float(y.dtype) and y.dtype != dtype else y


def _explained(
    call: str, function: Callable[..., Any], args: Any, options: dict[str, Any], error: Exception
) -> MinigradError:
    """The error to raise instead of Python's or numpy's: it names the call and its arguments."""
    shown = [_shown(x) for x in args if not isinstance(x, type)]
    given = ", ".join(shown + [f"{key}={_shown(x)}" for key, x in options.items()])
    wanted = (function.__doc__ or "").partition("\n")[0]
    problem = f"cannot work on ({given}): {error}"
    return kind_of(error, ConfigError)(call, problem, given, wanted, f"{call}: {wanted}")


def _shown(x: Any) -> str:
    return f"{type(x).__name__} {tuple(x.shape)}" if hasattr(x, "shape") else repr(x)[:60]
