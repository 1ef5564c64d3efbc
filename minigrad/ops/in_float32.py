"""The one place where functions composed of several ops learn about 16-bit floats.

Each op computes in float32 and rounds its result. A chain of them would round between its steps: a
mean of 70,000 ones would be inf, as their sum is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from minigrad.dtypes import float32, is_float, is_half, promote
from minigrad.ops.movement import cast

F = TypeVar("F", bound=Callable[..., Any])


def in_float32(function: F) -> F:
    """Let a composed `function` have its positional float16 and bfloat16 operands in float32, and
    round what comes out of it once.

    The results have the dtype that an op on the same operands gives, by `promote`.
    """

    @functools.wraps(function)
    def _rounded_once(*args: Any, **params: Any) -> Any:
        for x in args:
            dtype = getattr(x, "dtype", float32)
            if dtype is not float32 and is_half(dtype):
                break
        else:
            return function(*args, **params)
        dtypes = [getattr(x, "dtype", None) for x in args]
        target = promote(*(d for d in dtypes if d is not None and is_float(d)))
        results = function(
            *(
                cast(x, dtype=float32) if d is not None and is_half(d) else x
                for x, d in zip(args, dtypes, strict=True)
            ),
            **params,
        )
        if isinstance(results, tuple):
            return tuple(_rounded(y, target) for y in results)
        return _rounded(results, target)

    return _rounded_once  # type: ignore[return-value]


def _rounded(y: Any, dtype: Any) -> Any:
    return cast(y, dtype=dtype) if is_float(y.dtype) and y.dtype != dtype else y
