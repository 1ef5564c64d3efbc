"""Functions around one op, with the checks, options and defaults that users expect."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from minigrad import dtypes, ops
from minigrad.arguments import one_of, require
from minigrad.errors import DTypeError
from minigrad.ops.axis import axes, one_axis
from minigrad.ops.composite import composite
from minigrad.ops.loss import Reduce, cross_entropy

F = TypeVar("F", bound=Callable[..., Any])


# --- along an axis


def accepts_0d(function: F) -> F:
    """Let a function along an axis take a tensor without axes as a row of one, as PyTorch does."""

    @functools.wraps(function)
    def as_row(input: Any, *args: Any, **options: Any) -> Any:
        if input is None or input.ndim:
            return function(input, *args, **options)
        result = function(ops.reshape(input, shape=(1,)), *args, **options)
        if isinstance(result, tuple):
            rows = tuple(ops.reshape(y, shape=()) for y in result)
            return type(result)(*rows) if hasattr(result, "_fields") else rows
        return ops.reshape(result, shape=())

    return as_row  # type: ignore[return-value]


# --- norms


def normalised(
    x: Any, *factors: Any, norm: Callable[..., Any], axis: tuple[int, ...], eps: float
) -> Any:
    """Return `norm`, an op of the last axis, of several axes, whose shape the factors have."""
    if x.dtype is dtypes.float32 and axis == (x.ndim - 1,):  # the usual case, with no detour
        return norm(x, *factors, eps=eps)[0]
    return _normalised_along(x, *factors, norm=norm, axis=axis, eps=eps)


@composite(widen=True)
def _normalised_along(
    x: Any, *factors: Any, norm: Callable[..., Any], axis: tuple[int, ...], eps: float
) -> Any:
    if axis == (x.ndim - 1,):
        return norm(x, *factors, eps=eps)[0]
    order = [*(a for a in range(x.ndim) if a not in axis), *axis]
    back = tuple(map(order.index, range(x.ndim)))
    moved = ops.permute(x, order=tuple(order))
    width = math.prod(x.shape[a] for a in axis)
    rows = ops.reshape(moved, shape=(*moved.shape[: x.ndim - len(axis)], width))
    flat_factors = (None if p is None else ops.reshape(p, shape=(width,)) for p in factors)
    y = norm(rows, *flat_factors, eps=eps)[0]
    return ops.permute(ops.reshape(y, shape=moved.shape), order=back)


@composite
def layernorm(x: Any, axis: int | tuple[int, ...] = -1, eps: float = 1e-5) -> Any:
    """Return (x - mean) / sqrt(var + eps) over `axis`."""
    along = axes(axis, x.ndim, "layernorm")
    return normalised(x, None, None, norm=ops.layer_norm, axis=along, eps=eps)


@composite
def rms_norm(x: Any, axis: int | tuple[int, ...] = -1, eps: float = 1e-6) -> Any:
    """Return x / sqrt(mean(x^2) + eps) over `axis`."""
    return normalised(x, None, norm=ops.rms_norm, axis=axes(axis, x.ndim, "rms_norm"), eps=eps)


# --- of each element


@composite
def div(a: Any, b: Any, *, rounding_mode: str | None = None) -> Any:
    """Return a / b; the quotient rounded down with rounding_mode="floor", towards 0 with "trunc".
    The gradient of a rounded quotient is 0.
    """
    if rounding_mode is None:
        return ops.div(a, b)
    one_of("div", "rounding_mode", rounding_mode, ("floor", "trunc"))
    down = ops.floor_div(a, b)
    if rounding_mode == "floor":
        return down
    if dtypes.is_float(down.dtype):
        return ops.trunc(ops.div(a, b))
    return ops.floor_div(ops.sub(a, ops.fmod(a, b)), b)


@composite
def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """Return x where `condition`, of bools, is true, else y. Without both, return the indices of
    the true elements, one vector per axis. A NaN in the branch not taken has no influence, forward
    or backward, along elementwise ops.
    """
    if x is None and y is None:
        return nonzero(condition, as_tuple=True)
    return ops.where(condition, x, y)


@composite(numpy=(np.round, np.around))
def round(x: Any, decimals: int = 0) -> Any:
    """Return x rounded to the given number of decimals, halves to even. The dtype stays."""
    if not decimals:
        return ops.round(x)
    wide = x if dtypes.is_float(x.dtype) else ops.cast(x, dtype=dtypes.float64)
    y = ops.round(wide * 10.0**decimals) / 10.0**decimals
    return y if wide is x else ops.cast(y, dtype=x.dtype)


@composite(numpy=np.clip)
def clamp(x: Any, min: Any = None, max: Any = None) -> Any:
    """Return min(max(x, low), high); a bound may be None. The gradient passes at the bounds."""
    given = min is not None or max is not None
    require(given, "clamp", "min or max", None, "given", "clamp(min=0)")
    least, most = dtypes.limits(x.dtype)
    return ops.clamp(x, least if min is None else min, most if max is None else max)


@composite
def masked_fill(x: Any, mask: Any, value: Any) -> Any:
    """Return `value` where `mask` is true, else x. The dtype stays."""
    dtype = x.dtype
    if isinstance(value, np.generic):
        value = value.item()
    whole = not isinstance(value, float) or value.is_integer()
    if not dtypes.is_float(dtype) and (
        not whole or dtypes.is_float(getattr(value, "dtype", dtype))
    ):
        problem = f"{value} into a tensor of {dtypes.name(dtype)}"
        raise DTypeError("masked_fill", problem, got=value, wanted=dtype, hint=".float() first")
    if hasattr(value, "dtype"):
        value = cast(value, dtype)
    elif not dtypes.is_float(dtype) and value is not None:
        value = bool(value) if dtype == dtypes.bool_ else int(value)
    return ops.where(mask, value, x)


@composite(numpy=np.isclose)
def isclose(
    x: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Any:
    """Return True where |x - other| <= atol + rtol |other|, or both are the same infinity."""
    same = ops.equal(x, other)
    if equal_nan:
        both = ops.logical_and(ops.not_equal(x, x), ops.not_equal(other, other))
        same = ops.logical_or(same, both)
    distance = ops.abs(ops.sub(ops.cast(x, dtype=np.float64), other))  # small integers wrap around
    near = ops.less_equal(distance, atol + rtol * ops.abs(other))
    return ops.logical_or(same, ops.logical_and(near, ops.isfinite(other)))


@composite(numpy=np.allclose)
def allclose(
    x: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """Return True if all elements are close, as by isclose."""
    return bool(ops.all(isclose(x, other, rtol, atol, equal_nan)))


@composite(numpy=np.array_equal)
def equal(x: Any, other: Any) -> bool:
    """Return True if the shapes are equal and all elements too."""
    return x.shape == np.shape(other) and bool(ops.all(ops.equal(x, other)))


# --- by index


@composite
def gather(x: Any, axis: int, index: Any) -> Any:
    """Return y[i, j, ...] = x[i, .., index[i, j, ...], ..], the index standing on `axis`.

    Raises IndexRangeError for an index outside 0 .. size - 1.
    """
    return ops.take_along(x, index, axis=one_axis(axis, x.ndim, "gather"))


@composite
def one_hot(index: Any, num_classes: int = -1) -> Any:
    """Return 1 at the place that each index names on a new last axis, else 0, int64. -1: one class
    more than the largest index.
    """
    if num_classes == -1:
        num_classes = int(ops.max(index)) + 1
    return ops.one_hot(index, num_classes=num_classes)


@composite
def nonzero(x: Any, as_tuple: bool = False) -> Any:
    """Return the indices of the elements that are not 0: (count, ndim), int64; or one vector per
    axis.
    """
    found = ops.nonzero(x)
    if not as_tuple:
        return found
    return tuple(ops.getitem(found, index=(slice(None), i)) for i in range(x.ndim))


# --- products and losses


def sequential(x: Any, functions: Sequence[Callable[[Any], Any]]) -> Any:
    """Return the last of the functions of ... of the first of x."""
    for function in functions:
        x = function(x)
    return x


@composite(numpy=np.outer)
def outer(x: Any, other: Any) -> Any:
    """Return the products of each element of x with each of `other`: (N,), (M,) -> (N, M)."""
    return ops.mul(ops.reshape(x, shape=(-1, 1)), ops.reshape(other, shape=(1, -1)))


@composite(lists=True)
def sparse_categorical_crossentropy(
    x: Any,
    target: Any,
    ignore_index: int = -1,
    label_smoothing: float = 0.0,
    reduction: Reduce = "mean",
) -> Any:
    """Return cross_entropy by its other name, where ignore_index is -1."""
    given: Any = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    return cross_entropy(x, target, reduction=reduction, **given)


# --- dtypes and memory


@composite
def cast(x: Any, dtype: Any) -> Any:
    """Return x in another dtype; x itself if it has it already."""
    wanted = dtypes.as_dtype(dtype, "cast")
    return x if wanted == x.dtype else ops.cast(x, dtype=wanted)


@composite
def to(x: Any, *wanted: Any, **options: Any) -> Any:
    """Return x in another dtype, or x itself: to(dtype), to(device), to(device, dtype). "cpu" is
    the only device.
    """
    found = dtypes.asked_of_to(wanted, options, "to")
    return x if found is None else cast(x, found)


@composite
def type_as(x: Any, other: Any) -> Any:
    """Return x in the dtype of `other`."""
    return cast(x, other.dtype)


@composite
def contiguous(x: Any) -> Any:
    """Return x, or a copy in row-major order if it is not in that order."""
    array = x if isinstance(x, np.ndarray) else x.data
    return x if array.flags.c_contiguous else ops.copy(x)


def in_dtype(dtype: dtypes.DType) -> Callable[[Any], Any]:
    """The method that casts to one dtype."""

    def method(x: Any) -> Any:
        return cast(x, dtype)

    method.__name__, method.__doc__ = dtypes.name(dtype), f"Return x in {dtypes.name(dtype)}."
    return method
